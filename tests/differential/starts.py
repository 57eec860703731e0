"""Starts that fail, or nearly: how the servers are started, and what is to be read when they end."""

from collections.abc import Mapping
from dataclasses import dataclass

from .servers import Setup

ENTRY = ("--entry_script", "score.py")
GOOD = "def init():\n    pass\n\n\ndef run(data):\n    return data\n"
BOTH = """
from azureml_inference_server_http.api.aml_request import rawhttp
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@rawhttp
@input_schema("a", StandardPythonParameterType(1))
def run(a):
    pass
"""
INIT_FAILED = "User's init function failed"
IMPORT_FAILED = "Failed to import user script because it raised an unhandled exception"
NO_KINDS = "run() cannot accept positional-only arguments, *args, or **kwargs."


@dataclass(frozen=True)
class Start:
    """One of them. `texts` may each be in the output or not: that is what is compared, beside the exit code."""

    setup: Setup
    arguments: tuple[str, ...]
    texts: tuple[str, ...]


def _start(
    script: str | None,
    *texts: str,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = ENTRY,
) -> Start:
    written = {**(files or {}), **({} if script is None else {"score.py": script})}
    return Start(Setup("", environ or {}, written), arguments, texts)


def _config(text: str, *texts: str, script: str | None = GOOD, arguments: tuple[str, ...] = ENTRY) -> Start:
    return _start(script, *texts, files={"c.json": text}, arguments=(*arguments, "--config_file", "c.json"))


STARTS = {
    "good": _start(GOOD, "Azure ML Inferencing HTTP server v", "Entry Script Name: ", "Users's init has completed"),
    "missing script": _start(None, "No such file or directory.", "score.py", "Worker failed to boot."),
    "syntax error": _start("def init(:\n", IMPORT_FAILED, "SyntaxError", "score.py"),
    "import error": _start("import not_there\n", IMPORT_FAILED, "No module named 'not_there'", "in <module>"),
    "raises at import": _start("raise ValueError('at import')\n", IMPORT_FAILED, "ValueError: at import"),
    "exits at import": _start("import sys\nsys.exit(0)\n", IMPORT_FAILED, "SystemExit: 0"),
    "no init": _start("def run(data):\n    pass\n", "score.py does not have a init() function defined."),
    "no run": _start("def init():\n    pass\n", "score.py does not have a run() function defined."),
    "args": _start("def init():\n    pass\n\n\ndef run(*args):\n    pass\n", NO_KINDS),
    "kwargs": _start("def init():\n    pass\n\n\ndef run(a, **more):\n    pass\n", NO_KINDS),
    "no argument": _start(
        "def init():\n    pass\n\n\ndef run():\n    pass\n", "run() needs to accept an argument for input data."
    ),
    "only headers": _start(
        "def init():\n    pass\n\n\ndef run(request_headers):\n    pass\n",
        'run() needs to accept an argument other than "request_headers".',
    ),
    "both decorators": _start(BOTH, "run() cannot be decorated with both @rawhttp and @input_schema"),
    "init raises": _start(
        "def init():\n    raise ValueError('no model')\n\n\ndef run(data):\n    pass\n",
        "Invoking user's init function",
        INIT_FAILED,
        "in init",
        "ValueError: no model",
    ),
    "init exits": _start(
        "import sys\n\n\ndef init():\n    sys.exit(0)\n\n\ndef run(data):\n    pass\n", INIT_FAILED, "SystemExit: 0"
    ),
    "model folder": _start(
        "def init():\n    open('nope')\n\n\ndef run(data):\n    pass\n",
        INIT_FAILED,
        "Model Directory Contents:",
        "models/\n",
        "    a/\n",
        "        1.txt\n",
        "    b.txt\n",
        environ={"AZUREML_MODEL_DIR": "models"},
        files={"models/a/1.txt": "", "models/b.txt": ""},
    ),
    "large model folder": _start(
        "def init():\n    open('nope')\n\n\ndef run(data):\n    pass\n",
        "    198.txt\n",
        "    199.txt\n",
        "Output Truncated. First 200 lines shown.",
        environ={"AZUREML_MODEL_DIR": "models"},
        files={f"models/{number:03}.txt": "" for number in range(250)},
    ),
    "nothing to serve": _start(GOOD, "Error!", "Either provide an entry_script using --entry_script", arguments=()),
    "entry script by variable only": _start(
        GOOD, "Error!", "--entry_script", environ={"AZUREML_ENTRY_SCRIPT": "score.py"}, arguments=()
    ),
    "help": _start(GOOD, "usage: azmlinfsrv", "--worker_count WORKER_COUNT", arguments=("--help",)),
    "unknown option": _start(GOOD, "unrecognized arguments: --nope", arguments=(*ENTRY, "--nope")),
    "abbreviated option": _start(GOOD, "Users's init has completed", arguments=("--entry", "score.py")),
    "no workers": _start(GOOD, "argument --worker_count", arguments=(*ENTRY, "--worker_count", "0")),
    "workers in words": _start(GOOD, environ={"WORKER_COUNT": "many"}),
    "timeout in words": _start(GOOD, "SCORING_TIMEOUT_MS", environ={"SCORING_TIMEOUT_MS": "soon"}),
    "insights without key": _start(
        GOOD,
        "Invalid Application Insights instrumentation key provided.",
        "Application Insights has been disabled.",
        environ={"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": "x"},
    ),
    "config not JSON": _config("{"),
    "config no object": _config("[1]"),
    "config wrong value": _config('{"SCORING_TIMEOUT_MS": "soon"}', "SCORING_TIMEOUT_MS"),
    "config good": _config('{"SCORING_TIMEOUT_MS": 5000}', "Scoring timeout is set to 5000"),
    "config unknown key": _config('{"SOMETHING": 1}', "Users's init has completed"),
    "config empty": _config("", "Users's init has completed"),
    "config missing": _start(GOOD, "Users's init has completed", arguments=(*ENTRY, "--config_file", "nope.json")),
    "config names the script": _config('{"AZUREML_ENTRY_SCRIPT": "score.py"}', "Found user script", arguments=()),
    "config beside the script": _start(GOOD, "Users's init has completed", files={"config.json": "{"}),
    "no main": _config(
        "{}",
        "No score script found. Expected score script main.py.",
        "Expected script to be found in PYTHONPATH: [",
        "Current contents of AML_APP_ROOT: ['c.json']",
        script=None,
        arguments=(),
    ),
    "swagger not JSON": _start(GOOD, "Expecting property name", files={"swagger.json": "{"}),
    "logging not JSON": _start(GOOD, "Expecting property name", files={"logging.json": "{"}),
    "quote in the service's name": _start(GOOD, "Users's init has completed", environ={"SERVICE_NAME": 'a"b'}),
}
