"""Padding on the value level: whatever the rows, what comes back is what the rows alone give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.onnx import buckets
from scoring_runtime.onnx.dtypes import Array

SIZES = st.lists(st.integers(1, 40), min_size=1, unique=True).map(sorted)


@pytest.mark.parametrize(
    ("text", "most_rows", "gpu", "chosen"),
    [
        ("auto", 128, True, (1, 2, 4, 8, 16, 32, 64, 128)),
        ("auto", 1, True, (1,)),
        ("auto", 100, True, (1, 2, 4, 8, 16, 32, 64, 100)),  # so that a full batch is one run
        ("auto", 128, False, ()),
        ("off", 128, True, ()),
        ("8,2,8", 128, False, (2, 8)),
        ("256", 128, True, (256,)),
    ],
)
def test_the_setting_chooses(text, most_rows, gpu, chosen):
    assert buckets.choose(text, most_rows, gpu=gpu) == chosen


@given(st.integers(1, 50), SIZES)
def test_the_least_bucket_that_holds_the_rows(rows, sizes):
    bucket = buckets.bucket_for(rows, sizes)
    if bucket is None:
        assert rows > sizes[-1]
    else:
        assert bucket >= rows
        assert not [size for size in sizes if rows <= size < bucket]


@given(st.integers(1, 200), st.integers(1, 50))
def test_parts_are_all_rows_in_order(rows, most_rows):
    parts = list(buckets.parts(rows, most_rows))
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    assert all(0 < part.stop - part.start <= most_rows for part in parts)
    assert len(parts) == -(-rows // most_rows)


DTYPES = ("float32", "float16", "int64", "bool", "object")


@st.composite
def inputs(draw):
    rows = draw(st.integers(1, 30))
    shapes = draw(st.lists(st.lists(st.integers(0, 3), max_size=2), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return rows, [random.integers(0, 5, (rows, *shape)).astype(draw(st.sampled_from(DTYPES))) for shape in shapes]


@given(inputs(), st.integers(0, 10))
def test_padding_repeats_the_last_row_and_is_cut_off_again(made, more):
    rows, arrays = made
    padded = buckets.pad(arrays, rows, rows + more)
    for array, cells in zip(arrays, padded, strict=True):
        assert cells.dtype == array.dtype
        assert cells.shape == (rows + more, *array.shape[1:])
        np.testing.assert_array_equal(cells[:rows], array)
        for row in cells[rows:]:
            np.testing.assert_array_equal(row, array[-1])
    for array, output in zip(arrays, buckets.cut(padded, rows), strict=True):
        np.testing.assert_array_equal(output, array)


@given(inputs(), SIZES)
def test_a_row_by_row_model_gives_the_same_in_buckets(made, sizes):
    rows, arrays = made

    def run(given_arrays: Sequence[Array]) -> list[Any]:
        assert len(given_arrays[0]) in sizes
        return [
            *(array.copy() for array in given_arrays),
            [{"row": len(row)} for row in given_arrays[0].reshape(len(given_arrays[0]), -1).astype(str)],
        ]

    answers = []
    for part in buckets.parts(rows, sizes[-1]):
        piece = [array[part] for array in arrays]
        count = len(piece[0])
        bucket = buckets.bucket_for(count, sizes)
        assert bucket is not None
        answers.append(buckets.cut(run(buckets.pad(piece, count, bucket)), count))
    *joined, labels = buckets.join(answers)
    for output, array in zip(joined, arrays, strict=True):
        assert output.dtype == array.dtype
        np.testing.assert_array_equal(output, array)
    assert len(labels) == rows


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [([(3, 2)], 3), ([(3,), (3, 1)], 3), ([(3,), (2,)], None), ([()], None), ([(0, 4)], None), ([], None)],
)
def test_rows_that_can_be_counted(shapes, rows):
    assert buckets.rows_of([np.zeros(shape) for shape in shapes]) == rows
