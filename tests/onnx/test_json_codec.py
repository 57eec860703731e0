"""The JSON codec on its own: identity, exact refusal, and never an exception for bytes that clients send."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring_runtime.onnx.codecs.json import LARGE_BYTES, JsonCodec
from scoring_runtime.onnx.dtypes import BY_NAME, TABLE
from scoring_runtime.onnx.tensors import BadInputError, Tensor

SIDES = st.lists(st.integers(1, 5), min_size=0, max_size=4)
NUMERIC = [dtype.name for dtype in TABLE if dtype.kind in "fiu"]


def codec(*shape: int | str | None, dtype: str = "float32", name: str = "x") -> JsonCodec:
    return JsonCodec([Tensor(name, BY_NAME[dtype], shape)], [])


def body_of(value: Any, pad: bool = False) -> bytes:
    """A request. Padded, it is long enough for the way of large bodies."""
    text = json.dumps({"data": value})
    return (text[:-1] + " " * (LARGE_BYTES * pad) + "}").encode()


def read(reader: JsonCodec, value: Any) -> np.ndarray[Any, Any]:
    """What both ways of decoding make of a value: the same."""
    small, large = (reader.decode(body_of(value, pad))[0] for pad in (False, True))
    assert small.dtype == large.dtype
    np.testing.assert_array_equal(small, large)
    assert small.shape == large.shape
    return small


def refusal(reader: JsonCodec, value: Any) -> str:
    texts = []
    for pad in (False, True):
        with pytest.raises(BadInputError) as caught:
            reader.decode(body_of(value, pad))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    return texts[0]


@given(st.sampled_from(NUMERIC), SIDES, st.data())
def test_numbers_survive_both_ways(name, sides, data):
    dtype = BY_NAME[name]
    if dtype.kind == "f":
        cells = st.floats(dtype.low, dtype.high).map(lambda value: float(dtype.array.type(value)))
    else:
        cells = st.integers(int(dtype.low), int(dtype.high))
    size = int(np.prod(sides, dtype=int))
    values = data.draw(st.lists(cells, min_size=size, max_size=size))
    array = np.array(values, dtype.array).reshape(sides)
    reader = codec(*([None] * len(sides)), dtype=name)
    for pad in (b"", b" " * LARGE_BYTES):
        (decoded,) = reader.decode(reader.encode_request([array]) + pad)
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", 2**63 - 1),
        ("int64", -(2**63)),
        ("int64", 2**53 + 1),
        ("uint64", 2**64 - 1),
        ("uint64", 2**53 + 1),
        ("int8", -128),
        ("uint8", 255),
    ],
)
def test_extremes_of_integers_are_exact(dtype, value):
    assert read(codec(None, dtype=dtype), [value, 0]).tolist() == [value, 0]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int8", 300),
        ("int8", -129),
        ("uint8", -1),
        ("uint16", 65536),
        ("int32", 2**31),
        ("int64", 2**63),
        ("uint64", -1),
        ("float32", 3.5e38),
        ("float16", 65520.0),
        ("float32", -1e300),
        ("float16", 10**9),
    ],
)
def test_numbers_out_of_range_are_refused_with_their_place(dtype, value):
    text = refusal(codec(None, None, dtype=dtype), [[1, 2], [3, value]])
    assert f"{json.dumps(value)} at [1][1], which is out of range" in text
    assert f"expects {dtype} [?, ?]" in text


@pytest.mark.parametrize("count", [1, 100])
def test_a_float_that_overflows_is_refused_among_few_and_among_many(count):
    assert "out of range" in refusal(codec(None), [1.0] * count + [1e39])
    assert read(codec(None), [1.0] * count + [3.4e38]).max() == np.float32(3.4e38)


def test_integers_beyond_64_bits_are_no_integers_here():
    for dtype in ("uint64", "int64"):
        assert f"expects {dtype} [?]" in refusal(codec(None, dtype=dtype), [2**64])


def test_integers_are_fine_for_floats_beyond_any_width():
    assert read(codec(None), [1, 2**63, 10**30]).tolist() == [1.0, 2.0**63, float(np.float32(1e30))]


@pytest.mark.parametrize("value", [True, None, "1.5", {}, {"a": 1}])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_what_is_no_number_is_refused(dtype, value):
    word = {bool: "bool", type(None): "null", str: "string", dict: "object"}[type(value)]
    text = refusal(codec(None, 2, dtype=dtype), [[1, 2], [3, value]])
    assert f"expects {dtype} [?, 2]" in text
    assert word in text
    assert "at [1][1]" in text


@pytest.mark.parametrize("value", [1.0, 1.5, 1e3])
def test_floats_are_refused_for_integers(value):
    assert "expects int64 [?]; given: float [1]" in refusal(codec(None, dtype="int64"), [value])


@pytest.mark.parametrize("value", [1, 0.0, "true", None])
def test_only_bools_are_bools(value):
    assert "expects bool [?]" in refusal(codec(None, dtype="bool"), [True, value])


@pytest.mark.parametrize("value", [1, True, None])
def test_only_strings_are_strings(value):
    assert "expects string [?]" in refusal(codec(None, dtype="string"), ["a", value])


def test_bools_and_strings():
    assert read(codec(None, dtype="bool"), [True, False]).tolist() == [True, False]
    words = ["", "é", "a\0b", "😀", "[1,2]", '"']
    assert read(codec(None, dtype="string"), words).tolist() == words


@pytest.mark.parametrize(
    ("rank", "value", "why"),
    [
        (2, [[1, 2], [3, 4, 5], [6]], "lists of length 1 and 3 on axis 1"),
        (2, [[1, 2], [3]], "lists of length 1 and 2 on axis 1"),
        (2, [[1], []], "lists of length 0 and 1 on axis 1"),
        (2, [[], [1]], "lists of length 0 and 1 on axis 1"),
        (2, [[1, 2], 3], "mixes integer and list on axis 1"),
        (2, [3, [1, 2]], "mixes integer and list on axis 1"),
        (2, [[1, [2]], [3, 4]], "mixes integer and list on axis 2"),
        (3, [[[1], [2]], [[3], [4]], [5, 6]], "mixes integer and list on axis 2"),
        (3, [[[1, 2]], [[3, 4], [5, 6]]], "lists of length 1 and 2 on axis 1"),
        (2, [[1, 2, 3], [4], [5, 6, 7, 8, 9]], "lists of length 1 and 5 on axis 1"),
    ],
)
def test_ragged_lists_are_refused(rank, value, why):
    text = refusal(codec(*[None] * rank), value)
    assert "given: a ragged list" in text
    assert why in text


NESTED = st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=4), max_leaves=20)


def is_regular(value: Any, rank: int) -> bool:
    """An independent, recursive judgement."""

    def shape(part: Any) -> tuple[int, ...] | None:
        if not isinstance(part, list):
            return ()
        inner = {shape(each) for each in part}
        if not inner:
            return (0,)
        first = inner.pop()
        return None if inner or first is None else (len(part), *first)

    found = shape(value)
    if found is None:
        return False
    return len(found) == rank or (0 in found and len(found) < rank)


@given(NESTED, st.integers(0, 4))
@example([[1], []], 2)
@example([[], [1]], 2)
@example([[], []], 2)
@settings(max_examples=400)
def test_exactly_the_regular_lists_pass(value, rank):
    reader = codec(*([None] * rank))
    should_pass = is_regular(value, rank) and value != []
    for pad in (False, True):
        try:
            (array,) = reader.decode(body_of(value, pad))
        except BadInputError:
            assert not should_pass
        else:
            assert should_pass
            if array.size:
                assert array.tolist() == value


def test_a_large_ragged_list_that_lacks_no_number_is_refused():
    rows = [[1, 2, 3, 4] for _ in range(1000)]
    rows[500].append(5)
    rows[501].pop()
    assert "a ragged list: lists of length 3 and 5 on axis 1" in refusal(codec(None, None), rows)


def test_a_first_list_that_promises_too_much_costs_no_memory():
    value = [[1] * 2000, *([] for _ in range(200_000))]
    assert "ragged" in refusal(codec(None, None), value)


@pytest.mark.parametrize(
    ("shape", "value", "expected", "given"),
    [
        ((None, 4), [1, 2, 3, 4], "[?, 4]", "integer [4]"),
        ((None, 4), [[1, 2, 3]], "[?, 4]", "integer [1, 3]"),
        (("N", 4), [[[1, 2, 3, 4]]], "[N, 4]", "integer [1, 1, 4]"),
        ((), [1], "[]", "integer [1]"),
        ((None,), 1.5, "[?]", "float []"),
        ((2, None), [[1.5]], "[2, ?]", "float [1, 1]"),
        ((None, 4), [[1, 2.5, 3]], "[?, 4]", "float and integer [1, 3]"),
    ],
)
def test_wrong_shapes_are_refused_with_both_shapes(shape, value, expected, given):
    assert refusal(codec(*shape), value).startswith(f"input 'x' expects float32 {expected}; given: {given}")


def test_no_rows_are_refused():
    assert "given: no rows" in refusal(codec(None, 4), [])


def test_an_empty_axis_that_is_free_passes():
    assert read(codec(None, None), [[], []]).shape == (2, 0)
    assert read(codec(None, None, 3), [[]]).shape == (1, 0, 3)


def test_undeclared_rank_takes_any_regular_list():
    reader = JsonCodec([Tensor("x", BY_NAME["float32"], None)], [])
    for value in (1.5, [1.0], [[1.0], [2.0]], [[[1.0]]]):
        assert read(reader, value).tolist() == value
    assert "ragged" in refusal(reader, [[1], 2])


def test_the_last_of_equal_keys_wins():
    for pad in ("", " " * LARGE_BYTES):
        (array,) = codec(None).decode(f'{{"data": [1], "data": [2, 3]{pad}}}'.encode())
        assert array.tolist() == [2, 3]


def test_one_input_may_be_named():
    (array,) = codec(None).decode(b'{"inputs": {"x": [1]}}')
    assert array.tolist() == [1]


TWO = JsonCodec([Tensor("a", BY_NAME["int64"], (None,)), Tensor("b", BY_NAME["float32"], (None, 2))], [])


@pytest.mark.parametrize("pad", ["", " " * LARGE_BYTES])
def test_several_inputs_come_in_the_models_order(pad):
    a, b = TWO.decode(f'{{"inputs": {{"b": [[1, 2]], "a": [3]}}{pad}}}'.encode())
    assert (a.tolist(), b.tolist()) == ([3], [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"inputs": {"a": [1]}}, "missing inputs: 'b'"),
        ({"inputs": {"a": [1], "b": [[1, 2]], "c": 1}}, "unknown inputs: 'c'"),
        ({"inputs": {"a": [1], "B": [[1, 2]]}}, "missing inputs: 'b', unknown inputs: 'B'"),
        ({"inputs": [1]}, '"inputs" is no object'),
        ({"data": [1]}, "the body has the fields 'data'"),
        ({"inputs": {}, "more": 1}, "the body has the fields 'inputs', 'more'"),
        ({}, "the body has the fields none"),
    ],
)
def test_wrong_inputs_are_answered_with_what_is_expected(document, why):
    with pytest.raises(BadInputError) as caught:
        TWO.decode(json.dumps(document).encode())
    assert str(caught.value).startswith(why)
    assert 'send {"inputs": {"a": ..., "b": ...}}' in str(caught.value)
    assert "'a': int64 [?]; 'b': float32 [?, 2]" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'{"data": [1', "not JSON: unexpected end of data at line 1, column"),
        (b'{"data":\n [1,]}', "at line 2, column"),
        (b"data", "not JSON"),
        (b'{"data": [1]} x', "not JSON: unexpected content after document at line 1, column 15"),
        (b'{"data": ["\xff"]}', "not UTF-8: byte 0xff at offset 11"),
        (b'{"data": [NaN]}', "JSON has no NaN"),
        (b'{"data": [Infinity]}', "JSON has no NaN and no Infinity"),
        (b'{"data": [-Infinity]}', "JSON has no NaN and no Infinity"),
        (b'{"data": [1e400]}', "number is infinity"),
        (b"[1, 2]", "no object"),
        (b"1", "no object"),
        (b"null", "no object"),
        (b'"data"', "no object"),
        (b"[" * 100_000, "depth limit"),
        (b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "depth limit"),
        (b'{"data": ' + b"[" * 1000 + b"]" * 1000 + b"}", "given"),
        (b'{"data": ["\\ud800"]}', "not JSON"),
        (b'\xef\xbb\xbf{"data": [1]}', "not JSON"),
    ],
)
def test_bodies_that_are_no_json_of_ours(body, why):
    for padded in (body, body + b" " * LARGE_BYTES):
        with pytest.raises(BadInputError) as caught:
            codec(None).decode(padded)
        assert why in str(caught.value)


@given(st.binary(max_size=200))
@example(b'{"data":[[1,2],[3,4]]}')
def test_garbage_is_refused_or_read_but_never_raises(garbage):
    reader = codec(None, None)
    for body in (garbage, b'{"data":' + garbage + b"}", garbage + b" " * LARGE_BYTES):
        try:
            (array,) = reader.decode(memoryview(body))
        except BadInputError:
            continue
        assert array.ndim == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "inputs", "x", "é"]), inner),
    max_leaves=15,
)


@given(JSON)
def test_any_json_is_refused_or_read_but_never_raises(document):
    reader = codec(None, None)
    for body in (json.dumps(document), json.dumps({"data": document}), json.dumps({"inputs": {"x": document}})):
        outcomes = []
        for padded in (body.encode(), body.encode() + b" " * LARGE_BYTES):
            try:
                outcomes.append(reader.decode(padded)[0].tolist())
            except BadInputError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


def test_the_parser_is_ready_again_after_any_refusal():
    reader = codec(None, 2)
    for _ in range(3):
        refusal(reader, [[1, 2], [3]])
        refusal(reader, [[1, "a"]])
        assert read(reader, [[1, 2]]).tolist() == [[1, 2]]
        assert reader._decode_large(body_of([[1, 2]])) is not None


def test_input_names_with_structure_in_them_do_not_confuse():
    tensors = [Tensor(name, BY_NAME["float32"], (None,)) for name in ('a[{,"]', "b\\")]
    reader = JsonCodec(tensors, [])
    arrays = [np.array([1, 2], np.float32), np.array([3], np.float32)]
    for pad in (b"", b" " * LARGE_BYTES):
        a, b = reader.decode(reader.encode_request(arrays) + pad)
        assert (a.tolist(), b.tolist()) == ([1, 2], [3])


OUT = JsonCodec([], [Tensor("y", BY_NAME["float32"], ("N", 2)), Tensor("s", BY_NAME["string"], ("N",))])


def test_outputs_that_are_not_finite_are_never_null():
    array = np.array([[np.nan, np.inf], [-np.inf, 1.5]], np.float32)
    body = OUT.encode([array, np.array(["a", "null"], object)])
    assert b"null" not in body.replace(b'"null"', b"")
    assert b"[[NaN,Infinity],[-Infinity,1.5]]" in body
    np.testing.assert_array_equal(json.loads(body)["outputs"]["y"], array)
    assert json.loads(body)["outputs"]["s"] == ["a", "null"]


@given(st.lists(st.floats(width=32), min_size=2, max_size=2))
def test_floats_reparse_closely(row):
    array = np.array([row], np.float32)
    back = json.loads(OUT.encode([array, np.array(["é"], object)]))
    np.testing.assert_allclose(np.array(back["outputs"]["y"], np.float32), array, rtol=1e-6)
    assert back["outputs"]["s"] == ["é"]


def test_what_orjson_does_not_know_is_encoded_as_well():
    half = Tensor("h", BY_NAME["float16"], (None,))
    scalar = Tensor("y", BY_NAME["float32"], None)
    body = JsonCodec([], [half, scalar]).encode([np.array([0.5], np.float16), np.array(2.5, np.float32)])
    assert json.loads(body) == {"outputs": {"h": [0.5], "y": 2.5}}
