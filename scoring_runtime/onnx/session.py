"""The ONNX Runtime session: running it, and what its errors mean."""

import ctypes
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from . import buckets, pinned
from .dtypes import BY_NAME, BY_ONNX_TYPE, Array, bfloat16_bits, bfloat16_values
from .providers import Placement
from .tensors import Output, Sequential, Size, Tensor

VERSION: str = onnxruntime.__version__

_BFLOAT16 = BY_NAME["bfloat16"]
_ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16
_CUDA = "CUDAExecutionProvider"
_ON_CUDA = (_CUDA, "TensorrtExecutionProvider")


class RunError(Exception):
    """A run did not succeed. The text is for the log."""


class RunRefusedError(RunError):
    """The inputs are at fault. The text is for the client."""


class OutOfMemoryError(RunError):
    """The run did not fit into memory. The text is for the log."""


class RunStoppedError(RunError):
    """It was told to stop: nobody waits for it. Not to be run again in another way."""


class DeviceLostError(Exception):
    """The GPU does not run anything for this process any more. It ends the scorer; a new one may find the GPU well."""


NO_GRAPH = -1
"""In the place of a graph's number: nothing is captured, nothing is replayed."""


class Session:
    """A loaded model."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        shapes: dict[str, tuple[Size, ...] | None],
        threads: int,
        placement: Placement,
        optimized_cache: str = "",
    ) -> None:
        self._session = session
        self.inputs = [_input(argument, shapes) for argument in session.get_inputs()]
        self.outputs = [_output(argument) for argument in session.get_outputs()]
        self.providers: list[str] = session.get_providers()
        self.threads = threads
        self.placement = placement
        self.optimized_cache = optimized_cache
        """Whether it came from the cache: "hit", "stored", or "off: REASON"."""
        self._running = onnxruntime.RunOptions()  # of the present run, or of the last one
        self._input_names = [tensor.name for tensor in self.inputs]
        self._output_names = [output.name for output in self.outputs]
        self._by_ort_values = any(
            isinstance(tensor, Tensor) and tensor.dtype is _BFLOAT16 for tensor in (*self.inputs, *self.outputs)
        )
        options = session.get_provider_options().get(_CUDA, {}) if self.providers[0] in _ON_CUDA else None
        self.device, self._device_id = ("cpu", 0) if options is None else ("cuda", int(options.get("device_id", 0)))
        """Where a binding's memory is: cpu or cuda."""
        self.captures = options is not None and options.get("enable_cuda_graph") == "1"
        """Whether runs can be captured in CUDA graphs. Then all runs must come from one thread."""

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """The outputs for these inputs, both in the model's order. RunRefusedError or RunError when there are none."""
        options = self._run_options()
        try:
            if self._by_ort_values:
                return self._run_ort_values(arrays, options)
            outputs: list[Any] = self._session.run(
                self._output_names, dict(zip(self._input_names, arrays, strict=True)), options
            )
            return outputs
        except Exception as error:  # whatever a kernel raises is this request's end, not the scorer's
            raise _run_error(error, options) from error

    def bind(self, arrays: Sequence[Array], outputs: Sequence[Any], graph: int = NO_GRAPH) -> "Binding | None":
        """Fixed memory for runs of inputs and outputs as these; None where the model's types do not allow it.

        graph: the number of the CUDA graph that the runs are captured in. RunError when there is no memory for it.
        """
        tensors = (*self.inputs, *self.outputs)
        if self._by_ort_values or not all(isinstance(each, Tensor) and each.dtype.kind != "O" for each in tensors):
            return None
        try:
            ends = (self._input_names, arrays), (self._output_names, outputs)
            return Binding(self._session, *ends, (self.device, self._device_id), lambda: self._run_options(graph))
        except Exception as error:  # mostly, that there is no memory left
            raise _run_error(error) from error

    def release_graph(self, graph: int) -> None:
        """Let go of a captured graph, and of the memory that it holds. RunError when it stays."""
        try:
            self._session.release_captured_graph(graph)
        except Exception as error:  # as in run
            raise _run_error(error) from error

    def _run_options(self, graph: int = NO_GRAPH) -> onnxruntime.RunOptions:
        """For one run, each its own: a late stop hits no other run."""
        options = self._running = onnxruntime.RunOptions()
        if self.captures:
            # Without a number a session that can capture would take a run of any shape for graph 0.
            options.add_run_config_entry("gpu_graph_id", str(graph))
        return options

    def stop(self) -> None:
        """Let the run that is under way end before its next node, with RunStoppedError. Called from another thread."""
        self._running.terminate = True

    def _run_ort_values(self, arrays: Sequence[Array], options: onnxruntime.RunOptions) -> list[Any]:
        """A run of a model with bfloat16 inputs or outputs: numpy has no such type, so the bits travel by themselves."""
        feed = {}
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if tensor.dtype is _BFLOAT16:
                bits = bfloat16_bits(array)
                feed[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)
            else:
                feed[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        outputs = []
        values = self._session.run_with_ort_values(self._output_names, feed, options)
        for output, value in zip(self.outputs, values, strict=True):
            if isinstance(output, Tensor) and output.dtype is _BFLOAT16:
                shape = value.shape()
                size = int(np.prod(shape, dtype=np.int64))
                # `value` owns the memory and lives until the values are copied out of it.
                cells = (ctypes.c_uint16 * size).from_address(value.data_ptr()) if size else ()
                outputs.append(bfloat16_values(np.array(cells, np.uint16)).reshape(shape))
            else:
                outputs.append(value.numpy())
        return outputs


class Binding:
    """Memory of fixed place for the inputs and outputs of runs of one shape, on the device where the model runs."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: tuple[Sequence[str], Sequence[Array]],
        outputs: tuple[Sequence[str], Sequence[Array]],
        device: tuple[str, int],
        options: Callable[[], onnxruntime.RunOptions],
    ) -> None:
        self._session = session
        self._options = options
        self._on_cpu = device[0] == "cpu"
        self._binding = session.io_binding()
        self._inputs: list[onnxruntime.OrtValue] = []
        self._staged: list[Array] = []
        self._outputs: list[onnxruntime.OrtValue] = []
        for name, array in zip(*inputs, strict=True):
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, *device)
            self._binding.bind_ortvalue_input(name, value)
            self._inputs.append(value)
            # On a CPU the memory is written in place, otherwise from there.
            self._staged.append(value.numpy() if self._on_cpu else _host_memory(array))
        for name, array in zip(*outputs, strict=True):
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, *device)
            self._binding.bind_ortvalue_output(name, value)
            self._outputs.append(value)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs for these inputs, which may have fewer rows than the memory: they are padded. As Session.run."""
        options = self._options()
        try:
            rows = len(arrays[0])
            for value, staged, array in zip(self._inputs, self._staged, arrays, strict=True):
                buckets.fill(staged, array)
                if not self._on_cpu:
                    value.update_inplace(staged)
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding, options)
            self._binding.synchronize_outputs()
            # The next run writes into the same memory. From a device `numpy` copies; on a CPU it only looks.
            return [value.numpy()[:rows].copy() if self._on_cpu else value.numpy()[:rows] for value in self._outputs]
        except Exception as error:  # as in Session.run
            raise _run_error(error, options) from error


def _host_memory(like: Array) -> Array:
    """Where an input is written before it is copied to a device: pinned, if that is to be had."""
    memory = pinned.empty(like.shape, like.dtype)
    return np.empty_like(like) if memory is None else memory


# ONNX Runtime's arenas, CUDA, cuBLAS and cuDNN, each in its own words.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|smaller than requested bytes|out of memory|CUDA failure 2:|(?<!\w)bad_alloc"
    r"|(CUBLAS|CUDNN|CUFFT)_\w*ALLOC(ATION)?_?FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(text: str) -> bool:
    """Whether an error of ONNX Runtime says that there was no memory left."""
    return _OUT_OF_MEMORY.search(text) is not None


# Errors after which CUDA answers every call of a process with the same error: illegal access, launch timeout, assertion,
# hardware, illegal instruction, misaligned address, launch failure, uncorrectable memory, contained or of NVLink, ...
_DEVICE_LOST = re.compile(r"CUDA failure (214|220|226|70[029]|71[04-9])(?!\d)")


def is_device_lost(text: str) -> bool:
    """Whether an error of ONNX Runtime says that the GPU is lost to this process."""
    return _DEVICE_LOST.search(text) is not None


def _run_error(error: Exception, options: onnxruntime.RunOptions | None = None) -> RunError:
    """What to raise for it; DeviceLostError is raised here."""
    if is_device_lost(str(error)):
        raise DeviceLostError(f"the GPU is lost to this process, which ends: {reason(str(error))}") from error
    if options is not None and options.terminate:
        return RunStoppedError("it was told to stop")
    if isinstance(error, native.InvalidArgument):
        return RunRefusedError(reason(str(error)))
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or is_out_of_memory(text):
        return OutOfMemoryError(reason(str(error)))
    return RunError(text)


class UnservableError(Exception):
    """An input or output that JSON cannot carry."""


def _input(argument: Any, shapes: dict[str, tuple[Size, ...] | None]) -> Tensor:
    dtype = BY_ONNX_TYPE.get(argument.type)
    if dtype is None:
        raise UnservableError(_why_unservable("input", argument))
    shape = tuple(argument.shape)
    # ONNX Runtime shows a scalar and an undeclared shape alike.
    return Tensor(argument.name, dtype, None if not shape and shapes.get(argument.name, ()) is None else shape)


def _output(argument: Any) -> Output:
    dtype = BY_ONNX_TYPE.get(argument.type)
    if dtype is not None:
        return Tensor(argument.name, dtype, tuple(argument.shape) or None)
    if argument.type.startswith("tensor") or not _SEQUENTIAL.fullmatch(argument.type):
        raise UnservableError(_why_unservable("output", argument))
    return Sequential(argument.name, argument.type)


_SERVABLE = "|".join(re.escape(name) for name in BY_ONNX_TYPE if name != _BFLOAT16.onnx)
_SEQUENTIAL = re.compile(rf"(seq|optional|map|\(|\)|,|{_SERVABLE}|int64|string)+")


def _why_unservable(what: str, argument: Any) -> str:
    if argument.type.startswith("tensor"):
        known = ", ".join(dtype.name for dtype in BY_ONNX_TYPE.values())
        return f"{what} {argument.name!r} has the type {argument.type}, which cannot be served: add a Cast to one of {known}"
    return f"{what} {argument.name!r} is no tensor but {argument.type}, which cannot be served: export the model with tensor {what}s"


def reason(text: str) -> str:
    """The part of an ONNX Runtime message that means something outside of it: without codes, source files, functions."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^.*Status Message: ", "", text, flags=re.DOTALL)
    text = re.sub(r"Exception from \S+:\d+:\s*", "", text)  # OpenVINO's
    text = re.sub(r"/\S+\.(?:h|hpp|cc|cpp|cu):\d+ (?:[^()]*\([^()]*\)(?: const)? )?", "", text)
    text = text.replace("Please fix either the inputs/outputs or the model.", "")
    return " ".join(text.split()).rstrip(".: ")
