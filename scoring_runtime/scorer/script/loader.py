"""Finds and loads the user's script, decides once how its run() is called, and calls init() (contract §4.1 and §4.2).

Whatever keeps the script from being served ends in a LoadError that names file, cause and cure, with the user's own
traceback.
"""

import importlib
import inspect
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from time import perf_counter
from types import CoroutineType, ModuleType
from typing import Any, Callable, Dict, List, NoReturn, Optional

from ..loop import LoadError
from . import aliases, call, debugger, encode, log, request, schema

MODULE_NAME = "entry_module"
_TREE_LINES = 200
_MAX_DEFAULT_BYTES = 8192
_IMPORT_FAILED = "Failed to import user script because it raised an unhandled exception"
_FLASK_NAMES = (
    "request",
    "jsonify",
    "make_response",
    "current_app",
    "g",
    "send_file",
    "stream_with_context",
    "url_for",
)


def load(hello: Dict[str, Any]) -> call.ScriptEngine:
    """The engine for the script that HELLO names; LoadError when there is none."""
    app_root = hello.get("app_root") or os.getcwd()
    target = hello.get("target")
    folders = [app_root]
    if hello.get("source_dir"):
        folders.append(os.path.join(app_root, hello["source_dir"]))
    folders.append(os.getcwd())
    if target is not None:
        folders.append(os.path.dirname(target))
        sys.argv[0] = target
    # Behind everything of the interpreter's own: a user's file never hides a module that a package relies on.
    sys.path.extend(folder for folder in dict.fromkeys(folders) if folder not in sys.path)

    if hello.get("debug_port"):
        debugger.wait_for(hello["debug_port"])
    aliases.install()
    log.configure([app_root, folders[-1]], hello.get("log_level") or "info")
    log.capture_print()
    model_dir = hello.get("model_dir")
    if not model_dir or not os.path.isdir(model_dir):
        log.trace_logger.warning("Model directory is not set or does not exist: %s", model_dir or "")

    module = _import_script(target, app_root)
    init = _function(module, "init")
    run = _function(module, "run")
    log.user_script_logger.info("Found user script at %s", module.__file__)
    driver = getattr(module, "driver_module", None)
    if isinstance(driver, ModuleType) and hasattr(driver, "run"):
        run = driver.run
    script = _analyse(run, module)
    runner = call.AsyncRunner()
    if inspect.iscoroutinefunction(run):
        runner.prepare()
    began = perf_counter()
    _call_init(init, runner, module, model_dir)
    info = {
        "engine": "script",
        "idempotent": False,
        "headers": _wanted_headers(script),
        "methods": ["GET", "POST", "OPTIONS", "HEAD"] if script.mode == call.RAW else ["GET", "POST"],
        "mode": script.mode,
        "arguments": script.arguments,
        "defaults": _sayable(script.defaults) if script.mode == call.OBJECT else {},
        "python": "%d.%d.%d" % sys.version_info[:3],
        "init_ms": round((perf_counter() - began) * 1000, 3),
        "swagger": schema.describe(run),
    }
    return call.ScriptEngine(script, info, int(hello.get("scoring_timeout_ms") or 0), runner)


def _import_script(target: Optional[str], app_root: str) -> ModuleType:
    """The module of the script. It is known as `entry_module`, so that what it defines can be looked up and pickled."""
    if target is None:
        return _import_main(app_root)
    if not os.path.isfile(target):
        raise LoadError(
            "No such file or directory. %s: there is no such file. Name the script that is to be served." % target
        )
    spec = spec_from_file_location(MODULE_NAME, target, loader=SourceFileLoader(MODULE_NAME, target))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[MODULE_NAME] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # a script may call sys.exit()
        _import_failed(target, error)
    return module


def _import_main(app_root: str) -> ModuleType:
    try:
        return importlib.import_module("main")
    except BaseException as error:  # as above
        if not (isinstance(error, ImportError) and error.name == "main"):
            _import_failed("main.py", error)
        raise LoadError(
            "No score script found. Expected score script main.py.\n"
            "Expected script to be found in PYTHONPATH: %s\n"
            "Current contents of AML_APP_ROOT: %s" % (sys.path, sorted(os.listdir(app_root)))
        ) from None


def _import_failed(path: str, error: BaseException) -> NoReturn:
    python = "Python %d.%d.%d (%s)" % (*sys.version_info[:3], sys.executable)
    if isinstance(error, SyntaxError):
        where = "%s, line %s" % (error.filename or path, error.lineno)
        what = "%s: %s: %s. Correct it, or choose another interpreter than %s with --python." % (
            where,
            type(error).__name__,
            error.msg,
            python,
        )
    elif isinstance(error, ImportError):
        what = (
            "%s: %s: %s. The script runs under %s: install what is missing there, or choose the interpreter of another "
            "environment with --python." % (path, type(error).__name__, error, python)
        )
    else:
        what = "%s: %s while it was imported: the traceback says where." % (path, _describe(error))
    raise LoadError(_IMPORT_FAILED + "\n" + what, log.user_traceback(error))


def _function(module: ModuleType, name: str) -> Callable[..., Any]:
    if not hasattr(module, name):
        purpose = (
            "loads the model, once, before any request" if name == "init" else "answers a request, such as run(data)"
        )
        raise LoadError(
            "User script at %s does not have a %s() function defined. Define it: it %s."
            % (module.__file__, name, purpose)
        )
    function = getattr(module, name)
    if not callable(function):
        raise LoadError(
            "%s: %s is a %s, not a function. Define it with def." % (module.__file__, name, type(function).__name__)
        )
    return function  # type: ignore[no-any-return]


def _analyse(run: Callable[..., Any], module: ModuleType) -> call.Script:
    """How run() is to be called; LoadError when it cannot be."""
    try:
        parameters = list(inspect.signature(run).parameters.values())
    except (ValueError, TypeError) as error:
        raise _bad_run(module, "the arguments of run() cannot be found out: %s. Define it with def." % error) from None
    if any(parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) for parameter in parameters):
        raise _bad_run(module, "run() cannot accept positional-only arguments, *args, or **kwargs.")
    inputs = [parameter for parameter in parameters if parameter.name != "request_headers"]
    wants_headers = len(inputs) < len(parameters)
    if not inputs:
        kind = 'other than "request_headers"' if wants_headers else "for input data"
        raise _bad_run(module, "run() needs to accept an argument %s." % kind)
    decorated = schema.is_decorated(run)
    if request.raw_http and decorated:
        raise _bad_run(module, "run() cannot be decorated with both @rawhttp and @input_schema")

    names = [parameter.name for parameter in inputs]
    say = log.user_script_logger.info
    if request.raw_http:
        mode, names = call.RAW, names[:1]
        say("run() is decorated with @rawhttp. Server will invoke it with the flask request object.")
    elif decorated:
        mode = call.OBJECT
        say(
            "run() is decorated with @input_schema. Server will invoke it with the following arguments: %s.",
            ", ".join(names),
        )
    else:
        mode, names = call.STRING, names[:1]
        say("run() is not decorated. Server will invoke it with the input in JSON string.")
    required = [parameter.name for parameter in inputs if parameter.default is parameter.empty]
    defaults = {parameter.name: parameter.default for parameter in inputs if parameter.default is not parameter.empty}
    return call.Script(run, mode, names, required, defaults, wants_headers, _flask_app(mode, module))


def _sayable(defaults: Dict[str, Any]) -> Dict[str, Any]:
    """Those that are small and have a form in JSON, for the front's log of inputs."""
    sayable = {}
    for name, value in defaults.items():
        try:
            text = encode.encode(value)
        except Exception:  # noqa: S112 - whatever the value's own code raises: this one is left out
            continue
        if len(text) <= _MAX_DEFAULT_BYTES:
            sayable[name] = json.loads(text.decode("ascii"))
    return sayable


def _bad_run(module: ModuleType, message: str) -> LoadError:
    return LoadError("%s: %s" % (module.__file__, message))


def _flask_app(mode: str, module: ModuleType) -> Any:
    """An application for Flask's contexts where user code can expect one: in raw mode, and where it uses Flask itself."""
    if mode == call.RAW:
        try:
            flask: Any = importlib.import_module("flask")
        except ImportError:
            return None
    else:
        flask = sys.modules.get("flask")
        known = [flask] + [getattr(flask, name, None) for name in _FLASK_NAMES]
        if flask is None or not any(
            value is thing for value in vars(module).values() for thing in known if thing is not None
        ):
            return None
    return flask.Flask(module.__name__, static_folder=None)


def _wanted_headers(script: call.Script) -> Any:
    if script.mode == call.RAW or script.wants_headers or script.flask_app is not None:
        return "all"
    return ["content-type"] if script.mode == call.OBJECT else "none"


def _call_init(
    init: Callable[..., Any], runner: call.AsyncRunner, module: ModuleType, model_dir: Optional[str]
) -> None:
    log.user_script_logger.info("Invoking user's init function")
    try:
        result = init()
        if type(result) is CoroutineType:
            runner.run(result)
    except BaseException as error:  # SystemExit and the like included: the front must hear why
        message = "User's init function failed\n%s: init() raised %s: the traceback says where." % (
            module.__file__,
            _describe(error),
        )
        if model_dir:
            message += "\nModel Directory Contents:\n" + "\n".join(tree(model_dir))
        raise LoadError(message, log.user_traceback(error)) from None
    log.user_script_logger.info("Users's init has completed successfully")


def _describe(error: BaseException) -> str:
    text = str(error)
    return type(error).__name__ + (": " + text if text else "")


def tree(folder: str) -> List[str]:
    """The files below `folder`, one a line, indented by depth; cut where it gets long (contract §8)."""
    lines: List[str] = []
    pending = [(0, folder)]
    while pending and len(lines) <= _TREE_LINES:
        depth, path = pending.pop()
        is_folder = os.path.isdir(path)
        name = os.path.basename(path.rstrip(os.sep))
        lines.append("    " * depth + name + ("/" if is_folder else ""))
        if is_folder and not (depth and os.path.islink(path)):
            try:
                names = os.listdir(path)
            except OSError:
                names = []
            pending.extend((depth + 1, os.path.join(path, name)) for name in sorted(names, reverse=True))
    if len(lines) > _TREE_LINES:
        lines[_TREE_LINES:] = ["Output Truncated. First %d lines shown." % _TREE_LINES]
    return lines
