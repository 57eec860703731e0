"""onnx/codecs: any bytes as bodies of requests to models of several kinds, and any arrays as their answers.

- A body is decoded to the arrays that a slow reader (json and numpy) finds, or refused with BadInputError.
- It comes to the same whether a body is small or large, alone or one of a frame; in slices, when it is taken.
- What is encoded reads back; what is encoded together is what would have been encoded alone.
"""

import json
import math
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from scoring_runtime.onnx.codecs import slices
from scoring_runtime.onnx.codecs.json import LARGE_BYTES, JsonCodec, encode_error
from scoring_runtime.onnx.dtypes import BY_NAME, Array
from scoring_runtime.onnx.tensors import BadInputError, Tensor

from .draw import Draw

MODELS: tuple[tuple[tuple[str, str, tuple[int | str | None, ...] | None], ...], ...] = (
    (("x", "float32", ("N", 2)),),
    (("x", "int64", ("N", 2)),),
    (("x", "uint8", ("N", None)),),
    (("x", "float64", (None, 1)),),
    (("x", "float16", (None, 2, 2)),),
    (("x", "uint64", ("N", 1)),),
    (("x", "float32", None),),
    (("x", "float32", ()),),
    (("x", "bool", ("N",)),),
    (("x", "string", ("N", 2)),),
    (("a", "int64", ("N", "S")), ("b", "float32", ("N", 2))),
    (('q"[', "int8", ("N",)), ("é{,", "string", None)),
)
BETWEEN = b"\xfe"
"""Stands between the bodies of a frame. It is no UTF-8, so a body that holds it would be none."""

TOKENS = (
    *(b'{"data":', b'{"data": [[', b"]]}", b'{"inputs":', b'"x":', b'"a":', b'"b":', b"[[1,2]]", b"[[1,2],[3,4]]"),
    *(b"null", b"true", b"NaN", b"-0", b"-0.0", b"1e400", b"1e39", b"65520", b"9223372036854775808", b"1E+2", b"0.1"),
    *(b"18446744073709551616", b"-9223372036854775809", b'"\\ud800"', b'"\\u0000"', b"\xfe", b"[]", b"{}", b"01"),
)


def seed(model: int, *bodies: bytes) -> bytes:
    """An input for `check`."""
    return bytes([model]) + BETWEEN.join(bodies)


SEEDS = (
    *(seed(0, *[b'{"data": [[%d,2.5]]}' % number for number in range(4)]), seed(0, b'{"data":[[1,2],[3,4]]}')),
    seed(0, b'{"data": [[7,8]]}', b'{"data": [[1,2]]},{"data": [[3,4]]}', b'{"data": [[9,9]]}'),
    seed(0, b'{"data": [[7,8]]}', b'{"data": [[1,2', b"3,4]]}", b'{"data": [[9,9]]}'),
    *(
        seed(0, b'{"data": [[1,2],[3],[4,5,6]]}'),
        seed(0, b'{"data": [[1,2],[3,4e39]]}'),
        seed(0, b'{"data": [[1,[2]]]}'),
    ),
    *(seed(1, b'{"data": [[1,-9223372036854775808]]}', b'{"data": [[1, 2],\n[3, 4]]}'), seed(1, b'{"data":[[1.0,2]]}')),
    *(seed(2, b'{"data": [[1,2,255]]}', b'{"inputs": {"x": [[256]]}}'), seed(3, b'{"data":[[1e308],[1e-400]]}')),
    *(seed(4, b'{"data":[[[1,2],[3,65504]]]}'), seed(5, b'{"data": [[18446744073709551615]]}', b'{"data":[[-1]]}')),
    *(seed(6, b'{"data": 1.5}'), seed(6, b'{"data": [[[1]]]}'), seed(7, b'{"data": 2}'), seed(7, b'{"data": [2]}')),
    *(
        seed(8, b'{"data": [true,false]}'),
        seed(9, b'{"data": [["a","\\u00e9"]]}'),
        seed(9, b'{"data":[["\\ud800",""]]}'),
    ),
    seed(10, b'{"inputs": {"b": [[1,2]], "a": [[3]]}}', b'{"inputs":{"a":[[1,2]],"b":[[1,2]]}}'),
    seed(11, b'{"inputs": {"q\\"[": [1], "\\u00e9{,": [["x"]]}}'),
    *(
        seed(0, b'{"data": [[1,2]], "data": [[3,4]]}'),
        seed(0, b""),
        seed(0, b'{"data": ' + b"[" * 300 + b"]" * 300 + b"}"),
    ),
)


@lru_cache
def codec_of(number: int) -> JsonCodec:
    inputs = [Tensor(name, BY_NAME[dtype], shape) for name, dtype, shape in MODELS[number]]
    return JsonCodec(inputs, [Tensor("y%", BY_NAME["float32"], ("N", 2)), Tensor("n", BY_NAME["int64"], ("N",))])


def check(data: bytes) -> None:
    draw = Draw(data)
    number = draw.below(len(MODELS))
    bodies = draw.rest().split(BETWEEN)
    codec = codec_of(number)
    decoded = [check_body(codec, MODELS[number], body) for body in bodies[:8]]
    if len(bodies) > 1:
        check_together(codec, bodies[:8], decoded)
    check_answers(codec, data)


def check_body(codec: JsonCodec, model: Any, body: bytes) -> tuple[Array, ...] | None:
    """Decode one body every way; None when it is refused."""
    padded = body + b" " * LARGE_BYTES
    outcomes = [decode(codec, body), decode(codec, padded), decode(codec, memoryview(body))]
    assert same(outcomes[0], outcomes[2])
    sliced = [in_slices(codec, body, *sizes) for sizes in ((8, 0), (24, 1 << 20), (1 << 17, 0))]
    expected: Any = None
    why = ""
    try:
        expected = read_slowly(model, body)
    except ValueError as error:
        why = str(error)
    if expected is None:
        assert isinstance(outcomes[0], str), f"accepted, against: {why}"
        assert isinstance(outcomes[1], str), f"accepted when it is large, against: {why}"
        assert sliced == [None] * len(sliced), f"accepted in slices, against: {why}"
        return None
    assert not isinstance(outcomes[0], str), outcomes[0]
    assert same(outcomes[0], expected), "decoded to something else"
    assert same(outcomes[1], expected), "decoded to something else when it is large"
    assert all(each is None or same(each, expected) for each in sliced), "decoded to something else in slices"
    assert same(decode(codec, codec.encode_request(outcomes[0])), expected), "does not read back"
    return outcomes[0]


def in_slices(codec: JsonCodec, body: bytes, slice_bytes: int, long_row_bytes: int) -> tuple[Array, ...] | None:
    if not codec._all_buffers:
        return None
    arrays = slices.decode(memoryview(body), codec._by_name, codec._parser, slice_bytes, long_row_bytes)
    return None if arrays is None else tuple([arrays[tensor.name] for tensor in codec._inputs])


def decode(codec: JsonCodec, body: Any) -> tuple[Array, ...] | str:
    try:
        return codec.decode(body)
    except BadInputError as error:
        text = str(error)
    assert json.loads(encode_error(text)) == {"message": text}
    return text


def same(left: Any, right: Any) -> bool:
    """Exactly: the sign of zero too."""
    if isinstance(left, str) or isinstance(right, str):
        return bool(left == right)
    return len(left) == len(right) and all(
        one.dtype == other.dtype
        and one.shape == other.shape
        and (one.tolist() == other.tolist() if one.dtype == object else one.tobytes() == other.tobytes())
        for one, other in zip(left, right, strict=True)
    )


def check_together(codec: JsonCodec, bodies: list[bytes], decoded: list[Any]) -> None:
    """A frame is decoded as its bodies are, or declined."""
    together = codec.decode_together(bodies)
    if together is None:
        return
    arrays, rows = together
    assert all(each is not None for each in decoded), "a body that is wrong by itself was accepted among others"
    assert len(rows) == len(bodies)
    first = 0
    for count, alone in zip(rows, decoded, strict=True):
        assert same([array[first : first + count] for array in arrays], alone), "decoded to something else among others"
        first += count
    assert all(len(array) == first for array in arrays)


def read_slowly(model: Any, body: bytes) -> tuple[Array, ...]:
    """The arrays that a body spells, by json and numpy; ValueError when it spells none."""
    document = read_json(body)
    if type(document) is not dict or len(document) != 1:
        refuse("no object of one field")
    values: Any
    if "data" in document and len(model) == 1:
        values = {model[0][0]: document["data"]}
    else:
        values = document.get("inputs")
        if type(values) is not dict or set(values) != {name for name, *_ in model}:
            refuse("other inputs")
    return tuple(_array(values[name], BY_NAME[dtype], shape) for name, dtype, shape in model)


def read_json(body: bytes) -> Any:
    """The value that is written; ValueError when it is not JSON."""
    text = body.decode("utf-8")
    if text.startswith("\ufeff"):
        refuse("a mark of byte order")
    try:
        document = json.loads(text, parse_constant=refuse, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        refuse("too deep")
    _refuse_surrogates(document)
    return document


def refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        refuse("a number without end")
    return number


def _integer(text: str) -> int | float:
    """Beyond 64 bits, orjson takes an integer for a float."""
    number = int(text) if len(text) < 4000 else _finite(text)
    return number if -(1 << 63) <= number < 1 << 64 else _finite(text)


def _refuse_surrogates(value: Any) -> None:
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def _array(value: Any, dtype: Any, shape: Any) -> Array:
    def sizes_of(part: Any, axis: int) -> tuple[int, ...]:
        if shape is not None and axis == len(shape):
            return ()
        if type(part) is not list:
            if shape is not None:
                refuse("too few axes")
            return ()
        inner = {sizes_of(each, axis + 1) for each in part}
        if len(inner) > 1:
            refuse("ragged")
        if not inner:
            rest = shape[axis + 1 :] if shape is not None else ()
            return (0, *(size if isinstance(size, int) else 0 for size in rest))
        return (len(part), *inner.pop())

    def cells_of(part: Any, axes: int) -> list[Any]:
        return [part] if not axes else [cell for each in part for cell in cells_of(each, axes - 1)]

    sizes = sizes_of(value, 0)
    if sizes and not sizes[0]:
        refuse("no rows")
    for declared, size in zip(shape if shape is not None else sizes, sizes, strict=True):
        if isinstance(declared, int) and declared != size:
            refuse("another size")
    cells = [] if 0 in sizes else cells_of(value, len(sizes))
    for cell in cells:
        if type(cell) not in dtype.json_types:
            refuse("another type")
        if dtype.kind in "iu" and not dtype.low <= cell <= dtype.high:
            refuse("out of range")
    if dtype.kind != "f":
        return np.array(cells, dtype.array).reshape(sizes)
    with np.errstate(over="ignore"):
        array = np.array([float(cell) for cell in cells], np.float64).astype(dtype.array).reshape(sizes)
    if not np.isfinite(array).all():
        refuse("out of range")
    return array


def check_answers(codec: JsonCodec, data: bytes) -> None:
    """Any floats and integers as answers of two outputs."""
    rows = min(6, len(data) // 16)
    if not rows:
        return
    floats = np.frombuffer(data[: rows * 8], np.float32).reshape(rows, 2)
    integers = np.frombuffer(data[rows * 8 : rows * 16], np.int64)
    counts = [1] * (rows - rows // 2) + ([rows // 2] if rows > 1 else [])
    bodies = codec.encode_apart([floats, integers], counts)
    first = 0
    for number, count in enumerate(counts):
        part = slice(first, first + count)
        first += count
        alone = codec.encode([floats[part], integers[part]])
        outputs = json.loads(alone)["outputs"]
        assert outputs["n"] == integers[part].tolist()
        np.testing.assert_array_equal(np.array(outputs["y%"], np.float32), floats[part])
        assert bodies is None or json.loads(bodies[number]) == json.loads(alone)
