"""Requests of different lengths in one run: which models allow it, and that no answer changes."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from scoring_runtime.onnx import ragged
from scoring_runtime.onnx.batch import RowsError
from scoring_runtime.onnx.dtypes import BY_NAME
from scoring_runtime.onnx.engine import Engine
from scoring_runtime.onnx.ragged import Axes, Padding, find_axes
from scoring_runtime.onnx.tensors import Size, Tensor
from scoring_runtime.scorer.frames import ROUTE_V2, Request

IDS_AND_MASK = Padding(Axes((1, 1), (1,), ()), ((1,),), 16384)
IDS_AND_LENGTHS = Padding(Axes((1, None), (), (1,)), ((1,),), 16384)


def tensor(name: str, *shape: Size, dtype: str = "int64") -> Tensor:
    return Tensor(name, BY_NAME[dtype], shape)


# What the declaration says

IDS = tensor("input_ids", "N", "S")
MASK = tensor("attention_mask", "N", "S")


@pytest.mark.parametrize(
    ("inputs", "masks", "lengths"),
    [
        ([IDS, MASK, tensor("token_type_ids", "N", "S")], (1,), ()),
        ([tensor("token_ids", "A", "B"), tensor("length", "C")], (), (1,)),
        ([tensor("speech", None, None, dtype="float32"), tensor("speech_lengths", None)], (), (1,)),
        ([tensor("audio_signal", "N", 80, "T", dtype="float32"), tensor("seq_len", "N", 1)], (), (1,)),
        ([tensor("x", "N", "T", 80, dtype="float32"), tensor("x_lens", "N", dtype="int32")], (), (1,)),
        ([IDS, tensor("paddingMask", "N", "S", dtype="bool"), tensor("inputLength", "N")], (1,), (2,)),
    ],
)
def test_masks_and_lengths_are_found_by_name_type_and_shape(inputs, masks, lengths):
    axes = find_axes(inputs, (), ())
    assert isinstance(axes, Axes)
    assert (axes.masks, axes.lengths) == (masks, lengths)


def test_masks_and_lengths_can_be_named():
    inputs = [tensor("a", "N", "S"), tensor("b", "N", "S"), tensor("c", "N")]
    assert find_axes(inputs, ("b",), ("c",)) == Axes((1, 1, None), (1,), (2,))
    assert find_axes([IDS, MASK], ("input_ids",), ()) == Axes((1, 1), (0,), ())  # what is named is not guessed


@pytest.mark.parametrize(
    ("inputs", "named", "why"),
    [
        ([tensor("x", "N", 4)], ((), ()), "no input has a free axis beside its rows"),
        ([IDS], ((), ()), "no input is a mask or holds lengths (--mask-inputs and --length-inputs name them)"),
        ([MASK], ((), ()), "only masks have a free axis"),
        ([IDS, tensor("wavelength", "N")], ((), ()), "no input is a mask"),
        ([IDS, tensor("length", "N", dtype="float32")], ((), ()), "no input is a mask"),
        ([tensor("x", "N", "H", "W")], ((), ()), "input 'x' has more than one free axis beside its rows"),
        ([IDS, tensor("decoder_mask", "N", "T")], ((), ()), "free axes of different names: S, T"),
        ([IDS, MASK], (("mask",), ()), "--mask-inputs names 'mask', but the model's inputs are 'attention_mask'"),
        ([IDS, MASK], ((), ("n",)), "--length-inputs names 'n'"),
        ([IDS, tensor("n", "N")], (("n",), ()), "the mask 'n' has no free axis beside its rows"),
        ([IDS, MASK], ((), ("input_ids",)), "the lengths 'input_ids' are not one whole number for each row"),
        ([tensor("words", "N", "S", dtype="string"), MASK], ((), ()), "holds strings, which are not padded"),
    ],
)
def test_why_a_declaration_allows_no_padding(inputs, named, why):
    found = find_axes(inputs, *named)
    assert isinstance(found, str)
    assert why in found


# Padding and cutting, on arrays


def member(length: int, rows: int = 1, start: int = 1) -> list[Any]:
    ids = np.arange(start, start + rows * length).reshape(rows, length)
    return [ids, np.ones((rows, length), np.int64)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=8))
def test_cutting_undoes_padding(sizes: list[tuple[int, int]]) -> None:
    members = [member(length, rows, 10 * number) for number, (length, rows) in enumerate(sizes)]
    lengths = [length for length, _ in sizes]
    longest = max(lengths)
    ids, mask = IDS_AND_MASK.stack(members, longest)
    assert ids.shape == mask.shape == (sum(rows for _, rows in sizes), longest)
    assert mask.sum() == sum(length * rows for length, rows in sizes)
    assert not ids[mask == 0].any()
    parts = IDS_AND_MASK.split([ids], [rows for _, rows in sizes], lengths)
    for (part,), (own, _) in zip(parts, members, strict=True):
        np.testing.assert_array_equal(part, own)
        assert part.flags.c_contiguous


def test_padding_goes_along_the_free_axis_wherever_it_is():
    padding = Padding(Axes((2, None), (), (1,)), ((1, 2),), 16384)
    sound, lengths = padding.stack(
        [[np.full((1, 3, 2), 7.0), np.array([2])], [np.full((2, 3, 4), 8.0), np.array([4, 3])]], 4
    )
    assert sound.shape == (3, 3, 4)
    assert sound[0, :, :2].all()
    assert not sound[0, :, 2:].any()
    assert lengths.tolist() == [2, 4, 3]
    small, large = padding.split([np.arange(48).reshape(3, 4, 4)], [1, 2], [2, 4])
    assert small[0].tolist() == [[[0, 1], [4, 5]]]
    assert large[0].shape == (2, 4, 4)


def test_an_output_without_the_padded_length_is_an_error():
    with pytest.raises(RowsError, match="output 0 has not the length of the inputs"):
        IDS_AND_MASK.split([np.zeros((2, 4))], [1, 1], [3, 5])


@pytest.mark.parametrize(
    ("padding", "arrays", "length"),
    [
        (IDS_AND_MASK, member(5, 2), 5),
        (IDS_AND_MASK, [np.ones((1, 3)), np.array([[1, 1, 0]])], 3),
        (IDS_AND_MASK, [np.ones((1, 3)), np.zeros((1, 3))], None),
        (IDS_AND_MASK, [np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, 0]])], None),
        (IDS_AND_MASK, [np.ones((1, 3)), np.ones((1, 4))], None),
        (IDS_AND_MASK, [np.ones((1, 3)), np.ones((2, 3))], None),
        (IDS_AND_MASK, [np.ones((1, 0)), np.ones((1, 0))], None),
        (IDS_AND_MASK, [np.ones((0, 3)), np.ones((0, 3))], None),
        (IDS_AND_LENGTHS, [np.ones((2, 3)), np.array([1, 3])], 3),
        (IDS_AND_LENGTHS, [np.ones((2, 3)), np.array([0, 3])], None),
        (IDS_AND_LENGTHS, [np.ones((2, 3)), np.array([1, 4])], None),
        (IDS_AND_LENGTHS, [np.ones((2, 3)), np.array([1])], None),
    ],
)
def test_a_request_is_padded_only_if_its_mask_or_lengths_mean_the_same_in_a_longer_run(padding, arrays, length):
    assert padding.length(arrays) == length


# Which requests share a run


@given(
    requests=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 4)), max_size=40),
    most_rows=st.integers(1, 40),
    most_cells=st.integers(1, 5000),
)
def test_runs_lose_nothing_and_keep_every_bound(requests, most_rows, most_cells):
    lengths, rows = [length for length, _ in requests], [count for _, count in requests]
    padding = Padding(IDS_AND_MASK.axes, IDS_AND_MASK.cut, most_cells)
    runs = list(padding.runs(lengths, rows, lambda _length: most_rows))
    assert sorted(number for run in runs for number in run) == list(range(len(requests)))
    for run in runs:
        total, longest = sum(rows[number] for number in run), max(lengths[number] for number in run)
        own = sum(rows[number] * lengths[number] for number in run)
        assert len(run) == 1 or total <= most_rows
        assert len(run) == 1 or total * longest <= most_cells
        assert own >= (1 - ragged.MOST_WASTE) * total * longest


def test_requests_of_one_length_share_as_many_runs_as_without_padding():
    assert list(IDS_AND_MASK.runs([7] * 9, [1] * 9, lambda _: 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_the_bound_is_asked_for_each_run_with_its_length():
    asked = []

    def most_rows(length: int) -> int:
        asked.append(length)
        return 2

    assert list(IDS_AND_MASK.runs([4, 10, 9, 5], [1] * 4, most_rows)) == [[1, 2], [3, 0]]
    assert asked == [10, 5]


# The proof, on models that are made for it

INTS: list[Any] = ["N", "S"]


def masked_mean(build: Any, *, heeds_mask: bool = True, more: Sequence[Any] = (), output: str = "mean") -> Any:
    """Embeds token numbers and takes their mean over the text: of what the mask lets through, or of everything."""
    random = np.random.default_rng(0)
    table = numpy_helper.from_array(random.normal(size=(64, 8)).astype(np.float32), "table")
    over = numpy_helper.from_array(np.array([1]), "over")
    last = numpy_helper.from_array(np.array([-1]), "last")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=T.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["let_through"]),
        helper.make_node("ReduceSum", ["let_through", "over"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "over"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["masked_mean"]),
        helper.make_node("ReduceMean", ["embedded", "over"], ["plain_mean"], keepdims=0),
        helper.make_node("ReduceMax", ["embedded", "over"], ["largest"], keepdims=0),
        *more,
    ]
    name = output if output != "mean" else "masked_mean" if heeds_mask else "plain_mean"
    nodes.append(helper.make_node("Identity", [name], ["y"]))
    return build(
        nodes,
        {"ids": (T.INT64, INTS), "attention_mask": (T.INT64, INTS)},
        {"y": (T.FLOAT, None)},
        [table, over, last],
    )


def why_not(load_engine: Any, tmp_path: Any, model: Any) -> Any:
    info = load_engine(model, tmp_path).info
    assert info["batchable"] is True, info["why_not_batchable"]
    json.dumps(info)
    return info["ragged"]


def test_a_mean_that_heeds_its_mask_is_padded(build, load_engine, tmp_path):
    assert why_not(load_engine, tmp_path, masked_mean(build)) is True


def test_a_mean_without_mask_is_found_out(build, load_engine, tmp_path):
    why = why_not(load_engine, tmp_path, masked_mean(build, heeds_mask=False))
    assert "output 'y' differs when rows are padded, by up to" in why


def test_a_maximum_without_mask_is_found_out(build, load_engine, tmp_path):
    assert "'y' differs" in why_not(load_engine, tmp_path, masked_mean(build, output="largest"))


def test_where_the_mask_changes_nothing_nothing_is_proved(build, load_engine, tmp_path):
    why = why_not(load_engine, tmp_path, masked_mean(build, output="embedded"))
    assert why == "the mask changed no answer of the samples, so that nothing is proved"


def test_a_mean_over_the_text_within_each_answer_is_found_out(build, load_engine, tmp_path):
    """Heeds the mask in what it lets through, but centres it on all cells: normalisation over the text."""
    centre = [
        helper.make_node("ReduceMean", ["embedded", "over"], ["centre"], keepdims=1),
        helper.make_node("Sub", ["embedded", "centre"], ["centred"]),
        helper.make_node("Mul", ["centred", "column"], ["normal"]),
    ]
    assert "'y' differs" in why_not(load_engine, tmp_path, masked_mean(build, more=centre, output="normal"))


def test_a_mask_that_means_the_opposite_is_found_out(build, load_engine, tmp_path):
    inverted = [
        helper.make_node("Sub", ["one", "column"], ["kept"]),
        helper.make_node("Mul", ["embedded", "kept"], ["rest"]),
        helper.make_node("ReduceSum", ["rest", "over"], ["rest_sum"], keepdims=0),
    ]
    model = masked_mean(build, more=inverted, output="rest_sum")
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    assert "'y' differs" in why_not(load_engine, tmp_path, model)


def test_an_output_of_half_the_length_is_not_padded(build, load_engine, tmp_path):
    halved = [helper.make_node("Slice", ["let_through", "from", "to", "over", "two"], ["half"])]
    model = masked_mean(build, more=halved, output="half")
    for name, number in (("from", 0), ("to", 1 << 30), ("two", 2)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    why = why_not(load_engine, tmp_path, model)
    assert why == "axis 1 of output 'y' has the size 10 where the inputs have 20"


def test_floats_are_proved_with_zeros_that_matter(build, load_engine, tmp_path):
    """A maximum over values that are all negative is what a zero of the padding spoils."""
    over = numpy_helper.from_array(np.array([1]), "over")
    nodes = [
        helper.make_node("ReduceMax", ["x", "over"], ["y"], keepdims=0),
        helper.make_node("Cast", ["x_mask"], ["weights"], to=T.FLOAT),
        helper.make_node("Mul", ["x", "weights"], ["z"]),
    ]
    declared = {"x": (T.FLOAT, INTS), "x_mask": (T.BOOL, INTS)}
    model = build(nodes, declared, {"y": (T.FLOAT, ["N"]), "z": (T.FLOAT, INTS)}, [over])
    assert "output 'y' differs" in why_not(load_engine, tmp_path, model)


def test_it_can_be_switched_off_and_its_inputs_named(build, load_engine, tmp_path, caplog):
    model = masked_mean(build)
    assert load_engine(model, tmp_path, ragged="off").info["ragged"] == "--ragged is off"
    assert load_engine(model, tmp_path, mask_inputs="attention_mask").info["ragged"] is True
    assert "of no use" not in caplog.text
    assert "--mask-inputs names 'mask'" in load_engine(model, tmp_path, mask_inputs="mask").info["ragged"]
    assert "--mask-inputs names 'mask'" in caplog.text


# Served


class Watched:
    """The shapes of the runs of an engine's session, from now on."""

    def __init__(self, engine: Engine, monkeypatch: Any) -> None:
        self.shapes: list[tuple[int, ...]] = []
        run = engine._session.run

        def watch(arrays: Any) -> Any:
            self.shapes.append(arrays[0].shape)
            return run(arrays)

        monkeypatch.setattr(engine._session, "run", watch)


def body(length: int, rows: int = 1, **more: Any) -> dict[str, Any]:
    random = np.random.default_rng(length)
    ids = random.integers(1, 60, (rows, length)).tolist()
    return {"inputs": {"ids": ids, "attention_mask": [[1] * length] * rows, **more}}


@pytest.fixture
def mean(build, load_engine, tmp_path) -> Engine:
    """An engine that pads, and takes runs as large as they come."""
    engine: Engine = load_engine(masked_mean(build, output="let_through"), tmp_path)
    assert engine.info["ragged"] is True
    return engine


def test_each_answer_has_its_own_shape(mean, score, monkeypatch):
    bodies = [body(length, rows) for length, rows in ((18, 1), (20, 2), (3, 1), (17, 1), (4, 2), (20, 1))]
    alone = [score(mean, [each])[0].body for each in bodies]
    for length in (20, 4):
        kind, _ = mean._worth.of(((length,), (length,)))
        kind.most_rows = 8
    watched = Watched(mean, monkeypatch)
    together = [answer.body for answer in score(mean, bodies)]
    assert watched.shapes == [(5, 20), (3, 4)]
    for one, other, sent in zip(together, alone, bodies, strict=True):
        assert np.shape(one["outputs"]["y"]) == (*np.shape(sent["inputs"]["ids"]), 8)
        np.testing.assert_allclose(one["outputs"]["y"], other["outputs"]["y"], rtol=1e-6)


def test_the_budget_of_cells_bounds_a_run(build, load_engine, tmp_path, score, monkeypatch):
    engine = load_engine(masked_mean(build), tmp_path, max_batch_tokens=50)
    kind, _ = engine._worth.of(((20,), (20,)))
    kind.most_rows = 8
    watched = Watched(engine, monkeypatch)
    score(engine, [body(length) for length in (20, 19, 18, 20)])
    assert watched.shapes == [(2, 20), (2, 19)]


def test_a_request_whose_own_inputs_disagree_keeps_its_error(mean, score):
    odd = body(5, attention_mask=[[1] * 4])
    good, bad, other = score(mean, [body(5), odd, body(6)])
    assert (good.status, bad.status, other.status) == (200, 400, 200)
    assert "axis 'S' has size 5 in input 'ids' and size 4 in input 'attention_mask'" in bad.body["message"]


def test_a_request_whose_mask_lets_nothing_through_is_not_padded(mean, score, monkeypatch):
    watched = Watched(mean, monkeypatch)
    answers = score(mean, [body(5, attention_mask=[[0] * 5]), body(6), body(6)])
    assert [answer.status for answer in answers] == [200] * 3
    assert (1, 5) in watched.shapes


def test_a_padded_run_that_fails_is_run_again_one_by_one(mean, score):
    """A token number beyond the table fails the run that it is in."""
    kind, _ = mean._worth.of(((6,), (6,)))
    kind.most_rows = 8
    good, bad, other = score(mean, [body(5), body(6, ids=[[99] * 6]), body(6)])
    assert (good.status, bad.status, other.status) == (200, 400, 200)
    assert "out of data bounds" in bad.body["message"]
    assert np.shape(good.body["outputs"]["y"]) == (1, 5, 8)


def test_both_protocols_share_padded_runs(mean, score, monkeypatch):
    class Outbox:
        def __init__(self) -> None:
            self.bodies: dict[int, Any] = {}

        def add(self, number: int, status: int, body: Any, head: bytes = b"", *, run_us: int = 0) -> None:
            assert status == 200
            self.bodies[number] = json.loads(bytes(body))

        def flush_if_due(self) -> None:
            """Nothing waits here."""

    kind, _ = mean._worth.of(((6,), (6,)))
    kind.most_rows = 8
    watched = Watched(mean, monkeypatch)
    tensors = [
        {"name": name, "datatype": "INT64", "shape": [1, 5], "data": values}
        for name, values in (("ids", [1, 2, 3, 4, 5]), ("attention_mask", [1, 1, 1, 1, 1]))
    ]
    v2 = json.dumps({"inputs": tensors}).encode()
    outbox = Outbox()
    requests = [
        Request(0, 0, ROUTE_V2, 2, b"{}", v2),
        Request(1, 0, 1, 2, b"", json.dumps(body(6)).encode()),
    ]
    mean.score(requests, outbox)
    assert watched.shapes == [(2, 6)]
    assert outbox.bodies[0]["outputs"][0]["shape"] == [1, 5, 8]
    assert np.shape(outbox.bodies[1]["outputs"]["y"]) == (1, 6, 8)


# Real models


def texts(name: str, generator: np.random.Generator) -> dict[str, Any]:
    rows, length = int(generator.integers(1, 4)), int(generator.integers(3, 33))
    ids = generator.integers(100, 5000, (rows, length))
    own = generator.integers(1, length + 1, rows)
    own[0] = length
    if name == "minilm":
        mask = (np.arange(length) < own[:, None]).astype(np.int64)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {"token_ids": ids, "length": own}


@pytest.mark.parametrize("name", ["minilm", "lac by length"])
def test_real_texts_of_mixed_lengths_are_answered_as_alone(
    name, real_model, lac_by_length, load_engine, score, compare, monkeypatch
):
    path = real_model("minilm").path if name == "minilm" else lac_by_length
    engine = load_engine(path)
    assert engine.info["ragged"] is True
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    generator = np.random.default_rng(5)
    watched = Watched(engine, monkeypatch)
    for _ in range(4):
        frame = [texts(name, generator) for _ in range(10)]
        bodies = [{"inputs": {key: value.tolist() for key, value in feed.items()}} for feed in frame]
        for answer, feed in zip(score(engine, bodies), frame, strict=True):
            assert answer.status == 200, answer.body
            compare(answer.body["outputs"], names, session.run(names, feed))
    assert len(watched.shapes) < 40, "no two requests shared a run"


def test_an_export_that_ignores_its_lengths_is_found_out(real_model, load_engine):
    """The LAC encoder has an input `length`, which nothing in its graph heeds."""
    path = real_model("lac").path
    assert load_engine(path).info["ragged"].startswith("output 'fetch_name_0' differs when rows are padded, by up to ")
    graph = onnx.load(path).graph
    assert [node.input[4] for node in graph.node if node.op_type == "GRU"] == ["", ""]
