"""The ONNX Runtime session: opening it, running it, and what its errors mean. The only module that imports onnxruntime."""

import contextlib
import ctypes
import errno
import importlib.util
import io
import logging
import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from scoring_runtime.providers import PROVIDERS
from scoring_runtime.scorer.loop import LoadError

from . import accelerators, external_data, model_file, nvidia, providers
from .dtypes import BY_NAME, BY_ONNX_TYPE, Array, bfloat16_bits, bfloat16_values
from .plan import SessionPlan
from .tensors import Output, Sequential, Size, Tensor

VERSION: str = onnxruntime.__version__

_BFLOAT16 = BY_NAME["bfloat16"]
_ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16
_LOG_FATAL_ONLY = 4
_ONNXRUNTIME_FOLDER = Path(onnxruntime.__file__).parent
_OPENVINO = "onnxruntime_ep_openvino"
_log = logging.getLogger(__name__)


class RunError(Exception):
    """A run did not succeed. The text is for the log."""


class RunRefusedError(RunError):
    """The inputs are at fault. The text is for the client."""


class Session:
    """A loaded model."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        shapes: dict[str, tuple[Size, ...] | None],
        threads: int,
        placement: providers.Placement,
    ) -> None:
        self._session = session
        self.inputs = [_input(argument, shapes) for argument in session.get_inputs()]
        self.outputs = [_output(argument) for argument in session.get_outputs()]
        self.providers: list[str] = session.get_providers()
        self.threads = threads
        self.placement = placement
        self._input_names = [tensor.name for tensor in self.inputs]
        self._output_names = [output.name for output in self.outputs]
        self._by_ort_values = any(
            isinstance(tensor, Tensor) and tensor.dtype is _BFLOAT16 for tensor in (*self.inputs, *self.outputs)
        )

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """The outputs for these inputs, both in the model's order. RunRefusedError or RunError when there are none."""
        try:
            if self._by_ort_values:
                return self._run_ort_values(arrays)
            outputs: list[Any] = self._session.run(
                self._output_names, dict(zip(self._input_names, arrays, strict=True))
            )
            return outputs
        except native.InvalidArgument as error:
            raise RunRefusedError(_reason(str(error))) from error
        except Exception as error:  # whatever a kernel raises is this request's end, not the scorer's
            raise RunError(f"{type(error).__name__}: {error}") from error

    def _run_ort_values(self, arrays: Sequence[Array]) -> list[Any]:
        """A run of a model with bfloat16 inputs or outputs: numpy has no such type, so the bits travel by themselves."""
        feed = {}
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if tensor.dtype is _BFLOAT16:
                bits = bfloat16_bits(array)
                feed[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)
            else:
                feed[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        outputs = []
        for output, value in zip(
            self.outputs, self._session.run_with_ort_values(self._output_names, feed), strict=True
        ):
            if isinstance(output, Tensor) and output.dtype is _BFLOAT16:
                shape = value.shape()
                size = int(np.prod(shape, dtype=np.int64))
                # `value` owns the memory and lives until the values are copied out of it.
                cells = (ctypes.c_uint16 * size).from_address(value.data_ptr()) if size else ()
                outputs.append(bfloat16_values(np.array(cells, np.uint16)).reshape(shape))
            else:
                outputs.append(value.numpy())
        return outputs


def open_session(plan: SessionPlan) -> Session:
    """Load a model; LoadError, with one message that names file, cause and cure, when that cannot be done."""
    path = plan.path
    shapes = _inspect(path)
    dynamic = any(shape is None or not all(isinstance(size, int) for size in shape) for shape in shapes.values())
    # What ONNX Runtime says of providers that do not load, on stderr: we say it better.
    onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
    machine = providers.Machine(_available(), nvidia.why_no_gpu(os.environ))
    session, placement = providers.place(plan, machine, lambda name: _open_on(name, plan, dynamic))
    try:
        return Session(session, shapes, plan.threads, placement)
    except _UnservableError as error:
        raise LoadError(f"{path}: {error}") from error


def _available() -> list[str]:
    """The providers that this installation has, by our names; whether they work is another question."""
    built_in = onnxruntime.get_available_providers()
    plugins = {"openvino"} if importlib.util.find_spec(_OPENVINO) is not None else set()
    return [each.name for each in PROVIDERS.values() if each.onnx_name in built_in or each.name in plugins]


def _open_on(name: str, plan: SessionPlan, dynamic: bool) -> tuple[onnxruntime.InferenceSession, list[tuple[str, str]]]:
    """A session on one provider, and for each node its provider and operator. As providers.place() asks for it."""
    options = _options(plan, dynamic)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    given: list[tuple[str, dict[str, str]]] | None = None
    if name == "openvino":
        _add_openvino(options, plan)
    else:
        _check_usable(name)
        given = providers.session_providers(name, plan)
    try:
        session = onnxruntime.InferenceSession(str(plan.path), options, providers=given, enable_fallback=0)
    except Exception as error:  # every reason not to load is one message
        raise _why_not_opened(name, plan, error) from error
    session.disable_fallback()  # else a failed run would build the session anew on the CPU, under traffic
    assigned = session.get_provider_graph_assignment_info()
    nodes = [(group.ep_name, node.op_type) for group in assigned for node in group.get_nodes()]
    providers.check_runs(
        name, session.get_providers(), nodes, lambda: accelerators.why_not_loaded(name, _ONNXRUNTIME_FOLDER)
    )
    return session, nodes


def _why_not_opened(name: str, plan: SessionPlan, error: Exception) -> Exception:
    """What to raise for an error of ONNX Runtime's: another provider may do, but an option that is refused is one to mend."""
    chain = ("tensorrt", "cuda") if name == "tensorrt" else (name,)
    refused = providers.refused_option(str(error), {each: providers.options(each, plan) for each in chain})
    if refused is not None:
        return providers.WrongOptionError(f"the provider option {refused} is refused: {_reason(str(error))}")
    if name == "cpu":
        return LoadError(f"{plan.path}: {_why_not_loaded(error)}")
    return providers.UnusableError(_why_not_loaded(error))


def _check_usable(name: str) -> None:
    """UnusableError where something that the provider needs is missing; what it needs is loaded."""
    why = accelerators.why_absent(name, _available(), VERSION)
    if why is None and PROVIDERS[name].gpu:
        said = io.StringIO()  # it prints what it does not find; our own check says more
        with contextlib.redirect_stdout(said):
            onnxruntime.preload_dlls()
        _log.debug("preload_dlls: %s", " ".join(said.getvalue().split()) or "found everything")
        why = accelerators.why_unusable(name, _ONNXRUNTIME_FOLDER, VERSION)
    if why is not None:
        raise providers.UnusableError(why)
    if PROVIDERS[name].gpu and (missing := accelerators.why_partly_unusable(_ONNXRUNTIME_FOLDER)):
        _log.warning("models with convolutions, recurrent layers or FFTs will not run on CUDA: %s", missing)


def _add_openvino(options: onnxruntime.SessionOptions, plan: SessionPlan) -> None:
    """Make a session run on OpenVINO's plugin; UnusableError where it offers no device of the type asked for."""
    why = accelerators.why_absent("openvino", _available(), VERSION)
    if why is not None:
        raise providers.UnusableError(why)
    import onnxruntime_ep_openvino

    onnx_name = PROVIDERS["openvino"].onnx_name
    if not _devices(onnx_name):
        try:
            onnxruntime.register_execution_provider_library(onnx_name, onnxruntime_ep_openvino.get_library_path())
        except Exception as error:
            raise providers.UnusableError(f"its plugin does not load: {_reason(str(error))}") from error
    wanted = providers.options("openvino", plan)
    devices = _devices(onnx_name)
    chosen = [each for each in devices if each.ep_metadata.get("ov_device") == wanted["device_type"]]
    if not chosen:
        offered = ", ".join(each.ep_metadata.get("ov_device", "?") for each in devices) or "none"
        raise providers.UnsuitableError(
            f"OpenVINO offers no device {wanted['device_type']} on this machine, but {offered}"
        )
    given = plan.options.get("openvino", {})
    options.add_provider_for_devices(chosen[:1], providers.openvino_options(wanted, given))


def _devices(onnx_name: str) -> list[Any]:
    return [each for each in onnxruntime.get_ep_devices() if each.ep_name == onnx_name]


def _inspect(path: Path) -> dict[str, tuple[Size, ...] | None]:
    """Look at the file before ONNX Runtime does. The declared shapes of its inputs."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise LoadError(f"{path}: the file is empty: copy the model again, or fetch it with git lfs pull")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
                refused = external_data.why_refused(path, model_file.external_tensors(model))
                shapes = model_file.declared_shapes(model)
    except FileNotFoundError:
        raise LoadError(f"{path}: there is no such file: check the path") from None
    except OSError as error:
        what = (
            "is a folder, no file: name the model file in it"
            if error.errno == errno.EISDIR
            else f"cannot be read: {error.strerror}: check its permissions"
        )
        raise LoadError(f"{path}: {what}") from None
    except model_file.MalformedModelError as error:
        raise LoadError(f"{path}: {_NO_MODEL} ({error})") from None
    if refused is not None:
        raise LoadError(f"{path}: {refused}")
    return shapes


_LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def _options(plan: SessionPlan, dynamic: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.graph_optimization_level = _LEVELS[plan.graph_optimization]
    options.inter_op_num_threads = 1
    # Spinning at 50 runs a second with 2 threads: 1.96 s of CPU in place of 0.44 s, for the same answers as fast.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # By its bytes a file could pass for ONNX Runtime's own format, whose external data we do not inspect.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # A pattern is kept for each shape of the inputs that ever came.
    options.enable_mem_pattern = not dynamic
    # Errors reach us as exceptions; a line on stderr for each bad request would be the client's to write.
    options.log_severity_level = _LOG_FATAL_ONLY
    return options


class _UnservableError(Exception):
    """An input or output that JSON cannot carry."""


def _input(argument: Any, shapes: dict[str, tuple[Size, ...] | None]) -> Tensor:
    dtype = BY_ONNX_TYPE.get(argument.type)
    if dtype is None:
        raise _UnservableError(_why_unservable("input", argument))
    shape = tuple(argument.shape)
    # ONNX Runtime shows a scalar and an undeclared shape alike.
    return Tensor(argument.name, dtype, None if not shape and shapes.get(argument.name, ()) is None else shape)


def _output(argument: Any) -> Output:
    dtype = BY_ONNX_TYPE.get(argument.type)
    if dtype is not None:
        return Tensor(argument.name, dtype, tuple(argument.shape) or None)
    if argument.type.startswith("tensor") or not _SEQUENTIAL.fullmatch(argument.type):
        raise _UnservableError(_why_unservable("output", argument))
    return Sequential(argument.name, argument.type)


_SERVABLE = "|".join(re.escape(name) for name in BY_ONNX_TYPE if name != _BFLOAT16.onnx)
_SEQUENTIAL = re.compile(rf"(seq|optional|map|\(|\)|,|{_SERVABLE}|int64|string)+")


def _why_unservable(what: str, argument: Any) -> str:
    if argument.type.startswith("tensor"):
        known = ", ".join(dtype.name for dtype in BY_ONNX_TYPE.values())
        return f"{what} {argument.name!r} has the type {argument.type}, which cannot be served: add a Cast to one of {known}"
    return f"{what} {argument.name!r} is no tensor but {argument.type}, which cannot be served: export the model with tensor {what}s"


_NO_MODEL = "the file is no ONNX model, or a damaged one: copy or export it again"
_UPDATE = "convert the model to the older version, or update onnxruntime"


def _why_not_loaded(error: Exception) -> str:
    """ONNX Runtime's reason not to load a model, as cause and cure."""
    text = _reason(str(error))
    if found := re.search(
        r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", text, re.DOTALL
    ):
        opset, domain, newest = found.groups()
        return f"the model uses opset {opset} of {domain}; onnxruntime {VERSION} knows up to opset {newest}: {_UPDATE}"
    if found := re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", text):
        return (
            f"the model has IR version {found[1]}; onnxruntime {VERSION} knows up to IR version {found[2]}: {_UPDATE}"
        )
    if isinstance(error, native.InvalidProtobuf) or "No graph was found" in text:
        return _NO_MODEL
    if isinstance(error, native.NotImplemented) or "not a registered function/op" in text or "No Op registered" in text:
        return f"no provider implements an operator of the model ({text}): export it with standard operators"
    return f"onnxruntime {VERSION} refuses the model: {text}: check it with onnx.checker, or export it again"


def _reason(text: str) -> str:
    """The part of an ONNX Runtime message that means something outside of it: without codes, source files, functions."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^.*Status Message: ", "", text, flags=re.DOTALL)
    text = re.sub(r"Exception from \S+:\d+:\s*", "", text)  # OpenVINO's
    text = re.sub(r"/\S+\.(?:h|hpp|cc|cpp|cu):\d+ (?:[^()]*\([^()]*\)(?: const)? )?", "", text)
    text = text.replace("Please fix either the inputs/outputs or the model.", "")
    return " ".join(text.split()).rstrip(".: ")
