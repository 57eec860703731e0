"""The log of what run() was given and what it returned: as the incumbent tells it, or better where it tells nothing."""

import ast
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scoring_runtime.telemetry import insights, records
from scoring_runtime.telemetry.records import Scored

from ..differential import servers, wire
from .conftest import KEY, WAIT_S, Ingestion
from .test_records import SERVICE

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: A\r\nx-ms-client-request-id: C\r\n\r\n"


def scored(mode: str = "string", **changed: Any) -> Scored:
    info = {"mode": mode, "arguments": ["data", "factor"], "defaults": {"factor": 2}}
    usual = Scored(b"POST", b"/score?q=1", info, HEAD, b'{"data": [1]}', True, b"[1]", True, True, 0)
    return usual._replace(**changed)


def test_the_attributes_of_a_record():
    assert records.model_data(scored(), SERVICE, ["digits:3"]) == {
        "Container Id": "container-1",
        "Request Id": "A",
        "Client Request Id": "C",
        "Workspace Name": "lab",
        "Service Name": "digits",
        "Models": '["digits:3"]',
        "Input": '"{\\"data\\": [1]}"',
        "Prediction": "[1]",
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (scored(input="é".encode()), '"\\u00e9"'),
        (scored(input="é".encode()[:1], input_whole=False), '""'),
        (scored(method=b"GET", target=b"/score?a=1&b=x&b=%5B2%5D&c&d=%C3%A9+e#f", input=b"unread"),
         json.dumps('{"a": 1, "b": ["x", [2]], "c": "", "d": "\\u00e9 e"}')),
        (scored("object"), '{"data": [1], "factor": 2}'),
        (scored("object", input=b'{"factor": NaN, "other": 1, "data": "x"}'), '{"data": "x", "factor": NaN}'),
        (scored("object", method=b"GET", target=b"/score?data=%7B%22a%22:1%7D"), '{"data": {"a": 1}, "factor": 2}'),
        (scored("object", input=b'{"data": "cut', input_whole=False), '{"data": "cut'),
        (scored("object", input=b"[" * 30000), "[" * 30000),
        (scored("object", input=b"1"), "1"),
        (scored("object", input=b"\xff"), records.INPUT_NOT_TEXT),
        (scored("raw"), '"{\\"data\\": [1]}"'),
        (scored("raw", method=b"GET", input=b"", target=b"/score?a=1"), '"{\\"a\\": 1}"'),
        (scored("raw", method=b"GET", input=b"body"), '"body"'),
        (scored("raw", input=b""), '""'),
        (scored("raw", input=b"\x89PNG"), records.INPUT_NOT_TEXT),
    ],
)  # fmt: skip
def test_what_run_was_given(given: Scored, expected: str):
    assert records.model_input(given) == expected


@pytest.mark.parametrize(
    ("kind", "changed", "expected"),
    [
        (b"application/json", {"output": b'{"a": NaN}'}, '{"a": NaN}'),
        (b"application/json", {"output": b'{"a": 1}', "plain": False}, '{"a": 1}'),
        (b"application/problem+json; charset=utf-8", {"output": b"{}", "plain": False}, "{}"),
        (b"text/html", {"output": b'"a"', "plain": False}, '"\\"a\\""'),
        (b"image/png", {"output": b"\x89PNG", "plain": False}, records.NOT_TEXT),
        (b"text/plain", {"output": None, "plain": False}, records.NOT_TEXT),
        (b"application/json", {"output": b'"\xc3', "output_whole": False, "plain": False}, '"'),
    ],
)
def test_what_run_returned(kind: bytes, changed: dict[str, Any], expected: str):
    head = HEAD.replace(b"application/json", kind)
    assert records.model_prediction(scored(head=head, **changed)) == expected


def test_the_models_of_a_folder(tmp_path: Path):
    for path in ("digits/1", "digits/12", "iris/3", "iris/latest", ".cache/x"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "README.md").touch()

    assert insights.find_models(str(tmp_path)) == ["digits:1", "digits:12", "iris:3"]
    assert insights.find_models(f"{tmp_path}/digits/12/") == ["digits:12"]
    assert insights.find_models(f"{tmp_path}/digits/99") == []
    assert insights.find_models(f"{tmp_path}/nothing") == []
    assert insights.find_models("") == []


# Whole servers

STRING = """
def init():
    pass

def run(data):
    if data == "raise":
        raise ValueError("as asked for")
    if data == "numbers":
        return {"nan": float("nan"), "list": [1, 2.50, None, True], "text": "\\u00fc<"}
    return data
"""
STRING_REQUESTS = {
    "text": ("POST", "/score", '{"data": "é\\\\"}', ()),
    "numbers": ("POST", "/score", "numbers", ()),
    "empty": ("POST", "/score", "", ()),
    "query": ("GET", "/score?a=1&b=x&b=%5B2%5D&c=&d=%C3%A9+e", "", ()),
    "client id": ("POST", "/score", "x", ("x-ms-client-request-id: mine",)),
    "old client id": ("POST", "/score", "x", ("x-ms-request-id: old",)),
    "not text": ("POST", "/score", b"\xff", ()),
    "raise": ("POST", "/score", "raise", ()),
    "method": ("OPTIONS", "/score", "", ()),
}
OBJECT = """
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema

def init():
    pass

@input_schema("data", StandardPythonParameterType({"a": 1}))
@input_schema("factor", StandardPythonParameterType(1))
def run(data, factor=2, note=None, request_headers=None):
    return [data, factor, note]
"""
JSON = ("Content-Type: application/json",)
OBJECT_REQUESTS = {
    "all": ("POST", "/score", '{"note": "n", "factor": 5, "data": {"b": [1.0]}}', JSON),
    "defaults": ("POST", "/score", '{"data": {}, "unknown": 1}', JSON),
    "query": ("GET", "/score?data=%7B%22a%22:1%7D&note=x", "", ()),
    "missing": ("POST", "/score", "{}", JSON),
    "no json": ("POST", "/score", "[", JSON),
}
RAW = """
import time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

@rawhttp
def run(request):
    data = request.get_data()
    if data == b"stream":
        return AMLResponse(iter(["a", "b"]), 200)
    if data == b"json":
        return AMLResponse({"a": [1]}, 201, json_str=True)
    if data == b"nothing":
        return None
    return AMLResponse(data, 200)
"""

Told = dict[str, dict[str, str]]
"""The properties of the records, by request id."""


def told_of(ingestion: Ingestion) -> Told:
    found = {}
    for data in ingestion.data("MessageData"):
        if data["message"] == "model_data_collection":
            assert data["severityLevel"] in (1, "1")
            nested = data["properties"].get("custom_dimensions")  # the incumbent's
            properties = ast.literal_eval(nested) if nested else data["properties"]
            found[properties["Request Id"]] = properties
    return found


def ask_all(server: servers.Server, requests: dict[str, Any]) -> None:
    for name, (method, path, body, lines) in requests.items():
        data = body if isinstance(body, bytes) else body.encode()
        head = [f"{method} {path} HTTP/1.1", "Host: here", f"x-request-id: {name}", f"Content-Length: {len(data)}"]
        server.ask(wire.Request("\r\n".join([*head, *lines, "", ""]).encode() + data))


def setup(script: str, ingestion: Ingestion, models: Path) -> servers.Setup:
    # The incumbent takes the address from the variable, and only the key from its own.
    environ = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string,
        "AML_APP_INSIGHTS_ENABLED": "true",
        "AML_APP_INSIGHTS_KEY": KEY,
        "AML_MDC_STORAGE_ENABLED": "true",
        "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
        "AZUREML_MODEL_DIR": str(models),
        "HOSTNAME": "container-1",
        "SERVICE_NAME": "digits",
        "WORKSPACE_NAME": "lab",
    }
    return servers.Setup("", environ, {"score.py": script})


@pytest.fixture(scope="module")
def both(open_ingestion: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Told]:
    """What the incumbent and this server told of the same requests, by mode and server."""
    models = tmp_path_factory.mktemp("models")
    (models / "digits" / "3").mkdir(parents=True)
    told = {}
    with ExitStack() as stack:
        waiting = []
        for mode, script, requests in (("string", STRING, STRING_REQUESTS), ("object", OBJECT, OBJECT_REQUESTS)):
            for name in (servers.INCUMBENT, "user-own"):
                ingestion = stack.enter_context(open_ingestion())
                folder = tmp_path_factory.mktemp("server")
                running = servers.running(setup(script, ingestion, models), name, folder)
                server = stack.enter_context(running)
                ask_all(server, requests)
                waiting.append((mode, name, ingestion))
        deadline = time.monotonic() + WAIT_S
        for mode, name, ingestion in waiting:
            while len(told_of(ingestion)) < {"string": 6, "object": 3}[mode]:
                assert time.monotonic() < deadline, f"{name}, {mode}: {told_of(ingestion)}"
                time.sleep(0.05)
            told[mode, name] = told_of(ingestion)
    return told


@pytest.mark.parametrize("mode", ["string", "object"])
def test_the_incumbent_tells_the_same(both: dict[tuple[str, str], Told], mode: str):
    theirs, ours = both[mode, servers.INCUMBENT], both[mode, "user-own"]

    assert set(ours) == set(theirs)
    for name, properties in theirs.items():
        properties["Models"] = json.dumps(properties["Models"])
        if properties["Prediction"] == "null":
            properties["Prediction"] = "{}"
        assert {key: ours[name][key] for key in properties} == properties
        assert set(ours[name]) - set(properties) <= {"logger_name"}
    assert ours["query"]["Models"] == '["digits:3"]'


def test_what_the_incumbent_cannot_tell(ingestion: Any, serve: Any):
    environ = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string,
        "AML_MDC_STORAGE_ENABLED": "true",
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED": "false",
    }
    large = "x" * 100_000
    with serve(RAW, **environ) as server:
        server.wait_ready()
        for name in ("stream", "json", "nothing", "text", large):
            server.ask("POST", "/score", name.encode(), {"x-request-id": name[:10]})
        server.ask("POST", "/score", b"\xff", {"x-request-id": "binary"})
        server.stop()
    told = told_of(ingestion)

    assert {name: (record["Input"], record["Prediction"]) for name, record in told.items()} == {
        "stream": ('"stream"', records.NOT_TEXT),
        "json": ('"json"', '{"a": [1]}'),
        "nothing": ('"nothing"', "{}"),
        "text": ('"text"', '"text"'),
        large[:10]: ('"' + large[:8191], '"' + large[:8191]),
        "binary": (records.INPUT_NOT_TEXT, records.NOT_TEXT),
    }
    assert not any("Response Value" in data["properties"] for data in ingestion.data("RequestData"))


def test_nothing_is_told_of_data_when_the_switch_is_off(ingestion: Any, serve: Any):
    with serve(RAW, APPLICATIONINSIGHTS_CONNECTION_STRING=ingestion.connection_string) as server:
        server.wait_ready()
        server.ask("POST", "/score", b"secret")
        server.stop()

    assert told_of(ingestion) == {}
    assert len(ingestion.data("RequestData")) == 1
