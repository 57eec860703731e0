"""Environments that hold on to packages of years ago: the server's own ones do not matter to them, nor theirs to it."""

from pathlib import Path
from typing import Any

import pytest

USERS = Path(__file__).resolve().parents[2] / ".venv-user"

RAW = """
import flask, werkzeug
from flask import Response, jsonify, make_response, request as current
from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init(): pass

@rawhttp
def run(request):
    assert request.get_json() == current.get_json()
    what = request.args.get("what")
    if what == "flask":
        return Response("made by flask", 203, {"X-Made-By": "flask"}, mimetype="text/plain")
    if what == "jsonify":
        return jsonify(data=request.get_json())
    if what == "make_response":
        answer = make_response("made", 202)
        answer.set_cookie("a", "b")
        return answer
    if what == "stream":
        return Response(str(number) for number in range(5))
    if what == "aml":
        return AMLResponse({"header": request.headers["X-Mine"]}, 201, json_str=True)
    return {"method": request.method, "path": request.path, "form": dict(request.form), "type": request.content_type}
"""

PLAIN = """
import json, sys

def init():
    global versions
    versions = {}
    for name in ("flask", "werkzeug", "jinja2", "numpy", "google.protobuf"):
        try:
            __import__(name)
            versions[name] = getattr(sys.modules[name], "__version__", "?").split(".")[0]
        except ImportError:
            pass

def run(data):
    rows = json.loads(data)["data"]
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        return {"sum": numpy.array(rows, numpy.float32).sum(0), "versions": versions}
    return {"sum": [float(sum(column)) for column in zip(*rows)], "versions": versions}
"""

PINNED = {
    "flask-0": {"flask": "0", "werkzeug": "0", "jinja2": "2", "numpy": "1", "google.protobuf": "3"},
    "flask-1": {"flask": "1", "werkzeug": "1", "jinja2": "2"},
    "flask-2": {"flask": "2", "werkzeug": "2", "jinja2": "3"},
}


@pytest.fixture(params=PINNED)
def pinned(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def python(pinned):
    path = USERS / pinned / "bin" / "python"
    assert path.exists(), "an environment of users is not set up: make incumbent"
    return str(path)


def test_a_script_without_a_schema(pinned, python, serve, script):
    with serve(script(PLAIN), "--python", python) as server:
        answer = server.score({"data": [[1, 2.5], [3, 4]]})
    assert answer.status == 200, answer.body
    assert answer.json == {"sum": [4.0, 6.5], "versions": PINNED[pinned]}


def test_a_raw_script(python, serve, script):
    with serve(script(RAW), "--python", python) as server:

        def ask(what: str) -> Any:
            headers = {"Content-Type": "application/json", "X-Mine": "of the client"}
            return server.ask("POST", f"/score?what={what}", b'{"rows": [1]}', headers)

        flask = ask("flask")
        assert (flask.status, flask.body, flask.headers["x-made-by"]) == (203, b"made by flask", "flask")
        assert flask.headers["content-type"] == "text/plain; charset=utf-8"
        assert ask("jsonify").json == {"data": {"rows": [1]}}
        made = ask("make_response")
        assert (made.status, made.body, made.headers["set-cookie"]) == (202, b"made", "a=b; Path=/")
        assert ask("stream").body == b"01234"
        aml = ask("aml")
        assert (aml.status, aml.json) == (201, {"header": "of the client"})
        plain = ask("nothing")
        assert plain.json == {"method": "POST", "path": "/score", "form": {}, "type": "application/json"}
