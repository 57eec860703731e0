"""The front's part of the Open Inference Protocol: bytes in, bytes out."""

import asyncio
import json
from typing import Any

import pytest

from scoring_runtime.scorer.frames import ROUTE_SCORE, ROUTE_V2

INFO = {
    "headers": "none",
    "name": "mödel",
    "engine": "onnx",
    "batchable": True,
    "open_inference": {
        "headers": ["inference-header-content-length"],
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [],
    },
}
NAME = "/v2/models/m%C3%B6del"


def request(target: str, *lines: str, method: str = "POST", body: bytes = b"") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: here", *lines]
    if method == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*head, "", "")).encode() + body


@pytest.fixture
def served(make_front):
    front = make_front()
    front.server.pool.info = INFO
    return front


def error(response: Any) -> str:
    document = json.loads(response.body)
    assert document.keys() == {"error"}
    return str(document["error"])


@pytest.mark.parametrize(
    "target", [NAME + "/infer", NAME + "/versions/1/infer", NAME + "/infer?x=1", "http://here" + NAME + "/infer"]
)
def test_a_request_goes_to_a_scorer_with_the_one_header_it_needs(served, target):
    line = "INFERENCE-Header-Content-Length: 12"
    client = served.connect()
    for body in (b"one", b"two"):  # the second by its known head
        client.send(request(target, line, "Authorization: x", body=body))
        (exchange,) = served.taken
        assert (exchange.route, exchange.body) == (ROUTE_V2, body)
        assert exchange.head == target.encode() + b"\n" + line.encode()
        served.reply(exchange, b"tensors", head=b"content-type: application/octet-stream\nX-Size: 1")
    assert len(served.server.known_heads) == 1
    for response in client.responses():
        assert response.status == 200
        assert response.body == b"tensors"
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["x-size"] == "1"


def test_requests_to_score_carry_no_head(served):
    served.connect().send(request("/score", "Inference-Header-Content-Length: 12", body=b"1"))
    (exchange,) = served.taken
    assert (exchange.route, exchange.head) == (ROUTE_SCORE, b"")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/v2/models/other/infer", "No model 'other' is loaded."),
        ("/v2/models/other/versions/1/infer", "No model 'other' is loaded."),
        (NAME + "/versions/2/infer", "There is no version '2' of model 'mödel', but version 1."),
        ("/v2/models/%ff/infer", "No model '\\\\xff' is loaded."),
        ("/v2/models//infer", "not found"),
        ("/v2/models/infer/infer/infer", "not found"),
        (NAME + "/explain", "not found"),
        ("/v2/nowhere", "not found"),
    ],
)
def test_unknown_models_versions_and_paths(served, target, told):
    response = served.ask(request(target, body=b"1")).response()
    assert response.status == 404
    assert told in error(response)


def test_a_script_has_no_tensors(make_front):
    front = make_front(hello={"engine": "script", "target": "/somewhere/score.py"}, log_level="error")
    front.server.pool.info = {"headers": "all", "methods": ["POST"]}
    response = front.ask(request("/v2/models/score/infer", body=b"1")).response()
    assert response.status == 404
    assert "send its input to /score" in error(response)


def test_before_the_model_has_loaded(make_front):
    front = make_front(scorers=0)
    front.server.pool.info = {}
    for asked in (request("/v2/models/m/infer", body=b"1"), request("/v2/models/m/ready", method="GET")):
        response = front.ask(asked).response()
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert "still loading" in error(response)
    client = front.connect().send(request(NAME + "/infer", body=b"1"))
    front.server.pool.info = INFO  # the head is known by now
    client.send(request(NAME + "/infer", body=b"1"))
    assert [response.status for response in client.responses()] == [503]
    assert front.server.scoring.queue.count == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_other_methods(served, method):
    response = served.ask(request(NAME + "/infer", method=method)).response(method)
    assert response.status == 405
    assert response.headers["allow"] == "POST, OPTIONS"


def test_options(served):
    response = served.ask(request(NAME + "/infer", method="OPTIONS")).response("OPTIONS")
    assert (response.status, response.headers["allow"]) == (200, "POST, OPTIONS")


def test_an_overload_is_told_in_the_protocols_words(make_front):
    front = make_front(scorers=0, max_queued_requests=1)
    front.server.pool.info = INFO
    front.connect().send(request(NAME + "/infer", body=b"1"))
    response = front.connect().send(request(NAME + "/infer", body=b"1")).response()
    assert response.status == 503
    assert response.headers["retry-after"]
    assert "overloaded" in error(response)


def test_a_deadline_of_its_own(served):
    client = served.connect().send(request(NAME + "/infer", "x-request-timeout-ms: 50", body=b"1"))
    (exchange,) = served.taken
    assert exchange.route == ROUTE_V2
    assert 0 < exchange.timeout_ms <= 50
    exchange.expires_at = 0.0
    served.pass_time(1)
    response = client.response()
    assert response.status == 504
    assert "deadline" in error(response)


def test_a_deadline_that_is_no_number(served):
    response = served.ask(request(NAME + "/infer", "x-request-timeout-ms: soon", body=b"1")).response()
    assert response.status == 400
    assert "x-request-timeout-ms" in error(response)


def test_a_body_over_the_limit(make_front):
    front = make_front(max_body_bytes=10)
    response = front.connect().send(request(NAME + "/infer", body=b"x" * 11)).response()
    assert response.status == 413
    assert "larger than 10 bytes" in error(response)


def test_a_scorer_that_is_lost(served):
    client = served.connect().send(request(NAME + "/infer", body=b"1"))
    served.lose(served.scorers[0], begun=1)
    response = client.response()
    assert response.status == 500
    assert "ended" in error(response)


# Health


@pytest.mark.parametrize("ready", [True, False])
def test_health(served, ready, monkeypatch):
    monkeypatch.setattr(type(served.server), "ready", ready)
    status = 200 if ready else 503
    expected: list[tuple[str, int, dict[str, Any]]] = [
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", status, {"ready": ready}),
        (NAME + "/ready", status, {"name": "mödel", "ready": ready}),
        (NAME + "/versions/1/ready", status, {"name": "mödel", "ready": ready}),
    ]
    for target, told, document in expected:
        response = served.ask(request(target, method="GET")).response("GET")
        assert response.status == told
        assert json.loads(response.body) == document
        assert served.ask(request(target, method="HEAD")).response("HEAD").status == told


@pytest.mark.parametrize("target", ["/v2/models/other/ready", NAME + "/versions/7/ready"])
def test_readiness_of_what_is_not_there(served, target):
    response = served.ask(request(target, method="GET")).response("GET")
    assert response.status == 404
    error(response)


# Metadata


@pytest.mark.parametrize(
    ("target", "status"), [(NAME, 200), (NAME + "/versions/1", 200), (NAME + "/versions/2", 404), ("/v2/models/x", 404)]
)
def test_metadata(make_front, target, status):
    async def converse() -> Any:
        front = make_front()
        front.server.pool.info = INFO
        client = front.connect().send(request(target, method="GET"))
        await asyncio.wait_for(client.wire.wrote.wait(), 10)
        front.server.control.close()
        return client.response("GET")

    response = asyncio.run(converse())
    assert response.status == status
    if status != 200:
        error(response)
        return
    assert json.loads(response.body) == {
        "name": "mödel",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [],
        "engine": "onnx",
        "batchable": True,
    }
