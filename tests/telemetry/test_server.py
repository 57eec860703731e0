"""A whole server and the real exporter: what arrives at the ingestion endpoint."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest

from scoring_runtime.telemetry.records import NOT_TEXT

SCRIPT = """
import time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    print("loading\\nin two lines")

def pieces(broken):
    yield "a"
    time.sleep(0.2)
    if broken:
        raise OSError("gone")
    yield "b"

@rawhttp
def run(request):
    data = request.get_data()
    if data == b"slow":
        time.sleep(0.3)
    if data == b"raise":
        print("about to")
        raise ValueError("it is\\nbad")
    if data == b"binary":
        return AMLResponse(b"\\xff\\xfe", 200)
    if data == b"large":
        return AMLResponse("x" * 100000, 200)
    if data in (b"stream", b"broken"):
        return AMLResponse(pieces(data == b"broken"), 200)
    return AMLResponse(data.decode(), 299)
"""


class Told(NamedTuple):
    """What a server told, and what its clients know."""

    requests: dict[str, dict[str, Any]]
    """By client request id."""

    messages: list[dict[str, Any]]
    exceptions: list[dict[str, Any]]
    tags: list[dict[str, str]]
    generated_id: str
    port: int
    log: str


@pytest.fixture(scope="module")
def told(open_ingestion: Any, serve: Callable[..., AbstractContextManager[Any]]) -> Iterator[Told]:
    """A server that has answered all kinds of requests, and ended. Nothing of it was sent before 5 s, or the end."""
    with open_ingestion() as ingestion:
        environ = {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string,
            "HOSTNAME": "container-1",
            "SERVICE_NAME": "digits",
            "WORKSPACE_NAME": "lab",
        }
        with serve(SCRIPT, **environ) as server:
            server.wait_ready()
            for body in ("plain", "slow", "raise", "binary", "large", "stream"):
                server.ask("POST", "/score?a=1", body.encode(), {"x-ms-client-request-id": body})
            with pytest.raises(Exception, match="IncompleteRead"):
                server.ask("POST", "/score", b"broken", {"x-ms-client-request-id": "broken"})
            _, headers, _ = server.ask("POST", "/score", b"x", {"x-request-id": "given"})
            assert headers["x-request-id"] == "given"
            _, headers, _ = server.ask("GET", "/swagger.json")
            for path in ("/", "/livez", "/readyz", "/metrics", "/nothing"):
                server.ask("GET", path, headers={"x-request-id": "untold"})
            server.ask("DELETE", "/score", headers={"x-request-id": "untold"})
            server.stop()
            requests = {}
            for data in ingestion.data("RequestData"):
                properties = data["properties"]
                requests[properties["Client Request Id"] or properties["Request Id"]] = data
            assert len(requests) == len(ingestion.data("RequestData"))
            yield Told(
                requests,
                ingestion.data("MessageData"),
                ingestion.data("ExceptionData"),
                [item["tags"] for item in ingestion.items],
                headers["x-request-id"],
                server.port,
                server.log,
            )


def test_each_request_is_told_once_and_probes_and_strangers_are_not(told: Told):
    bodies = {"plain", "slow", "raise", "binary", "large", "stream", "broken"}
    assert set(told.requests) == bodies | {"given", told.generated_id}
    assert "lost" not in told.log


def test_what_is_told_of_a_request(told: Told):
    data = told.requests["plain"]
    properties = dict(data["properties"])

    assert (data["name"], data["responseCode"], data["success"]) == ("/score", "299", True)
    assert len(properties.pop("Request Id")) == 36
    assert properties.pop("start_time").endswith("Z")
    assert properties.pop("duration").startswith("00:00:0")
    assert properties == {
        "Container Id": "container-1",
        "Client Request Id": "plain",
        "Response Value": "plain",
        "name": "/score",
        "url": f"http://127.0.0.1:{told.port}/score?a=1",
        "resultCode": "299",
        "success": "True",
        "http_method": "POST",
        "Workspace Name": "lab",
        "Service Name": "digits",
    }
    assert {tags["ai.cloud.role"] for tags in told.tags} == {"digits"}


@pytest.mark.parametrize(("name", "least_s"), [("slow", 0.3), ("stream", 0.2)])
def test_durations_are_true(told: Told, name: str, least_s: float):
    data = told.requests[name]
    for text in (data["duration"].partition(".")[2], data["properties"]["duration"]):
        hours, minutes, seconds = text.split(":")
        assert (hours, minutes) == ("00", "00")
        assert least_s <= float(seconds) < 5


def test_a_run_that_failed(told: Told):
    data = told.requests["raise"]
    assert (data["responseCode"], data["success"]) == ("500", False)
    assert data["properties"]["success"] == "False"
    assert "An unexpected error occurred in scoring script" in data["properties"]["Response Value"]

    (exception,) = (data for data in told.exceptions if data["exceptions"][0]["typeName"] == "ValueError")
    assert exception["exceptions"][0]["message"] == "it is\nbad"
    assert "score.py" in exception["exceptions"][0]["stack"]
    assert exception["properties"]["Container Id"] == "container-1"


@pytest.mark.parametrize("name", ["binary", "stream", "broken"])
def test_what_is_no_text_or_in_pieces_is_not_told(told: Told, name: str):
    assert told.requests[name]["properties"]["Response Value"] == NOT_TEXT
    assert told.requests[name]["responseCode"] == "200"


def test_a_response_that_broke_off_is_a_failure(told: Told):
    assert told.requests["stream"]["success"] is True
    assert told.requests["broken"]["success"] is False


def test_a_large_response_is_cut(told: Told):
    assert told.requests["large"]["properties"]["Response Value"] == "x" * 8192


def test_prints_are_told(told: Told):
    messages = {data["message"]: data for data in told.messages}

    assert {"loading\nin two lines", "about to"} <= set(messages)
    print_ = messages["about to"]
    assert print_["severityLevel"] == 1
    assert print_["properties"]["logger_name"] == "azmlinfsrv.print"
    assert print_["properties"]["Service Name"] == "digits"
    assert not any("POST /score" in message for message in messages)


def test_responses_can_be_kept_back(ingestion, serve):
    environ = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string,
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED": "false",
    }
    with serve("def init(): pass\ndef run(data): return data", **environ) as server:
        server.wait_ready()
        server.ask("POST", "/score", b"secret")
        server.stop()

    (data,) = ingestion.data("RequestData")
    assert "Response Value" not in data["properties"]
    assert data["responseCode"] == "200"


def test_an_init_that_failed_is_told_before_the_end(ingestion, serve):
    environ = {"APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string}
    began = time.monotonic()
    with serve("def init(): raise OSError('no model')\ndef run(data): return 1", **environ) as server:
        assert server.process.wait(30) == 3

    assert time.monotonic() - began < 10
    (data,) = ingestion.data("ExceptionData")
    assert data["exceptions"][0]["typeName"] == "OSError"
    assert data["exceptions"][0]["message"] == "no model"


def test_a_server_whose_connection_string_is_none_serves(serve):
    with serve("def init(): pass\ndef run(data): return 1", APPLICATIONINSIGHTS_CONNECTION_STRING="nonsense") as server:
        server.wait_ready()
        assert server.ask("POST", "/score", b"")[0] == 200
        server.stop()
        assert "does not take its connection string" in server.log


def test_nothing_is_told_when_it_is_off(ingestion, serve):
    with serve("def init(): pass\ndef run(data): return 1", AML_APP_INSIGHTS_ENABLED="true") as server:
        server.wait_ready()
        server.ask("POST", "/score", b"")
        server.stop()

    assert ingestion.calls == 0
