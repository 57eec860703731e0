"""Loading a model into a session of ONNX Runtime's: with which options, on which provider, and why not."""

import contextlib
import errno
import importlib.util
import io
import logging
import mmap
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from scoring_runtime.providers import PROVIDERS
from scoring_runtime.scorer.loop import LoadError

from . import accelerators, external_data, model_file, nvidia, optimized, providers
from .plan import SessionPlan
from .session import VERSION, Session, UnservableError, is_out_of_memory, reason
from .tensors import Size

LONGEST_REASON = 500
"""Characters of what another provider than the CPU has to say."""

_LOG_FATAL_ONLY = 4
_ONNXRUNTIME_FOLDER = Path(onnxruntime.__file__).parent
_OPENVINO = "onnxruntime_ep_openvino"
_log = logging.getLogger(__name__)


def open_session(plan: SessionPlan) -> Session:
    """Load a model; LoadError, with one message that names file, cause and cure, when that cannot be done."""
    # What ONNX Runtime says of providers that do not load, on stderr: we say it better.
    onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
    _inspect(plan.path)
    opened, placement = providers.place(plan, _machine(), lambda name: _open_on(name, plan))
    try:
        return Session(opened.session, opened.shapes, plan.threads, placement, opened.cached)
    except UnservableError as error:
        raise LoadError(f"{plan.path}: {error}") from error


def first_provider(plan: SessionPlan) -> str:
    """The one that open_session tries first, by our name."""
    return providers.candidates(plan, _machine())[0]


def _machine() -> providers.Machine:
    return providers.Machine(_available(), nvidia.why_no_gpu(os.environ))


class _Opened(NamedTuple):
    """A session of ONNX Runtime's, and what the file said."""

    session: onnxruntime.InferenceSession
    shapes: dict[str, tuple[Size, ...] | None]
    """Of the inputs, as declared."""
    self_contained: bool
    """It has no external data."""
    cached: str = ""
    """As Session.optimized_cache."""


def _available() -> list[str]:
    """The providers that this installation has, by our names; whether they work is another question."""
    built_in = onnxruntime.get_available_providers()
    plugins = {"openvino"} if importlib.util.find_spec(_OPENVINO) is not None else set()
    return [each.name for each in PROVIDERS.values() if each.onnx_name in built_in or each.name in plugins]


def _open_on(name: str, plan: SessionPlan) -> tuple[_Opened, list[tuple[str, str]]]:
    """A session on one provider, and for each node its provider and operator. As providers.place() asks for it."""
    if name != "openvino":
        _check_usable(name)

    def load(path: Path, *, optimize: bool = True, write_to: Path | None = None) -> _Opened:
        return _load(name, plan, path, optimize, write_to)

    cache = _cache(plan, name)
    if isinstance(cache, str):
        opened, cached = load(plan.path), f"off: {cache}"
    else:
        opened, cached = optimized.load_through(cache, plan.path, load)
    session = opened.session
    session.disable_fallback()  # else a failed run would build the session anew on the CPU, under traffic
    assigned = session.get_provider_graph_assignment_info()
    nodes = [(group.ep_name, node.op_type) for group in assigned for node in group.get_nodes()]
    providers.check_runs(
        name, session.get_providers(), nodes, lambda: accelerators.why_not_loaded(name, _ONNXRUNTIME_FOLDER)
    )
    return opened._replace(cached=cached), nodes


def _load(name: str, plan: SessionPlan, path: Path, optimize: bool, write_to: Path | None) -> _Opened:
    shapes, self_contained = _inspect(path)
    dynamic = any(shape is None or not all(isinstance(size, int) for size in shape) for shape in shapes.values())
    options = _options(plan, dynamic)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimize:
        options.graph_optimization_level = _LEVELS["off"]
    if write_to is not None:
        options.optimized_model_filepath = str(write_to)
    given: list[tuple[str, dict[str, str]]] | None = None
    if name == "openvino":
        _add_openvino(options, plan)
    else:
        given = providers.session_providers(name, plan)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=given, enable_fallback=0)
    except Exception as error:  # every reason not to load is one message
        raise _why_not_opened(name, plan, error) from error
    return _Opened(session, shapes, self_contained)


def _cache(plan: SessionPlan, name: str) -> optimized.Place | str:
    """Where the optimised model is kept; or why nowhere."""
    if plan.cache_dir is None:
        return "there is no cache folder"
    if name != "cpu":
        return "only models that run on the CPU alone are kept"
    if plan.graph_optimization == "off":
        return "the model is not optimised"
    conditions = {
        "onnxruntime": f"{VERSION} {onnxruntime.get_build_info()}",
        "providers": PROVIDERS["cpu"].onnx_name,
        "graph_optimization": plan.graph_optimization,
    }
    return optimized.Place(plan.cache_dir / "optimized", plan.cache_dir_is_named, conditions)


def _why_not_opened(name: str, plan: SessionPlan, error: Exception) -> Exception:
    """What to raise for an error of ONNX Runtime's: another provider may do, but an option that is refused is one to mend."""
    chain = ("tensorrt", "cuda") if name == "tensorrt" else (name,)
    refused = providers.refused_option(str(error), {each: providers.options(each, plan) for each in chain})
    if refused is not None:
        return providers.WrongOptionError(f"the provider option {refused} is refused: {reason(str(error))}")
    if name == "cpu":
        return LoadError(f"{plan.path}: {_why_not_loaded(error)}")
    text = reason(str(error))
    if len(text) > LONGEST_REASON:  # OpenVINO explains at length
        text = f"{text[:LONGEST_REASON]}..."
    if is_out_of_memory(str(error)):
        more = (
            "raise --gpu-memory-mb, or see with nvidia-smi who else has memory there"
            if PROVIDERS[name].gpu
            else "free some"
        )
        return providers.UnusableError(f"there is too little memory for the model: {text}: {more}")
    return providers.UnusableError(
        f"it refuses the model: {text}: run it on another provider (--provider-policy prefer does), or export it again"
    )


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
            raise providers.UnusableError(f"its plugin does not load: {reason(str(error))}") from error
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


def _inspect(path: Path) -> tuple[dict[str, tuple[Size, ...] | None], bool]:
    """Look at the file before ONNX Runtime does. The declared shapes of its inputs, and whether it has no external data."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise LoadError(f"{path}: the file is empty: copy the model again, or fetch it with git lfs pull")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
                tensors = model_file.external_tensors(model)
                refused = external_data.why_refused(path, tensors)
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
    return shapes, not tensors


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


_NO_MODEL = "the file is no ONNX model, or a damaged one: copy or export it again"
_UPDATE = "convert the model to the older version, or update onnxruntime"


def _why_not_loaded(error: Exception) -> str:
    """ONNX Runtime's reason not to load a model, as cause and cure."""
    text = reason(str(error))
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
