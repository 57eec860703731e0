"""Bodies in slices: what is taken is what a slow reader finds, whatever the slices' size; what is not regular is never taken."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
import simdjson
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.onnx.codecs import slices
from scoring_runtime.onnx.codecs.json import SLICED_BYTES, JsonCodec
from scoring_runtime.onnx.codecs.nested import to_array
from scoring_runtime.onnx.dtypes import BY_NAME, Array
from scoring_runtime.onnx.tensors import BadInputError, Tensor

DTYPES = ["float32", "float64", "float16", "int64", "int8", "uint8", "uint64"]
STYLES = [(",", ":"), (", ", ": "), (" , ", " : "), None]
SIZES = [(8, 0), (16, 0), (40, 0), (8, 10**6), (24, 10**6), (64, 10**6), (100, 24), (1 << 17, 0), (1 << 17, 10**6)]
"""Bytes of slices, and of rows that count as long."""

PARSER = simdjson.Parser()


def read(body: bytes, inputs: list[Tensor], slice_bytes: int = 16, long_row_bytes: int = 0) -> dict[str, Array] | None:
    return slices.decode(memoryview(body), {each.name: each for each in inputs}, PARSER, slice_bytes, long_row_bytes)


def read_slowly(body: bytes, inputs: list[Tensor]) -> dict[str, Array] | None:
    try:
        document = orjson.loads(body)
        ((form, value),) = document.items()
        values = {inputs[0].name: value} if form == "data" and len(inputs) == 1 else value
        if form not in ("data", "inputs") or values.keys() != {each.name for each in inputs}:
            return None
        return {each.name: to_array(values[each.name], each) for each in inputs}
    except (orjson.JSONDecodeError, ValueError, AttributeError, BadInputError):
        return None


def assert_same(found: dict[str, Array], expected: dict[str, Array] | None) -> None:
    assert expected is not None
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Tensor], bytes]:
    """The inputs of a model, and a regular body for it."""
    inputs = []
    values = {}
    for number in range(draw(st.integers(1, 3))):
        dtype = BY_NAME[draw(st.sampled_from(DTYPES))]
        shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
        free = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        if dtype.kind == "f":
            cells = st.floats(-60000, 60000).map(lambda cell: round(cell, 3)) | st.sampled_from([-0.0, 0.0, 7, 1e-9])
        else:
            cells = st.integers(int(dtype.low), int(dtype.high)) | st.integers(0, 20)
        size = int(np.prod(shape))
        flat = draw(st.lists(cells, min_size=size, max_size=size))
        name = f"é{number}"
        inputs.append(
            Tensor(name, dtype, tuple(None if any_ else side for any_, side in zip(free, shape, strict=True)))
        )
        values[name] = np.array(flat, object).reshape(shape).tolist()
    document = {"data": values["é0"]} if len(inputs) == 1 and draw(st.booleans()) else {"inputs": values}
    style = draw(st.sampled_from(STYLES))
    text = json.dumps(document, ensure_ascii=False, separators=style, indent=None if style else 1)
    return inputs, text.encode()


@given(requests(), st.sampled_from(SIZES))
@settings(max_examples=300)
def test_what_is_taken_is_what_a_slow_reader_finds(request: tuple[list[Tensor], bytes], sizes: tuple[int, int]) -> None:
    inputs, body = request
    found = read(body, inputs, *sizes)
    if found is not None:
        assert_same(found, read_slowly(body, inputs))


@given(requests(), st.sampled_from(SIZES), st.data())
@settings(max_examples=1000)
def test_what_has_been_tampered_with_is_taken_only_if_it_is_still_right(
    request: tuple[list[Tensor], bytes], sizes: tuple[int, int], data: st.DataObject
) -> None:
    inputs, body = request
    text = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        marks = [place for place, character in enumerate(text) if character in b"[],"] or [0]
        place = data.draw(st.sampled_from(marks))
        what = data.draw(st.sampled_from(["delete", "insert", "swap", "move"]))
        other = min(max(place + data.draw(st.integers(-12, 12)), 0), len(text) - 1)
        if what == "insert":
            text[other:other] = data.draw(
                st.sampled_from([b"[", b"]", b",", b"1", b" ", b"-", b'"', b"{}", b"[],", b"n"])
            )
        elif what == "swap":
            text[place], text[other] = text[other], text[place]
        else:
            taken = text[place : place + 1]
            del text[place]
            if what == "move":
                text[other:other] = taken
    found = read(bytes(text), inputs, *sizes)
    if found is not None:
        assert_same(found, read_slowly(bytes(text), inputs))


FLOATS = BY_NAME["float32"]


@pytest.mark.parametrize("style", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((500,), (64, 0)),
        ((40, 50), (64, 0)),
        ((40, 5), (128, 0)),
        ((40, 5), (128, 10**6)),
        ((40, 1), (128, 10**6)),
        ((1, 500), (64, 0)),
        ((3, 5, 7), (256, 0)),
        ((2, 3, 1, 4, 5), (200, 0)),
    ],
)
def test_what_programs_write_is_taken(shape: tuple[int, ...], sizes: tuple[int, int], style: tuple[str, str]) -> None:
    tensors = [Tensor(name, FLOATS, (None,) * len(shape)) for name in ("x", "y")]
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for names in ("x",), ("x", "y"):
        document = {"inputs": dict.fromkeys(names, array.tolist())}
        found = read(json.dumps(document, separators=style).encode(), tensors[: len(names)], *sizes)
        assert found is not None
        assert_same(found, dict.fromkeys(names, array))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("rank", "value"),
    [
        (2, "[[1,2,[3]],4]"),
        (2, "[[1],2,[3,4]]"),
        (2, "[[1,2],3[,4]]"),
        (2, "[[1,2],3,[4]]"),
        (2, "[[1,2][,3,4]]"),
        (2, "[[1,2[,]3,4]]"),
        (2, "[[1,2],[3],[4,5,6]]"),
        (2, "[[1,2],[3,4],]"),
        (2, "[[1,2],[3,]]"),
        (2, "[[1,2],[,3]]"),
        (2, "[[1,2] [3,4]]"),
        (2, "[[1,2],[3,4]"),
        (2, "[[1,2],[3,4]]]"),
        (2, "[[1,2],[3,4]],1"),
        (2, "[[1,2],[3,true]]"),
        (2, '[[1,2],["3",4]]'),
        (2, "[[1,2],[{},4]]"),
        (2, "[[1,2],[]]"),
        (2, "[[],[1,2]]"),
        (2, "[[],[]]"),
        (2, "[[1,2],[01,4]]"),
        (2, "[[1,2],[3 4,5]]"),
        (2, "[[1,2],[3,1e39]]"),
        (2, "[[[1],2],[3,4]]"),
        (2, "[[[1,2],[3,4]]]"),
        (1, "[1,2,]"),
        (1, "[]"),
        (1, "[ ]"),
        (1, "[,1]"),
        (1, "[1,[2],3]"),
        (1, "[1,,2]"),
        (3, "[[[1,2]],[[3,4],[5,6]]]"),
        (3, "[[[1,2],[3,4]],[[5,6]]]"),
        (3, "[[[1,2],[3,4]],[5,6]]"),
        (3, "[[[1,[2]],[[3,4]]]"),
        (3, "[[[1,2]],[3,4]],[[5,6]]]"),
    ],
)
def test_what_is_not_regular_is_never_taken(rank: int, value: str, sizes: tuple[int, int]) -> None:
    inputs = [Tensor("x", FLOATS, (None,) * rank)]
    for padded in (value, value.replace(",", ", "), value.replace("2", "2" + "0" * 30), value.replace("1", "1" * 15)):
        body = b'{"data":%b}' % padded.encode()
        assert read(body, inputs, *sizes) is None
        assert JsonCodec(inputs, [])._decode_whole(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[[1,2]]',
        b'{"data":[[1,2]]}}',
        b'{"data":[[1,2]]} x',
        b'{"data":[[1,2]],"data":[[1,2]]}',
        b'{"data":[[1,2]],}',
        b'{"inputs":{"x":[[1,2]],"x":[[1,2]]}}',
        b'{"inputs":{"x":[[1,2]]}',
        b'{"inputs":{"y":[[1,2]]}}',
        b'{"inputs":{}}',
        b'\x0b{"data":[[1,2]]}',
        b'{"data":',
        b"",
    ],
)
def test_what_is_around_the_values_counts(body: bytes) -> None:
    assert read(body, [Tensor("x", FLOATS, (None, 2))]) is None


def test_the_shape_must_be_the_declared_one() -> None:
    body = b'{"data":[[1,2],[3,4]]}'
    shapes: list[tuple[tuple[int | str | None, ...], bool]] = [
        ((None, 2), True), ((2, "N"), True), ((None, 3), False), ((1, 2), False), ((4,), False)
    ]  # fmt: skip
    for shape, taken in shapes:
        assert (read(body, [Tensor("x", FLOATS, shape)]) is not None) is taken


@pytest.mark.parametrize("shape", [(3, 64, 1024), (40_000, 5), (1, 200_000)])
def test_a_large_body_is_read_where_it_lies_and_nothing_of_it_is_kept(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    body = bytearray(orjson.dumps({"data": array}, option=orjson.OPT_SERIALIZE_NUMPY))
    assert len(body) >= SLICED_BYTES
    codec = JsonCodec([Tensor("x", FLOATS, ("N", *shape[1:]))], [])
    with memoryview(body).toreadonly() as view:
        assert slices.decode(view, codec._by_name, codec._parser) is not None
        (found,) = codec.decode(view)
    body[:] = b"0"  # raises when anybody still looks at it
    np.testing.assert_array_equal(found, array)


def test_a_large_body_that_is_wrong_is_refused_with_its_place() -> None:
    cells: list[list[Any]] = [[0.25] * 100 for _ in range(3000)]
    cells[2000][7] = True
    codec = JsonCodec([Tensor("x", FLOATS, ("N", 100))], [])
    body = json.dumps({"data": cells}).encode()
    assert len(body) > SLICED_BYTES
    with pytest.raises(BadInputError, match=r"true at \[2000\]\[7\]"):
        codec.decode(body)


def test_numbers_that_become_shorter_find_room() -> None:
    cells = [0.1234567890123456] * 200 + [1.0] * 4000
    for shape in ((1, 4200), (42, 100), (420, 10), (1, 42, 100)):
        value = np.array(cells).reshape(shape)
        found = read(
            json.dumps({"data": value.tolist()}).encode(), [Tensor("x", FLOATS, (None,) * len(shape))], 400, 10
        )
        assert found is not None
        assert_same(found, {"x": value.astype(np.float32)})
