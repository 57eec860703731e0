"""Decoding and encoding many requests at once gives what each would have got by itself, or declines."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.onnx.codecs.json import JsonCodec
from scoring_runtime.onnx.dtypes import BY_NAME
from scoring_runtime.onnx.tensors import BadInputError, Output, Tensor

FLOATS = Tensor("x", BY_NAME["float32"], ("N", 3))
INTS = Tensor("x", BY_NAME["int64"], ("N", 2))
COLUMN = Tensor("x", BY_NAME["float64"], ("N", 1))
MASKED = [Tensor("ids", BY_NAME["int64"], ("N", "S")), Tensor("mask", BY_NAME["int64"], ("N", "S"))]

numbers = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(-(2.0**100), 2.0**100, allow_nan=False, width=32),
)


def codec(*inputs: Tensor, outputs: list[Output] | None = None) -> JsonCodec:
    return JsonCodec(list(inputs), outputs or [Tensor("y", BY_NAME["float32"], ("N", 2))])


@pytest.mark.parametrize(
    ("tensor", "cells"), [(FLOATS, numbers), (INTS, st.integers(-(2**63), 2**63 - 1)), (COLUMN, numbers)]
)
@given(data=st.data())
def test_rows_decoded_together_are_the_rows_decoded_alone(tensor: Tensor, cells: Any, data: st.DataObject) -> None:
    width = tensor.shape[1] if tensor.shape else 0
    assert isinstance(width, int)
    one = st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=4)
    requests = data.draw(st.lists(one, min_size=2, max_size=6))
    spaces = data.draw(st.sampled_from(["", " ", "\n "]))
    bodies = [json.dumps({"data": rows}, separators=("," + spaces, ":" + spaces)).encode() for rows in requests]
    decoder = codec(tensor)

    together = decoder.decode_together(bodies)

    assert together is not None
    arrays, counts = together
    alone = [decoder.decode(body)[0] for body in bodies]
    assert counts == [len(array) for array in alone]
    assert arrays[0].dtype == tensor.dtype.array
    np.testing.assert_array_equal(arrays[0], np.concatenate(alone))


@pytest.mark.parametrize(
    "odd",
    [
        b'{"data": [[1,2,3]],"data": [[4,5,6]]}',
        b'{"data": [[1,2,3]]},{"data": [[4,5,6]]}',
        b'{"data": [[1,2,3]',
        b'1]], [[2,3,4]]}',
        b'{"da1ta": [[1,2,3]]}',
        b'{"da ta": [[1,2,3]]}',
        b'{"data" 5: [[1,2,3]]}',
        b'{"data": 5[[1,2,3]]}',
        b'{"data": [[1,2,3]5]}',
        b'{"data": [5[1,2,3]]}',
        b'{"data": [[1,2,3]]};',
        b'{"data": [[1,2,3]]};{"data": [[1,2,3]]}',
        b'{"data": [[1,2,3]]5}',
        b'{"data": [[1,2,3],[4,5]]}',
        b'{"data": [[1,2,"3"]]}',
        b'{"data": [[1,2,true]]}',
        b'{"data": [[1,2,null]]}',
        b'{"data": [[1 2,3,4]]}',
        b'{"data": [[1,2,3e999]]}',
        b'{"data": [[1,2,1e300]]}',
        b'{"data": [[,,]]}',
        b'{"data": []}',
        b'{"data": [[]]}',
        b'5{"data": [[1,2,3]]}',
        b'{"data": [[1,2,3]]}5',
        b'{"data": [[[1,2,3]]]}',
        b'{"data": [[1,2,3]], "more": 1}',
        b'{"other": [[1,2,3]]}',
        b"[]",
        b"",
        b"\xff\xfe",
    ],
)  # fmt: skip
def test_one_odd_body_is_never_pasted_between_others(odd: bytes) -> None:
    good = b'{"data": [[7,8,9]]}'
    decoder = codec(FLOATS)

    together = decoder.decode_together([good, odd, good])

    if together is not None:  # then it must be a body that is right by itself, and only its own rows may be its
        arrays, counts = together
        np.testing.assert_array_equal(arrays[0][counts[0] : counts[0] + counts[1]], decoder.decode(odd)[0])
    else:
        with pytest.raises(BadInputError):
            decoder.decode(odd)


@given(bodies=st.lists(st.binary(max_size=40), min_size=2, max_size=4))
def test_garbage_is_declined_or_decoded_as_it_would_be_alone(bodies: list[bytes]) -> None:
    decoder = codec(FLOATS)
    together = decoder.decode_together(bodies)
    if together is not None:
        np.testing.assert_array_equal(together[0][0], np.concatenate([decoder.decode(body)[0] for body in bodies]))


def test_halves_of_a_body_do_not_make_a_whole() -> None:
    decoder = codec(FLOATS)
    victim = b'{"data": [[7,8,9]]}'
    for between in (b"", b",", b";"):
        rest = b'{"data": [[1,2,3]]}' + between + victim
        assert decoder.decode_together([b'{"data": [[1,2', b",3]]}", victim, rest]) is None


def test_requests_of_several_inputs_are_stacked_by_name() -> None:
    decoder = codec(*MASKED)
    bodies = [
        json.dumps({"inputs": {"mask": [[1, 1]], "ids": [[5, 6]]}}).encode(),
        json.dumps({"inputs": {"ids": [[7, 8], [9, 10]], "mask": [[1, 0], [1, 1]]}}).encode(),
    ]
    together = decoder.decode_together(bodies)
    assert together is not None
    arrays, counts = together
    assert counts == [1, 2]
    np.testing.assert_array_equal(arrays[0], [[5, 6], [7, 8], [9, 10]])
    np.testing.assert_array_equal(arrays[1], [[1, 1], [1, 0], [1, 1]])


def test_lengths_that_differ_are_not_stacked() -> None:
    bodies = [json.dumps({"inputs": {"ids": [[1] * n], "mask": [[1] * n]}}).encode() for n in (2, 3)]
    assert codec(*MASKED).decode_together(bodies) is None


@given(
    rows=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    inner=st.sampled_from([(), (1,), (4,), (2, 3), (2, 0)]),
    dtype=st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]),
    seed=st.integers(0, 1000),
)
def test_answers_encoded_together_are_the_answers_encoded_alone(
    rows: list[int], inner: tuple[int, ...], dtype: str, seed: int
) -> None:
    outputs: list[Output] = [Tensor("100% sure", BY_NAME[dtype], ("N", *inner)), Tensor("n", BY_NAME["int64"], ("N",))]
    encoder = codec(FLOATS, outputs=outputs)
    total = sum(rows)
    values = np.random.default_rng(seed).normal(0, 30, (total, *inner)).astype(dtype)
    labels = np.arange(total)

    bodies = encoder.encode_apart([values, labels], rows)

    assert bodies is not None
    ends = np.cumsum(rows)
    for body, end, count in zip(bodies, ends, rows, strict=True):
        part = [values[end - count : end], labels[end - count : end]]
        assert json.loads(body) == json.loads(encoder.encode(part))


def test_numbers_that_json_does_not_have_are_encoded_one_by_one() -> None:
    assert codec(FLOATS).encode_apart([np.array([[1.0, np.nan]], np.float32)], [1]) is None
