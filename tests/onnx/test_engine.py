"""The engine through its one door: requests in, exactly one answer each out."""

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from scoring_runtime.onnx.engine import Engine
from scoring_runtime.onnx.plan import SessionPlan
from scoring_runtime.onnx.session import RunError, Session
from scoring_runtime.scorer.frames import FrameError, Request

ROW = [5.1, 3.5, 1.4, 0.2]
SHAPE: list[Any] = ["N", 4]


def identity(build: Any, element: int, shape: list[Any] | None = SHAPE) -> onnx.ModelProto:
    model: onnx.ModelProto = build(
        [helper.make_node("Identity", ["x"], ["y"])], {"x": (element, shape)}, {"y": (element, shape)}
    )
    return model


def answer_of(engine: Engine, score: Any, body: Any) -> Any:
    (answer,) = score(engine, [body])
    return answer


def test_info(iris):
    info = iris.info
    json.dumps(info)
    assert info["engine"] == "onnx"
    assert info["idempotent"] is True
    assert info["headers"] == "none"
    assert info["name"] == "iris"
    assert info["inputs"] == [{"name": "X", "dtype": "float32", "shape": [None, 4]}]
    assert [output["dtype"] for output in info["outputs"]] == ["int64", "float32"]
    assert (info["batchable"], info["why_not_batchable"]) == (True, None)
    assert info["providers"] == ["CPUExecutionProvider"]
    assert info["threads"] == 1
    assert info["load_ms"] > 0
    assert info["warm_up_ms"] > 0


def test_the_sample_is_a_request_that_works(iris, score):
    answer = answer_of(iris, score, iris.info["sample"])
    assert answer.status == 200
    assert list(answer.body["outputs"]) == ["label", "probabilities"]


def test_a_sample_that_would_be_long_is_left_out(build, tmp_path, load_engine):
    assert load_engine(identity(build, T.FLOAT, ["N", 4000]), tmp_path).info["sample"] is None


def test_threads_are_shared_among_scorers(trained, load_engine):
    assert load_engine(trained.iris, threads=3).info["threads"] == 3
    assert load_engine(trained.iris, threads=0, scorers=1000).info["threads"] == 1


def test_the_name_falls_back_to_the_files_stem(trained, load_engine):
    assert load_engine(trained.iris).info["name"] == "iris"


def test_neighbours_of_bad_requests_are_unharmed(iris, score):
    good = {"data": [ROW]}
    answers = score(iris, [good, b"", good, {"data": [["a"] * 4]}, {"data": [[1, 2]]}, good, b"\xff", b"[" * 100_000])
    assert [answer.status for answer in answers] == [200, 400, 200, 400, 400, 200, 400, 400]
    assert answers[0].body == answers[2].body == answers[5].body
    assert all(list(answer.body) == ["message"] for answer in answers if answer.status == 400)


BAD = {
    "empty": (b"", "empty"),
    "not UTF-8": (b'{"data": [["\xff"]]}', "not UTF-8"),
    "not JSON": (b"{data: 1}", "line 1, column 2"),
    "no object": (b"[[1, 2, 3, 4]]", "no object"),
    "strings": ({"data": [["a", "b", "c", "d"]]}, "string [1, 4]"),
    "bools": ({"data": [[True, False, True, True]]}, "bool [1, 4]"),
    "nulls": ({"data": [[None, 1, 2, 3]]}, "integer and null [1, 4]"),
    "rank": ({"data": ROW}, "given: float [4]"),
    "dimension": ({"data": [ROW + ROW]}, "given: float [1, 8]"),
    "ragged": ({"data": [[1, 2], [3, 4, 5], [6]]}, "ragged"),
    "NaN": (b'{"data": [[NaN, 1, 2, 3]]}', "NaN"),
    "Infinity": (b'{"data": [[Infinity, 1, 2, 3]]}', "NaN and no Infinity"),
    "nested": (b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "depth"),
    "too large": ({"data": [[1e39, 1, 2, 3]]}, "out of range"),
    "infinite": (b'{"data": [[1e400, 1, 2, 3]]}', "infinity"),
    "no rows": ({"data": []}, "no rows"),
    "unknown input": ({"inputs": {"Y": [ROW]}}, "'X': float32 [?, 4]"),
    "extra field": ({"data": [ROW], "more": 1}, "the fields 'data', 'more'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, iris, score):
    body, why = BAD[name]
    answer = answer_of(iris, score, body)
    assert answer.status == 400
    assert list(answer.body) == ["message"]
    assert why in answer.body["message"]


@pytest.mark.parametrize(
    ("element", "values"),
    [
        (T.FLOAT, [0.1, -1.5, 3.4e38, 0.0]),
        (T.DOUBLE, [0.1, 1e308, 5e-324, -0.0]),
        (T.FLOAT16, [0.5, -65504.0, 1.0, 0.25]),
        (T.BFLOAT16, [0.5, -1.0, 256.0, 3.0]),
        (T.INT8, [-128, 127, 0, 1]),
        (T.UINT8, [255, 0, 1, 2]),
        (T.INT16, [-(2**15), 2**15 - 1, 0, 1]),
        (T.UINT16, [2**16 - 1, 0, 1, 2]),
        (T.INT32, [-(2**31), 2**31 - 1, 0, 1]),
        (T.UINT32, [2**32 - 1, 0, 1, 2]),
        (T.INT64, [-(2**63), 2**63 - 1, 2**53 + 1, 0]),
        (T.UINT64, [2**64 - 1, 2**63, 2**53 + 1, 0]),
        (T.BOOL, [True, False, False, True]),
        (T.STRING, ["", "é😀", "null", "a\0b"]),
    ],
)
@pytest.mark.parametrize("rows", [1, 60])
def test_every_type_round_trips(element, values, rows, build, scratch):
    model = identity(build, element)
    answers = scratch(model, {"data": [values] * rows}, {"data": [values]})
    assert [answer.status for answer in answers] == [200, 200]
    if element in (T.FLOAT, T.FLOAT16, T.BFLOAT16):
        np.testing.assert_allclose(answers[0].body["outputs"]["y"], [values] * rows, rtol=1e-6)
    else:
        assert answers[0].body == {"outputs": {"y": [values] * rows}}
        assert answers[1].body == {"outputs": {"y": [values]}}


@pytest.mark.parametrize("element", [T.FLOAT, T.BFLOAT16, T.INT64, T.STRING, T.BOOL, T.FLOAT16])
def test_every_type_is_batchable_and_has_a_name(element, build, tmp_path, load_engine):
    info = load_engine(identity(build, element), tmp_path).info
    assert (info["batchable"], info["why_not_batchable"]) == (True, None)
    assert info["inputs"][0]["dtype"] == info["outputs"][0]["dtype"]
    assert info["sample"] is not None


def test_bfloat16_rounds_half_to_even(build, scratch):
    (answer,) = scratch(identity(build, T.BFLOAT16, ["N"]), {"data": [1.00390625, 1.01171875, 1.0, 1.01]})
    assert answer.body["outputs"]["y"] == [1.0, 1.015625, 1.0, 1.0078125]


def test_scalars(build, scratch):
    model = identity(build, T.FLOAT, [])
    good, bad = scratch(model, {"data": 1.5}, {"data": [1.5]})
    assert good.body == {"outputs": {"y": 1.5}}
    assert (bad.status, "expects float32 []" in bad.body["message"]) == (400, True)


def test_undeclared_rank(build, tmp_path, load_engine, score):
    engine = load_engine(identity(build, T.FLOAT, None), tmp_path)
    assert "declares no shape" in engine.info["why_not_batchable"]
    assert engine.info["inputs"][0]["shape"] is None
    bodies = [{"data": value} for value in (1.5, [1.0, 2.0], [[1.0], [2.0]])]
    assert [answer.body["outputs"]["y"] for answer in score(engine, bodies)] == [1.5, [1.0, 2.0], [[1.0], [2.0]]]


def test_outputs_that_are_not_finite_are_said_so(build, scratch):
    model = build([helper.make_node("Log", ["x"], ["y"])], {"x": (T.FLOAT, ["N"])}, {"y": (T.FLOAT, ["N"])})
    (answer,) = scratch(model, {"data": [-1, 0, 1]})
    nan, infinite, zero = answer.body["outputs"]["y"]
    assert np.isnan(nan)
    assert (infinite, zero) == (-np.inf, 0.0)


def test_maps_are_objects_and_split_by_rows(trained, load_engine, score):
    engine = load_engine(trained.iris_zipmap)
    assert engine.info["batchable"] is True
    assert engine.info["outputs"][1]["dtype"] == "seq(map(int64,tensor(float)))"
    one, two = score(engine, [{"data": [ROW]}, {"data": [[6.2, 2.8, 4.8, 1.8], ROW]}])
    assert list(one.body["outputs"]["output_probability"][0]) == ["0", "1", "2"]
    assert len(two.body["outputs"]["output_probability"]) == 2
    first, last = one.body["outputs"]["output_probability"][0], two.body["outputs"]["output_probability"][1]
    np.testing.assert_allclose(list(first.values()), list(last.values()), rtol=1e-5, atol=1e-6)
    assert sum(first.values()) == pytest.approx(1)


def softmax_over(build: Any, axis: int) -> Any:
    return build(
        [helper.make_node("Softmax", ["x"], ["y"], axis=axis)], {"x": (T.FLOAT, SHAPE)}, {"y": (T.FLOAT, SHAPE)}
    )


def test_a_model_that_couples_its_batch_is_found_out_and_served_right(build, tmp_path, load_engine, score):
    engine = load_engine(softmax_over(build, 0), tmp_path)
    assert engine.info["batchable"] is False
    assert "output 'y' differs when rows are stacked" in engine.info["why_not_batchable"]
    one, two = score(engine, [{"data": [ROW]}, {"data": [ROW, ROW]}])
    assert one.body["outputs"]["y"] == [[1.0] * 4]
    assert two.body["outputs"]["y"] == [[0.5] * 4] * 2


def test_softmax_over_columns_is_batchable(build, tmp_path, load_engine):
    assert load_engine(softmax_over(build, 1), tmp_path).info["batchable"] is True


def test_a_model_that_subtracts_the_batch_mean_is_not_batchable(build, tmp_path, load_engine):
    axes = numpy_helper.from_array(np.array([0]), "axes")
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    engine = load_engine(build(nodes, {"x": (T.FLOAT, SHAPE)}, {"y": (T.FLOAT, SHAPE)}, [axes]), tmp_path)
    assert "differs when rows are stacked" in engine.info["why_not_batchable"]


def test_a_model_quantised_by_its_batch_is_not_batchable(build, tmp_path, load_engine):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    engine = load_engine(build(nodes, {"x": (T.FLOAT, SHAPE)}, {"y": (T.FLOAT, SHAPE)}), tmp_path)
    assert "differs when rows are stacked" in engine.info["why_not_batchable"]


def test_a_random_model_is_not_batchable(build, tmp_path, load_engine):
    model = build(
        [helper.make_node("RandomUniformLike", ["x"], ["y"])], {"x": (T.FLOAT, SHAPE)}, {"y": (T.FLOAT, SHAPE)}
    )
    assert load_engine(model, tmp_path).info["batchable"] is False


def lookup(build: Any, rows: int = 12) -> Any:
    """A table of `rows` rows: an index beyond it is refused by the run itself."""
    table = numpy_helper.from_array(np.arange(rows, dtype=np.float32), "table")
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    return build([node], {"x": (T.INT64, ["N"])}, {"y": (T.FLOAT, ["N"])}, [table])


def test_what_the_run_refuses_is_the_clients_error_and_only_its_own(build, scratch, capfd):
    bodies = [{"data": [1]}, {"data": [99]}, {"data": [2, 3]}]
    first, bad, last = scratch(lookup(build), *bodies)
    assert first.body == {"outputs": {"y": [1.0]}}
    assert last.body == {"outputs": {"y": [2.0, 3.0]}}
    assert bad.status == 400
    assert "indices element out of data bounds, idx=99" in bad.body["message"]
    assert "onnxruntime" not in bad.body["message"].lower()
    assert capfd.readouterr() == ("", "")


def test_where_no_sample_runs_nothing_is_batched_but_all_is_served(build, tmp_path, load_engine, score):
    # The table has no row 0 to 9: its indices begin at 1000, which no made-up sample hits.
    offset = numpy_helper.from_array(np.array(1000), "offset")
    nodes = [helper.make_node("Sub", ["x", "offset"], ["i"]), helper.make_node("Gather", ["table", "i"], ["y"])]
    table = numpy_helper.from_array(np.arange(5, dtype=np.float32), "table")
    model = build(nodes, {"x": (T.INT64, ["N"])}, {"y": (T.FLOAT, ["N"])}, [offset, table])
    engine = load_engine(model, tmp_path)
    assert "found no inputs that the model accepts" in engine.info["why_not_batchable"]
    assert engine.info["sample"] is None
    answers = score(engine, [{"data": [1001]}, {"data": [1003, 1004]}, {"data": [3]}])
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert answers[1].body["outputs"]["y"] == [3.0, 4.0]


def sum_of_two(build: Any) -> Any:
    declared = (T.FLOAT, ["N", "S"])
    return build([helper.make_node("Add", ["a", "b"], ["y"])], {"a": declared, "b": declared}, {"y": declared})


def test_a_free_axis_of_two_sizes_is_the_clients_error(build, scratch):
    (answer,) = scratch(sum_of_two(build), {"inputs": {"a": [[1, 2, 3]], "b": [[1, 2]]}})
    assert answer.status == 400
    assert "axis 'S' has size 3 in input 'a' and size 2 in input 'b'" in answer.body["message"]


def test_unequal_rows_never_shift_the_neighbours(build, scratch):
    def body(a: Any, b: Any) -> Any:
        return {"inputs": {"a": a, "b": b}}

    one = body([[1, 2]], [[10, 20]])
    broadcast = body([[1, 2], [3, 4]], [[10, 20]])
    impossible = body([[1, 2], [3, 4]], [[1, 2], [3, 4], [5, 6]])
    answers = scratch(sum_of_two(build), one, broadcast, one, impossible, one)
    assert [answer.status for answer in answers] == [200, 200, 200, 400, 200]
    assert answers[0].body == answers[2].body == answers[4].body == {"outputs": {"y": [[11, 22]]}}
    assert answers[1].body == {"outputs": {"y": [[11, 22], [13, 24]]}}


class CountingSession(Session):
    """Counts the rows of each run, and can fail as a broken kernel would."""

    def watch(self, fails=lambda rows: False):
        self.rows = []
        self.fails = fails
        return self

    def run(self, arrays):
        if hasattr(self, "rows"):
            self.rows.append(len(arrays[0]))
            if self.fails(arrays[0]):
                raise RunError("Fail: /secret/kernel.cc:12 exploded")
        return super().run(arrays)


@pytest.fixture
def counting(trained, monkeypatch):
    """An engine of the iris model with at most 8 rows to a run, and its session."""
    monkeypatch.setattr("scoring_runtime.onnx.loading.Session", CountingSession)
    from scoring_runtime.onnx.loading import open_session

    session = open_session(SessionPlan(trained.iris, 1))
    assert isinstance(session, CountingSession)
    engine = Engine(session, "iris", max_batch_size=8)
    engine._worth.of(((4,),))[0].most_rows = 8  # whatever this machine has just measured
    return engine, session


def test_requests_share_runs_up_to_the_bound(counting, score):
    engine, session = counting
    session.watch()
    score(engine, [{"data": [ROW] * rows} for rows in (1, 2, 3, 4, 1, 20, 1, 1)])
    assert session.rows == [6, 5, 20, 2]


def test_all_of_a_run_report_its_time(counting, score):
    engine, session = counting
    session.watch()
    answers = score(engine, [{"data": [ROW]}] * 5)
    assert session.rows == [5]
    assert len({answer.run_us for answer in answers}) == 1
    assert answers[0].run_us > 0


def test_a_member_that_breaks_the_run_breaks_only_itself(counting, score, caplog):
    engine, session = counting
    session.watch(fails=lambda rows: bool((rows == 666).any()))
    answers = score(engine, [{"data": [ROW]}, {"data": [[666, 0, 0, 0]]}, {"data": [ROW]}])
    assert session.rows == [3, 1, 1, 1]
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert "secret" not in answers[1].body["message"]
    assert "kernel.cc" in caplog.text


def test_different_shapes_go_in_different_runs(build, tmp_path, load_engine, score):
    engine = load_engine(identity(build, T.FLOAT, ["N", "S"]), tmp_path)
    bodies = [{"data": np.full((rows, size), rows * 10 + size).tolist()} for rows in (1, 2, 3) for size in (1, 2, 5)]
    for answer, body in zip(score(engine, bodies), bodies, strict=True):
        assert answer.body["outputs"]["y"] == body["data"]


class NarrowOutbox:
    """Takes no reply above 200 bytes, as the real one takes none above 2 GB."""

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}

    def add(self, request_id: int, status: int, body: Any, head: bytes = b"", flags: int = 0, run_us: int = 0) -> None:
        if len(body) > 200:
            raise FrameError(f"a reply of {len(body)} bytes is over the limit")
        assert request_id not in self.statuses
        self.statuses[request_id] = status

    def add_all(self, request_ids: Any, bodies: Any, run_us: int) -> None:
        if max(map(len, bodies)) > 200:
            raise FrameError("a reply is over the limit")
        for request_id, body in zip(request_ids, bodies, strict=True):
            self.add(request_id, 200, body)

    def flush_if_due(self):
        """Nothing waits here."""


def test_an_answer_that_no_frame_holds_is_an_error_of_its_own(iris):
    bodies = [json.dumps({"data": [ROW] * rows}).encode() for rows in (1, 50, 1)]
    outbox = NarrowOutbox()
    iris.score([Request(number, 0, 1, 2, b"", body) for number, body in enumerate(bodies)], outbox)
    assert outbox.statuses == {0: 200, 1: 500, 2: 200}
