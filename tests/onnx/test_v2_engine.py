"""Frames in which requests of both forms stand side by side."""

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from scoring_runtime.onnx.engine import Engine
from scoring_runtime.scorer.frames import ROUTE_SCORE, ROUTE_V2, FrameError, Request

FLOAT, HALF, BFLOAT, INT, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)


class Outbox:
    """Keeps replies as they are: status, head, body. A second one to a request is an error."""

    def __init__(self, most_bytes: int = 1 << 30) -> None:
        self.most_bytes = most_bytes
        self.replies: dict[int, tuple[int, bytes, bytes]] = {}

    def add(self, request_id: int, status: int, body: bytes, head: bytes = b"", *, run_us: int = 0) -> None:
        if len(body) > self.most_bytes:
            raise FrameError("too large")
        assert request_id not in self.replies
        self.replies[request_id] = status, head, bytes(body)

    def add_all(self, request_ids: Any, bodies: Any, run_us: int) -> None:
        for request_id, body in zip(request_ids, bodies, strict=True):
            self.add(request_id, 200, body)

    def flush_if_due(self) -> None:
        """Nothing waits here."""


def score_request(array: Any) -> tuple[int, bytes, Any]:
    return ROUTE_SCORE, b"", json.dumps({"data": array.tolist()}).encode()


def json_request(array: Any, datatype: str = "FP32", name: str = "x", **more: Any) -> tuple[int, bytes, Any]:
    data = array.ravel().tolist()
    document = {"inputs": [{"name": name, "datatype": datatype, "shape": array.shape, "data": data}], **more}
    return ROUTE_V2, b"/v2/models/model/infer", json.dumps(document).encode()


def binary_request(
    array: Any, datatype: str = "FP32", name: str = "x", padding: int = 0, **more: Any
) -> tuple[int, bytes, Any]:
    parameters = {"binary_data_size": array.nbytes}
    described = {"name": name, "datatype": datatype, "shape": array.shape, "parameters": parameters}
    text = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}, **more}).encode()
    text += b" " * padding
    head = b"/v2/models/model/infer\nInference-Header-Content-Length: %d" % len(text)
    return ROUTE_V2, head, text + array.tobytes()


def answer(engine: Engine, *asked: tuple[int, bytes, Any], outbox: Outbox | None = None) -> list[tuple[int, Any]]:
    """Status, and the outputs by name as lists or bytes, or what an error says."""
    outbox = outbox or Outbox()
    requests = [Request(number, 0, route, 2, head, body) for number, (route, head, body) in enumerate(asked)]
    engine.score(requests, outbox)
    answers: list[tuple[int, Any]] = []
    for number in range(len(requests)):
        status, head, body = outbox.replies[number]
        size = int(head.rpartition(b" ")[2]) if head else len(body)
        document = json.loads(body[:size])
        if asked[number][0] == ROUTE_SCORE or status != 200:
            answers.append((status, document.get("outputs", document)))
            continue
        assert document["model_name"] == "model"
        values: dict[str, Any] = {}
        for output in document["outputs"]:
            if "parameters" in output:
                end = size + output["parameters"]["binary_data_size"]
                values[output["name"]] = body[size:end]
                size = end
            else:
                values[output["name"]] = np.array(output["data"], object).reshape(output["shape"]).tolist()
        assert size == len(body)
        answers.append((status, values))
    return answers


@pytest.fixture(scope="module")
def doubling(build, load_engine, tmp_path_factory):
    """y = x + x, of two columns."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    model = build(nodes, {"x": (FLOAT, ["N", 2])}, {"y": (FLOAT, ["N", 2])})
    return load_engine(model, tmp_path_factory.mktemp("doubling"), name="model")


def test_requests_of_both_forms_share_a_run(doubling, monkeypatch):
    runs = []
    run = doubling._session.run

    def count(arrays: Any) -> Any:
        runs.append(len(arrays[0]))
        return run(arrays)

    monkeypatch.setattr(doubling._session, "run", count)
    one, two = np.array([[1, 2]], np.float32), np.array([[3, 4], [5, 6]], np.float32)
    asked = score_request(one), json_request(two), binary_request(one), binary_request(two, padding=1)
    answers = answer(doubling, *asked)
    assert runs == [6]
    assert answers == [
        (200, {"y": [[2, 4]]}),
        (200, {"y": [[6, 8], [10, 12]]}),
        (200, {"y": (one * 2).tobytes()}),
        (200, {"y": (two * 2).tobytes()}),
    ]


def test_a_wrong_request_of_either_form_harms_no_neighbour(doubling):
    one = np.array([[1, 2]], np.float32)
    asked = json_request(one, "FP64"), score_request(one), (ROUTE_SCORE, b"", b"{"), binary_request(one)
    wrong, fine, broken, binary = answer(doubling, *asked)
    assert wrong[0] == 400
    assert wrong[1].keys() == {"error"}
    assert broken[0] == 400
    assert broken[1].keys() == {"message"}
    assert fine == (200, {"y": [[2, 4]]})
    assert binary == (200, {"y": (one * 2).tobytes()})


def test_each_route_takes_its_own_form_only(doubling):
    one = np.array([[1, 2]], np.float32)
    (_, _, plain), (_, head, v2) = score_request(one), json_request(one)
    for asked in ([(ROUTE_SCORE, b"", v2)] * 2, [(ROUTE_V2, head, plain)] * 2, [(ROUTE_V2, head, plain)]):
        assert {status for status, _ in answer(doubling, *asked)} == {400}


@pytest.mark.parametrize("padding", range(8))
def test_bytes_at_any_place_of_shared_memory_and_gone_after_the_reply(doubling, padding):
    one = np.array([[1, 2]], np.float32)
    route, head, body = binary_request(one, padding=padding)
    memory = bytearray(b" " + body)
    outbox = Outbox()
    doubling.score([Request(0, 0, route, 2, head, memoryview(memory).toreadonly()[1:])], outbox)
    memory[:] = bytes(len(memory))
    assert outbox.replies[0][2].endswith((one * 2).tobytes())


@pytest.mark.parametrize(
    ("element", "datatype", "dtype"),
    [(FLOAT, "FP32", "f4"), (HALF, "FP16", "f2"), (BFLOAT, "BF16", "u2"), (INT, "INT64", "i8"), (BOOL, "BOOL", "?")],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_model_that_gives_back_what_it_gets(build, load_engine, tmp_path, element, datatype, dtype, count):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = build(nodes, {"x": (element, ["N", 2])}, {"y": (element, ["N", 2])})
    engine = load_engine(model, tmp_path, name="model")
    arrays = [np.array([[0, number]], dtype) for number in range(count)]
    memories = [bytearray(binary_request(array, datatype)[2]) for array in arrays]
    asked = [
        (ROUTE_V2, binary_request(array, datatype)[1], memoryview(memory).toreadonly())
        for array, memory in zip(arrays, memories, strict=True)
    ]
    outbox = Outbox()
    answers = answer(engine, *asked, outbox=outbox)
    assert answers == [(200, {"y": array.tobytes()}) for array in arrays]


def test_rows_that_differ_in_number_run_alone(build, load_engine, tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"])]
    engine = load_engine(build(nodes, {"x": (FLOAT, [2, 2])}, {"y": (FLOAT, [2, 2])}), tmp_path, name="model")
    array = np.array([[1, 2], [3, 4]], np.float32)
    assert answer(engine, binary_request(array), json_request(array), score_request(array)) == [
        (200, {"y": (array @ array).tobytes()}),
        (200, {"y": (array @ array).tolist()}),
        (200, {"y": (array @ array).tolist()}),
    ]


def test_strings_in_and_out(build, load_engine, tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = build(nodes, {"x": (STRING, ["N", 1])}, {"y": (STRING, ["N", 1])})
    engine = load_engine(model, tmp_path, name="model")
    texts = np.array([["é"], [""]], object)
    assert (
        answer(engine, json_request(texts, "BYTES"), json_request(texts, "BYTES")) == [(200, {"y": [["é"], [""]]})] * 2
    )


def test_what_the_model_refuses_is_an_error_of_the_protocol(build, load_engine, tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = helper.make_tensor("shape", INT, [2], [3, 1])
    model = build(nodes, {"x": (FLOAT, [None, None])}, {"y": (FLOAT, [3, 1])}, [shape])
    engine = load_engine(model, tmp_path, name="model")
    ((status, body),) = answer(engine, json_request(np.zeros((2, 2), np.float32)))
    assert status in (400, 500)
    assert body.keys() == {"error"}


def test_an_answer_that_no_frame_can_hold_is_an_error_of_the_protocol(doubling):
    one = np.array([[1, 2]], np.float32)
    for asked in ([binary_request(one)], [binary_request(one), score_request(one)]):
        outbox = Outbox(most_bytes=100)
        status, body = answer(doubling, *asked, outbox=outbox)[0]
        assert status == 500
        assert "cannot be sent" in body["error"]


def test_what_ready_says(doubling):
    info = doubling.info["open_inference"]
    assert info["headers"] == ["inference-header-content-length"]
    assert info["versions"] == ["1"]
    assert info["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]


def test_large_rows_are_answered_alike_whether_stacking_them_pays_or_not(build, load_engine, tmp_path):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)]
    axes = helper.make_tensor("axes", INT, [1], [1])
    nodes[0].input.append("axes")
    model = build(nodes, {"x": (FLOAT, ["N", 1 << 17])}, {"y": (FLOAT, ["N"])}, [axes])
    engine = load_engine(model, tmp_path, name="model")
    assert engine.info["batchable"]
    rows = [np.full((1, 1 << 17), number, np.float32) for number in range(3)]
    kind, _ = engine._worth.of(((1 << 17,),))
    for most_rows in (128, 1):
        kind.most_rows = most_rows
        answers = answer(engine, *(binary_request(row) for row in rows), score_request(rows[2]))
        assert answers == [(200, {"y": row[0, :1].tobytes()}) for row in rows] + [(200, {"y": [2.0]})]
