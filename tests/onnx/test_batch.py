"""Stacking, splitting and the proof, on arrays and plain functions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.onnx import batch
from scoring_runtime.onnx.dtypes import BY_NAME, Array, Tolerance
from scoring_runtime.onnx.tensors import Sequential, Tensor

FLOAT = BY_NAME["float32"]
X = Tensor("x", FLOAT, ("N", 4))
Y = Tensor("y", FLOAT, ("N", 4))
EXACT = Tolerance(1e-5, 1e-6)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 64))
def test_chunks_keep_order_lose_nothing_and_stay_within_the_bound(rows, most):
    parts = [rows[part] for part in batch.chunks(rows, lambda: most)]
    assert [count for part in parts for count in part] == rows
    for part in parts:
        assert sum(part) <= most or len([count for count in part if count]) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 64))
def test_chunks_are_as_large_as_they_may_be(rows, most):
    parts = [rows[part] for part in batch.chunks(rows, lambda: most)]
    for part, following in pairwise(parts):
        assert sum(part) + following[0] > most


def test_each_run_may_have_a_bound_of_its_own():
    bounds = iter([1, 2, 4, 8])
    assert list(batch.chunks([1] * 9, lambda: next(bounds))) == [slice(0, 1), slice(1, 3), slice(3, 7), slice(7, 9)]


def test_requests_without_rows_are_in_a_run_too():
    assert list(batch.chunks([0, 0], lambda: 4)) == [slice(0, 2)]
    assert list(batch.chunks([0, 3, 0], lambda: 3)) == [slice(0, 3)]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=10))
def test_split_undoes_stack(rows):
    random = np.random.default_rng(0)
    members = [(random.random((count, 3)), random.integers(0, 9, (count,))) for count in rows]
    parts = batch.split(batch.stack(members), rows)
    for member, part in zip(members, parts, strict=True):
        for one, other in zip(member, part, strict=True):
            np.testing.assert_array_equal(one, other)


def test_split_of_a_sequence():
    assert batch.split([[{1: 0.5}, {1: 0.7}, {1: 0.9}]], [1, 2]) == [[[{1: 0.5}]], [[{1: 0.7}, {1: 0.9}]]]


@pytest.mark.parametrize("output", [np.zeros((4, 2)), np.zeros(()), [1, 2], None])
def test_split_refuses_outputs_whose_rows_do_not_follow(output):
    with pytest.raises(batch.RowsError, match="output 0 has"):
        batch.split([output], [1, 2])


def test_signature_is_the_shape_but_for_the_rows():
    one, two = np.zeros((1, 3, 5)), np.zeros((2, 3, 5))
    assert batch.signature([one]) == batch.signature([two])
    assert batch.signature([one, np.zeros((1, 2))]) == ((3, 5), (2,))
    assert batch.signature([one]) != batch.signature([np.zeros((1, 3, 6))])


def test_requests_with_unequal_rows_have_no_signature():
    assert batch.signature([np.zeros((1, 3)), np.zeros((2, 3))]) is None


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ([X], [Y], None),
        ([Tensor("x", FLOAT, (None, 4))], [Tensor("y", FLOAT, ("other",))], None),
        ([X], [Sequential("s", "seq(map(int64,tensor(float)))")], None),
        ([Tensor("x", FLOAT, (1, 4))], [Y], "axis 0 of input 'x' has the fixed size 1"),
        ([Tensor("x", FLOAT, (2, "N", 4))], [Y], "axis 0 of input 'x' has the fixed size 2 (free is axis 1)"),
        ([X, Tensor("rate", FLOAT, ())], [Y], "input 'rate' is a scalar: it has no batch axis"),
        ([Tensor("x", FLOAT, None)], [Y], "input 'x' declares no shape"),
        ([Tensor("x", FLOAT, ("N", "N"))], [Y], "axis 1 of input 'x' has the name of a batch axis, 'N'"),
        ([X], [Tensor("y", FLOAT, (1,))], "axis 0 of output 'y' has the fixed size 1"),
        ([], [Y], "the model has no inputs"),
    ],
)
def test_what_declared_shapes_forbid(inputs, outputs, why):
    assert batch.why_not_declared(inputs, outputs) == why


SAMPLES = [[np.random.default_rng(rows).uniform(0, 10**rows, (rows, 4)).astype(np.float32)] for rows in (1, 2, 3)]


def proved(function: Any, output: Tensor = Y) -> str | None:
    def run(arrays: Sequence[Array]) -> list[Any]:
        return [function(arrays[0])]

    return batch.why_not_proved(run, SAMPLES, [output])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2,
        lambda x: x.sum(axis=1),
        lambda x: np.cumsum(x, axis=1),
        lambda x: np.sort(x, axis=1),
        lambda x: x * np.float32(1 + 2e-6 * (len(x) > 1)),
        lambda x: [{"a": float(row[0])} for row in x],
        lambda x: np.full(len(x), np.nan),
    ],
    ids=["scale", "sum", "cumsum", "sort", "rounding", "maps", "nan"],
)
def test_models_that_treat_each_row_alone_are_proved(function):
    assert proved(function) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(axis=0),
        lambda x: x - x[:1],
        lambda x: x - x[-1:],
        lambda x: np.cumsum(x, axis=0),
        lambda x: x / np.abs(x).max(),
        lambda x: np.round(x / np.abs(x).max() * 127),
        lambda x: np.sort(x, axis=0),
        lambda x: x[::-1],
        lambda x: [{"a": float(row[0] - x[0, 0])} for row in x],
        lambda x: x * (1 + 1e-3 * (len(x) > 3)),
    ],
    ids=["mean", "first", "last", "cumsum", "largest", "quantised", "sort", "reversed", "maps", "size"],
)
def test_models_that_couple_rows_are_found_out(function):
    assert "output 'y' differs when rows are stacked" in (proved(function) or "")


def test_labels_must_agree_exactly():
    labels = Tensor("label", BY_NAME["int64"], ("N",))
    assert proved(lambda x: (x[:, 0] * 1000).astype(np.int64), labels) is None
    assert "'label'" in (proved(lambda x: (x[:, 0] * 1000).astype(np.int64) + (len(x) > 3), labels) or "")


@pytest.mark.parametrize("function", [lambda x: x[:1], lambda x: x.sum(), lambda x: x.reshape(-1)])
def test_outputs_that_do_not_follow_the_rows_are_found_out(function):
    assert "rows of input" in (proved(function) or "")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (np.array([1.0]), np.array([1.000001]), True),
        (np.array([1.0]), np.array([1.0001]), False),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), True),
        (np.array([np.inf]), np.array([-np.inf]), False),
        (np.array([np.nan]), np.array([1.0]), False),
        (np.array([1000.0, 0.0]), np.array([1000.0, 0.0005]), True),
        (np.array([1000.0, 0.0]), np.array([1000.0, 0.5]), False),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array(["a"], object), np.array(["b"], object), False),
        (np.zeros((2, 1)), np.zeros((1, 2)), False),
        ([{"a": 1.0}], [{"a": 1.0000001}], True),
        ([{"a": 1.0}], [{"b": 1.0}], False),
        ([1.0], [1.0, 2.0], False),
        (None, None, True),
    ],
)
def test_same(one, other, equal):
    assert batch.same(one, other, EXACT) is equal
