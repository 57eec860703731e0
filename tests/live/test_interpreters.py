"""One score.py, served in bare environments of every Python on this machine."""

from pathlib import Path

import scoring_runtime

SCRIPT = """
import importlib.util
import json
import sys

def init():
    global weights
    weights = [0.25, -1.5, 3.0]

def run(data):
    rows = json.loads(data)["data"]
    return {
        "scores": [sum(weight * value for weight, value in zip(weights, row)) for row in rows],
        "text": "Zürich",
        "version": list(sys.version_info[:2]),
        "prefix": sys.prefix,
        "path": sys.path,
        "modules": {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())},
        "importable": [name for name in json.loads(data)["names"] if importlib.util.find_spec(name) is not None],
    }
"""
OURS = [
    *("scoring_runtime", "flask", "gunicorn", "httptools", "numpy", "onnxruntime", "orjson", "simdjson", "uvloop"),
    *("prometheus_client", "werkzeug", "frames", "loop", "loader", "progress"),
]


def test_a_bare_environment_needs_nothing_of_ours(version, bare_python, serve, script):
    rows = [[1, 2, 3], [0.5, 0, -2]]
    with serve(script(SCRIPT), "--python", bare_python) as server:
        answer = server.score({"data": rows, "names": OURS})

    assert answer.status == 200, answer.body
    seen = answer.json
    assert seen["scores"] == [6.25, -5.875]
    assert seen["text"] == "Zürich"
    assert seen["version"] == [int(part) for part in version.split(".")]
    assert Path(seen["prefix"]) == Path(bare_python).parents[1]
    assert seen["importable"] == []

    package = Path(scoring_runtime.__file__).parent
    for entry in map(Path, seen["path"]):
        assert not {package, package.parent} & {entry, *entry.parents}
    for name, file in seen["modules"].items():
        if file is not None and package in Path(file).parents:
            assert name.partition(".")[0] in ("_scoring_runtime_scorer", "__main__", "__mp_main__"), name
