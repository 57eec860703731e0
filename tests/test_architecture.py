"""The cut between the parts, kept by reading the imports of every module. The table is the design's law 9."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scoring_runtime

PACKAGE = Path(scoring_runtime.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SCORER = [path for path in MODULES if path.is_relative_to(PACKAGE / "scorer")]

VERSION = "__version__"

ARROWS: dict[str, set[str]] = {
    # who starts: everything below, each thing when its command needs it
    "__main__": {"cli"},
    "cli": {VERSION, "errors", "sealing", "settings", "target", "report", "front", "pool", "telemetry", "deploy"}
    | {"checks", "health", "tune"},
    "health": {"settings"},
    "azmlinfsrv": {VERSION, "errors", "sealing", "settings", "target", "front", "pool", "telemetry"},
    # the front and what it is made of
    "front": {VERSION, "errors", "settings", "openapi", "dispatch", "pool", "telemetry", "scorer.frames"},
    "pool": {
        "errors",
        "settings",
        "target",
        "dispatch",
        "scorer.frames",
        "scorer.progress",
        "telemetry.sink",
        "telemetry.nvml",
        "providers",
    },
    "telemetry": {VERSION, "errors", "settings", "target", "scorer.frames"},
    "dispatch": {"errors"},
    # the processes that run models
    "scorer": set(),
    "onnx": {"scorer", "providers"},
    # what finds the best settings
    "tune": {VERSION, "errors", "providers", "sealing", "settings", "target", "pool", "onnx.cpus"},
    # images and deployment
    "deploy": {VERSION, "errors", "settings", "target"},
    # what all of them may know
    "report": {"target"},
    "openapi": {"errors"},
    "settings": {"errors", "checks", "providers"},
    "checks": {"providers"},
    "providers": set(),
    "target": {"errors"},
    "sealing": set(),
    "errors": set(),
    "__init__": set(),
}
"""Each part, and what of the others it may import; `part.module` allows that one module of it."""

ADAPTERS: dict[str, set[str]] = {
    "azure": {"telemetry/insights.py"},
    "flask": {"front/control.py"},
    "gunicorn": {"front/app.py", "front/worker.py", "telemetry/log.py"},  # it is subclassed at three places
    "httptools": {"front/connection.py"},
    "numpy": {path.relative_to(PACKAGE).as_posix() for path in MODULES if path.is_relative_to(PACKAGE / "onnx")},
    "onnxruntime": {"onnx/session.py", "onnx/loading.py"},
    "onnxruntime_ep_openvino": {"onnx/loading.py"},
    "opentelemetry": {"telemetry/insights.py"},
    "orjson": {"onnx/codecs/json.py", "onnx/codecs/v2.py"},
    "prometheus_client": {"telemetry/metrics.py"},
    "pynvml": {"telemetry/nvml.py"},
    "simdjson": {"onnx/codecs/json.py", "onnx/codecs/rows.py", "onnx/codecs/v2.py"},
    "uvloop": {"front/worker.py"},
    "werkzeug": {"front/control.py"},
}
"""Where each library is imported: there, its exceptions stop. The others know it by our names."""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(path: Path) -> Iterator[str]:
    """The full names of everything that a module imports, wherever in it; relative names made absolute."""
    package = ["scoring_runtime", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            if node.module:
                base = [*base, *node.module.split(".")]
            for alias in node.names:
                yield ".".join([*base, alias.name])


def ours(path: Path) -> set[str]:
    """What a module imports of the package, without its name."""
    return {name.partition(".")[2] for name in imported(path) if name.startswith("scoring_runtime.")}


def libraries(path: Path) -> set[str]:
    """The third-party libraries that a module imports."""
    return {name.split(".")[0] for name in imported(path)} - {"scoring_runtime"} - sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_one_way(path):
    part = part_of(path)
    allowed = {part, *ARROWS[part]}
    for name in ours(path):
        prefixes = {name, name.rpartition(".")[0], name.split(".")[0]}
        assert prefixes & allowed, f"{name_of(path)} imports {name}"


def test_the_table_has_no_way_round():
    def reached(part: str, seen: set[str]) -> set[str]:
        for arrow in ARROWS.get(part.split(".", maxsplit=1)[0], set()) - seen if "." not in part else ():
            seen.add(arrow)
            reached(arrow, seen)
        return seen

    for part in ARROWS:
        assert part not in reached(part, set())
    assert "front" not in reached("deploy", set())
    assert reached("scorer", set()) == set()
    assert reached("dispatch", set()) == {"errors"}


def test_the_table_has_a_row_for_every_part():
    assert {part_of(path) for path in MODULES} - set(ARROWS) == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_library_is_imported_where_its_adapter_is(path):
    for library in libraries(path):
        if path in SCORER:
            continue  # held to a stricter rule
        assert name_of(path) in ADAPTERS.get(library, set()), f"{name_of(path)} imports {library}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_too_long_to_read(path):
    longest = 650 if name_of(path) == "settings.py" else 500  # it is one table
    assert len(path.read_text(encoding="utf-8").splitlines()) <= longest


def test_the_worker_stays_small():
    assert len((PACKAGE / "front" / "worker.py").read_text(encoding="utf-8").splitlines()) <= 250


# The scorer: the user's interpreter, whatever it is

OF_THE_USER = {"scorer/script/debugger.py": {"debugpy"}}
"""Libraries of the user's own environment, imported when they are asked for, and where."""


@pytest.mark.parametrize("path", SCORER, ids=name_of)
def test_the_scorer_is_standard_library_only(path):
    assert libraries(path) <= OF_THE_USER.get(name_of(path), set())


@pytest.mark.parametrize("path", SCORER, ids=name_of)
def test_the_scorer_is_written_in_python_36(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))


def old_pythons() -> list[str]:
    """Interpreters of Python 3.6 and 3.7, if there are any."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [str(python) for python in sorted(pyenv.glob("versions/3.[67].*/bin/python"))]
    found += [path for name in ("python3.6", "python3.7") if (path := shutil.which(name)) and "shims" not in path]
    return found


COMPILE = """
import sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as source:
        compile(source.read(), path, "exec", dont_inherit=True)
"""


def test_old_interpreters_compile_the_scorer():
    pythons = old_pythons()
    if not pythons:
        pytest.skip("no Python 3.6 or 3.7 was found")
    for python in pythons:
        subprocess.run([python, "-I", "-c", COMPILE, *SCORER], check=True)


# What an import costs


def test_the_command_line_imports_neither_a_server_nor_an_engine():
    heavy = ["gunicorn", "flask", "uvloop", "httptools", "numpy", "onnxruntime", "prometheus_client"]
    code = f"import sys, scoring_runtime.cli; print(*sorted(set({heavy}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == []


def test_the_scorer_imports_little():
    """Its start is paid at every restart, in the user's interpreter."""
    code = (
        "import sys; before = set(sys.modules); import scoring_runtime.scorer.loop, scoring_runtime.scorer.script.loader;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    loaded = set(ended.stdout.split())
    assert loaded - sys.stdlib_module_names <= {"scoring_runtime"}
    assert not loaded & {"typing_extensions", "unittest", "xml", "multiprocessing", "doctest"}
