"""Whatever a user brings, it does not choose what code the server's own interpreters run.

Every folder and variable here is hostile at once. Each hostile module writes down who imported it: the user's own
interpreter may, ours may not.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

SCRIPT = """
import os, sys

def init():
    pass

def run(data):
    if data == "world":
        return {"environ": dict(os.environ), "path": sys.path, "modules": sorted(sys.modules), "cwd": os.getcwd()}
    if data == "import":
        import flask, frames, gunicorn, loop, numpy, scoring_runtime, sitecustomize
        return [module.__file__ for module in (flask, frames, gunicorn, loop, numpy, scoring_runtime, sitecustomize)]
    return {"echo": data}
"""

OF_STDLIB = (
    *("abc", "argparse", "asyncio/__init__", "codecs", "collections/__init__", "ctypes/__init__", "encodings/__init__"),
    *("hashlib", "importlib/__init__", "io", "json/__init__", "logging/__init__", "mmap", "os", "re", "resource"),
    *("runpy", "select", "signal", "site", "socket", "ssl", "struct", "subprocess", "tempfile", "threading", "typing"),
)
OF_OURS = ("scoring_runtime/__init__", "scoring_runtime/cli", "scoring_runtime/azmlinfsrv", "scoring_runtime/__main__")
OF_OTHERS = (
    *("flask", "gunicorn/__init__", "gunicorn.conf", "httptools", "numpy", "onnxruntime", "orjson", "simdjson"),
    *("prometheus_client", "uvloop", "werkzeug", "setproctitle", "eventlet", "opentelemetry/__init__"),
    *("frames", "loop", "loader", "progress", "_scoring_runtime_scorer", "entry_module"),
)
CUSTOMIZE = ("sitecustomize", "usercustomize")

HOSTILE = """
import sys as _sys
with open({notes!r}, "a") as _notes, open("/proc/self/cmdline") as _command:
    _notes.write({name!r} + " " + _command.read().replace("\\0", " ") + "\\n")
bind = ["127.0.0.1:1"]
workers = 7
"""

VARIABLES = {
    "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --workers 7 --config gunicorn.conf.py",
    "GUNICORN_FD": "0,1",
    "GUNICORN_PID": "1",
    "WEB_CONCURRENCY": "7",
    "PORT": "1",
    "SENDFILE": "yes",
    "FORWARDED_ALLOW_IPS": "*",
    "LISTEN_PID": "1",
    "LISTEN_FDS": "3",
    "FLASK_APP": "hostile",
    "FLASK_DEBUG": "1",
    "FLASK_ENV": "development",
    "FLASK_RUN_PORT": "1",
    "WERKZEUG_RUN_MAIN": "true",
    "WERKZEUG_SERVER_FD": "0",
    "WERKZEUG_DEBUG_PIN": "off",
    "UV_THREADPOOL_SIZE": "nonsense",
    "UVLOOP_DEBUG": "1",
    "OTEL_PYTHON_CONTEXT": "hostile",
    "OTEL_SDK_DISABLED": "true",
    "SIMDJSON_FORCE_IMPLEMENTATION": "nonsense",
    "ORT_LOG_LEVEL": "nonsense",
    "ORT_TENSORRT_EXTRA_PLUGIN_LIB_PATHS": "/nonexistent.so",
    "OMP_NUM_THREADS": "nonsense",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_PERTURB_": "7",
    "TMPDIR": "/nonexistent/folder",
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONOPTIMIZE": "2",
    "PYTHONDEVMODE": "1",
}
"""Those that an interpreter of the user's can live with."""

DEADLY_VARIABLES = {
    "PYTHONHOME": "/nonexistent",
    "PYTHONWARNINGS": "error",
    "PYTHONINSPECT": "1",
    "PYTHONVERBOSE": "1",
    "PYTHONIOENCODING": "utf-16",
    "PYTHONMALLOC": "nonsense",
    "PYTHONHASHSEED": "nonsense",
    "PYTHONUTF8": "nonsense",
    "PYTHONPLATLIBDIR": "nonsense",
}


class Hostile(NamedTuple):
    """What the user brings."""

    work: Path
    """The working directory, with score.py and a model: every name of the standard library and others lies beside it."""
    path: Path
    """A folder for PYTHONPATH, with names of ours and of libraries, but not of the standard library."""
    everything: Path
    """The same with the standard library."""
    base: Path
    """For PYTHONUSERBASE."""
    notes: Path
    environ: dict[str, str]

    def importers(self, *command: str) -> list[str]:
        """Who imported what: the notes of processes whose command line holds one of these words."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line for line in lines if any(word in line.split()[1:] for word in command)]


@pytest.fixture
def hostile(tmp_path, trained) -> Hostile:
    notes = tmp_path / "notes"

    def write(folder: Path, names: tuple[str, ...]) -> Path:
        for name in names:
            path = folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(HOSTILE.format(notes=str(notes), name=name))
        return folder

    work = write(tmp_path / "work", (*OF_STDLIB, *OF_OURS, *OF_OTHERS, *CUSTOMIZE))
    (work / "score.py").write_text(SCRIPT)
    (work / "iris.onnx").write_bytes(trained.iris.read_bytes())
    path = write(tmp_path / "path", (*OF_OURS, *OF_OTHERS, *CUSTOMIZE))
    everything = write(tmp_path / "everything", (*OF_STDLIB, *OF_OURS, *OF_OTHERS, *CUSTOMIZE))
    base = tmp_path / "base"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user_site = write(base / "lib" / version / "site-packages", ("usercustomize", "of_the_user_site"))
    (user_site / "hostile.pth").write_text("import of_the_user_site\n")
    multiprocess = tmp_path / "prometheus"
    multiprocess.mkdir()
    environ = VARIABLES | {
        "PYTHONPATH": str(path),
        "PYTHONUSERBASE": str(base),
        "PYTHONSTARTUP": str(work / "json/__init__.py"),
        "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"),
        "PROMETHEUS_MULTIPROC_DIR": str(multiprocess),
        "SSLKEYLOGFILE": str(tmp_path / "keys"),
        "XDG_CONFIG_HOME": str(work),
    }
    return Hostile(work, path, everything, base, notes, environ)


@pytest.fixture(scope="module")
def users_python() -> str:
    """An interpreter whose user site is open: the one that this one's environment was made from."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


QUESTIONS: list[tuple[str, str, bytes | None]] = [
    ("GET", "/", None),
    ("GET", "/livez", None),
    ("GET", "/startupz", None),
    ("GET", "/readyz", None),
    ("GET", "/swagger.json", None),
    ("GET", "/swagger.json?version=9", None),
    ("GET", "/v2", None),
    ("GET", "/v2/models/nobody", None),
    ("GET", "/nowhere", None),
    ("PUT", "/score", b"x"),
    ("POST", "/score", b'{"data": [[5.1, 3.5, 1.4, 0.2]]}'),
    ("POST", "/score", b'{"data": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.2, 5.0, 1.5]]}'),
    ("POST", "/score", b'{"data": [['),
    ("POST", "/score", b"\xff"),
]
_DIFFERS = {"date", "x-request-id", "x-ms-request-id", "x-ms-client-request-id", "x-ms-run-fn-exec-ms"}


def answers(server: Any) -> list[Any]:
    """Status, headers and body of each question, without what differs from one request to the next."""
    found = []
    for question in QUESTIONS:
        answer = server.ask(*question)
        headers = {name: value for name, value in answer.headers.items() if name not in _DIFFERS}
        found.append((question, answer.status, headers, answer.body))
    return found


def assert_untouched(server: Any, hostile: Hostile) -> None:
    """No process of our own interpreter has anything of the hostile folders in it."""
    master = psutil.Process(server.process.pid)
    ours = [process for process in (master, *master.children(recursive=True)) if "-I" in process.cmdline()]
    assert len(ours) >= 2
    for process in ours:
        mapped = {region.path for region in process.memory_maps()}
        assert not [path for path in mapped if path.startswith(str(hostile.work.parent))], process.cmdline()
    assert hostile.importers("-I") == []
    assert list((hostile.work.parent / "prometheus").iterdir()) == []


COMMANDS = {
    "scoring-runtime": ("scoring-runtime", "serve"),
    "azmlinfsrv": ("azmlinfsrv", "--entry_script"),
}


@pytest.fixture(params=COMMANDS)
def commanded(request: pytest.FixtureRequest) -> tuple[str, ...]:
    program, *rest = COMMANDS[str(request.param)]
    installed = Path(sys.executable).with_name(program)
    assert installed.exists(), "run the tests with `make test`"
    return (str(installed), *rest)


def test_with_a_script_the_front_sees_nothing_of_the_user_and_the_script_all(
    hostile, serve, script, commanded, users_python, tmp_path
):
    interpreter = {"SCORING_PYTHON": users_python}
    with serve("score.py", folder=script(SCRIPT).parent, environ=interpreter, command=commanded) as server:
        plain = answers(server)

    environ = hostile.environ | interpreter
    with serve("score.py", folder=hostile.work, environ=environ, command=commanded) as server:
        assert answers(server) == plain
        assert_untouched(server, hostile)
        assert len(server.scorers) == 1
        world = server.score(b"world").json
        imported = server.score(b"import").json

    for name, value in environ.items():
        assert world["environ"][name] == value
    names = ("flask", "frames", "gunicorn/__init__", "loop", "numpy", "scoring_runtime/__init__", "sitecustomize")
    assert imported == [str(hostile.path / f"{name}.py") for name in names]
    noted = hostile.notes.read_text()
    for name in ("sitecustomize", "usercustomize", "of_the_user_site"):
        assert f"{name} {users_python}" in noted, "the user's interpreter did not honour it"


def test_the_world_of_a_script_is_that_of_its_interpreter(hostile, serve, users_python):
    code = "import json, os, sys; print(json.dumps([sys.path[1:], dict(os.environ), sorted(sys.modules)]))"
    environ = hostile.environ | {"SCORING_PYTHON": users_python}
    with serve("score.py", folder=hostile.work, environ=environ) as server:
        world = server.score(b"world").json
        ended = subprocess.run(
            [users_python, "-c", code], env=world["environ"], cwd=hostile.path, capture_output=True, check=True
        )
    path, variables, modules = json.loads(ended.stdout)

    assert world["environ"] == variables
    assert world["cwd"] == str(hostile.work)
    assert world["path"] == [*path, str(hostile.work)]
    added = {name.partition(".")[0] for name in set(world["modules"]) - set(modules)}
    assert added - sys.stdlib_module_names == {"_scoring_runtime_scorer", "entry_module"}


def test_with_a_model_no_process_sees_anything_of_the_user(hostile, serve, trained, tmp_path):
    with serve(trained.iris, folder=tmp_path) as server:
        plain = answers(server)

    # Whoever opened this one to read it would wait for ever.
    pipe = tmp_path / "openssl.cnf"
    os.mkfifo(pipe)
    environ = hostile.environ | DEADLY_VARIABLES
    environ |= {"PYTHONPATH": str(hostile.everything), "OPENSSL_CONF": str(pipe), "OPENSSL_MODULES": str(hostile.work)}
    with serve("iris.onnx", folder=hostile.work, environ=environ) as server:
        assert answers(server) == plain
        assert_untouched(server, hostile)
        log = server.log

    assert not hostile.notes.exists()
    assert "hostile" not in log
    assert not re.search("^import ", log, re.MULTILINE)  # PYTHONVERBOSE


def test_a_script_in_the_interpreter_of_the_server(hostile, serve):
    """Where there is no other one: the same interpreter, not the same environment."""
    with serve("score.py", folder=hostile.work, environ=hostile.environ) as server:
        assert server.score(b"x").json == {"echo": "x"}
        assert server.score(b"world").json["environ"]["PYTHONPATH"] == str(hostile.path)
        assert_untouched(server, hostile)


def test_check_sees_nothing_of_the_user(hostile, command, trained):
    plain = command("check", trained.iris)
    environ = hostile.environ | DEADLY_VARIABLES | {"PYTHONPATH": str(hostile.everything)}
    ended = command("check", hostile.work / "iris.onnx", environ=environ)

    assert ended.code == 0
    untimed = [
        re.sub(r"[\d.]+ ms|stacking .*", "", text.replace(str(folder), ""))  # what is measured
        for text, folder in ((ended.output, hostile.work), (plain.output, trained.iris.parent))
    ]
    assert untimed[0] == untimed[1]
    assert not hostile.notes.exists()


def test_a_command_that_is_linked_from_elsewhere_is_sealed_too(hostile, tmp_path):
    link = tmp_path / "bin" / "scoring-runtime"
    link.parent.mkdir()
    link.symlink_to(Path(sys.executable).with_name("scoring-runtime"))
    environ = hostile.environ | DEADLY_VARIABLES | {"PATH": str(link.parent), "PYTHONPATH": str(hostile.everything)}
    ended = subprocess.run(
        ["scoring-runtime", "--version"], env=environ, cwd=hostile.work, capture_output=True, check=True
    )
    assert ended.stderr == b""
    assert ended.stdout.startswith(b"scoring-runtime ")
    assert not hostile.notes.exists()


def test_a_standard_library_that_the_user_hides_is_named_in_the_log(hostile, command, users_python):
    """PYTHONPATH comes before the standard library, in every program of the user's: the server says so, and ends."""
    (hostile.path / "struct.py").write_text("raise ImportError('not the struct you know')")
    environ = hostile.environ | {"SCORING_PYTHON": users_python}
    ended = command("check", hostile.work / "score.py", environ=environ)
    assert ended.code == 3
    assert "ImportError: not the struct you know" in ended.output
    assert "score.py: the scorer exited with code 1 while it loaded." in ended.last_line
