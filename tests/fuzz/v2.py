"""onnx/codecs/v2.py: any bytes as requests of the Open Inference Protocol to models of several kinds.

- A body is decoded to the arrays that a slow reader (json, struct and numpy) finds, or refused with BadInputError.
- It comes to the same whether its JSON is small or large, and whether the body is bytes or a read-only view.
- What is decoded can be answered, and the answer reads back.
"""

import json
import math
import struct
from functools import lru_cache
from typing import Any

import numpy as np

from scoring_runtime.onnx.codecs.v2 import LARGE_BYTES, InferenceCodec, encode_error
from scoring_runtime.onnx.dtypes import BY_NAME, Array, bfloat16_values
from scoring_runtime.onnx.tensors import BadInputError, Tensor

from .codecs import MODELS, read_json, refuse, same
from .draw import Draw

TOKENS = (
    *(
        b'{"inputs":[',
        b'{"name":"x"',
        b'"datatype":"FP32"',
        b'"shape":[1,2]',
        b'"data":[1,2]',
        b'"data":[[1,2]]',
        b"]}",
    ),
    *(
        b'"parameters":{"binary_data_size":8}',
        b'"outputs":[{"name":"n"}]',
        b'"id":"["',
        b'"binary_data":true',
        b"[",
        b"]",
    ),
    *(
        b"null",
        b"NaN",
        b"-1",
        b"4294967295",
        b"1e39",
        b"9223372036854775807",
        b'"x":',
        b"\x00\x00\x00\x00",
        b"0",
        b"true",
    ),
)


def seed(model: int, document: Any, tail: bytes = b"", *, with_header: bool = False) -> bytes:
    """An input for `check`: model, size of the JSON object or 65535 for no header, then the body."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    size = len(text) if tail or with_header else 0xFFFF
    return bytes([model]) + size.to_bytes(2, "little") + text + tail


def _x(datatype: str, shape: list[int], data: Any = None, size: int | None = None, name: str = "x") -> dict[str, Any]:
    fields = {"name": name, "datatype": datatype, "shape": shape}
    return {**fields, **({"data": data} if size is None else {"parameters": {"binary_data_size": size}})}


SEEDS = (
    seed(0, {"inputs": [_x("FP32", [2, 2], [1, 2.5, 3, 4])]}),
    seed(0, {"inputs": [_x("FP32", [2, 2], [[1, 2.5], [3, 4]])], "id": "a[", "outputs": [{"name": "n"}]}),
    seed(0, {"inputs": [_x("FP32", [1, 2], size=8)], "parameters": {"binary_data_output": True}}, b"\0" * 8),
    seed(0, {"inputs": [_x("FP32", [2, 2], [[1, 2, 3], [4]])]}),
    seed(1, {"inputs": [_x("INT64", [1, 2], [1, -9223372036854775808])]}),
    seed(2, {"inputs": [_x("UINT8", [1, 3], size=3)]}, b"abc"),
    seed(4, {"inputs": [_x("FP16", [1, 2, 2], size=8)]}, b"\xff" * 8),
    seed(6, {"inputs": [_x("FP32", [1, 0, 2], [])]}, with_header=True),
    seed(7, {"inputs": [_x("FP32", [], [5])]}),
    seed(8, {"inputs": [_x("BOOL", [2], size=2)]}, b"\x01\x02"),
    seed(9, {"inputs": [_x("BYTES", [1, 2], size=11)]}, b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"),
    seed(9, {"inputs": [_x("BYTES", [1, 2], ["a", "é"])]}),
    seed(10, {"inputs": [_x("FP32", [1, 2], size=8, name="b"), _x("INT64", [1, 1], [7], name="a")]}, b"\0" * 8),
    seed(10, {"inputs": [_x("INT64", [1, 1], size=8, name="a"), _x("FP32", [1, 2], size=8, name="b")]}, b"\1" * 16),
)


@lru_cache
def codec_of(number: int) -> InferenceCodec:
    inputs = [Tensor(name, BY_NAME[dtype], shape) for name, dtype, shape in MODELS[number]]
    outputs = [Tensor("y%", BY_NAME["float32"], ("N", 2)), Tensor("n", BY_NAME["string"], ("N",))]
    return InferenceCodec(inputs, outputs, "m")


def check(data: bytes) -> None:
    draw = Draw(data)
    number = draw.below(len(MODELS))
    size = draw.number(2)
    body = draw.rest()
    codec = codec_of(number)
    outcomes = [decode(codec, head_of(size), body), decode(codec, head_of(size), memoryview(body))]
    if size == 0xFFFF:
        outcomes.append(decode(codec, head_of(size), body + b" " * LARGE_BYTES))
    elif 0 < size <= len(body):
        larger = size + LARGE_BYTES
        outcomes.append(decode(codec, head_of(larger), body[:size] + b" " * LARGE_BYTES + body[size:]))
    expected: Any = None
    why = ""
    try:
        expected = read_slowly(MODELS[number], None if size == 0xFFFF else size, body)
    except ValueError as error:
        why = str(error)
    for outcome in outcomes:
        if expected is None:
            assert isinstance(outcome, str), f"accepted, against: {why}"
        else:
            assert not isinstance(outcome, str), outcome
            assert same(outcome, expected), "decoded to something else"


def head_of(size: int) -> bytes:
    return b"/v2" if size == 0xFFFF else b"/v2\nInference-Header-Content-Length: %d" % size


def decode(codec: InferenceCodec, head: bytes, body: Any) -> tuple[Array, ...] | str:
    try:
        arrays, form = codec.decode(head, body)
    except BadInputError as error:
        return json.loads(encode_error(str(error)))["error"]  # type: ignore[no-any-return]
    floats = np.array([[1.5, np.nan]], np.float32)
    reply_head, reply = form.encode([floats, np.array(["é"], object)])
    size = int(reply_head.rpartition(b" ")[2]) if reply_head else len(reply)
    document = json.loads(reply[:size])
    blobs = sum(output.get("parameters", {}).get("binary_data_size", 0) for output in document["outputs"])
    assert size + blobs == len(reply)
    assert {output["name"] for output in document["outputs"]} <= {"y%", "n"}
    return arrays


def read_slowly(model: Any, size: int | None, body: bytes) -> tuple[Array, ...]:
    """The arrays of a request; ValueError when it is wrong."""
    if size is not None and not 0 < size <= len(body):
        refuse("the header")
    document = read_json(body if size is None else body[:size])
    rest = b"" if size is None else body[size:]
    if type(document) is not dict or type(document.get("inputs")) is not list:
        refuse("no list of inputs")
    _check_wishes(document)
    declared = {name: (BY_NAME[dtype], shape) for name, dtype, shape in model}
    arrays = {}
    for fields in document["inputs"]:
        if type(fields) is not dict or type(fields.get("name")) is not str or fields["name"] not in declared:
            refuse("an unknown input")
        if fields["name"] in arrays:
            refuse("twice")
        arrays[fields["name"]], rest = _read_input(fields, *declared[fields["name"]], rest, binary=size is not None)
    if arrays.keys() != declared.keys():
        refuse("missing inputs")
    if rest:
        refuse("bytes behind")
    return tuple(arrays[name] for name, *_ in model)


def _parameters(fields: dict[str, Any], *flags: str) -> dict[str, Any]:
    parameters = fields.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict or {"classification", "shared_memory_region", "sequence_id", "timeout"} & set(
        parameters
    ):
        refuse("parameters")
    if any(type(parameters.get(flag, True)) is not bool for flag in flags):
        refuse("a flag")
    return parameters


def _check_wishes(document: dict[str, Any]) -> None:
    _parameters(document, "binary_data_output")
    if "id" in document and type(document["id"]) is not str:
        refuse("the id")
    outputs = document.get("outputs")
    if outputs is None:
        return
    if type(outputs) is not list:
        refuse("the outputs")
    names = []
    for each in outputs:
        if type(each) is not dict or each.get("name") not in ("y%", "n"):
            refuse("an output")
        _parameters(each, "binary_data")
        names.append(each["name"])
    if len(set(names)) != len(names):
        refuse("an output twice")


def _read_input(fields: dict[str, Any], dtype: Any, declared: Any, rest: bytes, *, binary: bool) -> tuple[Array, bytes]:
    shape = fields.get("shape")
    if type(shape) is not list or not all(type(each) is int and 0 <= each < 1 << 32 for each in shape):
        refuse("the shape")
    if fields.get("datatype") != dtype.datatype:
        refuse("the datatype")
    if declared is not None and (
        len(declared) != len(shape)
        or any(isinstance(want, int) and want != have for want, have in zip(declared, shape, strict=True))
    ):
        refuse("another shape")
    if shape and not shape[0]:
        refuse("no rows")
    count = math.prod(shape)
    size = _parameters(fields).get("binary_data_size")
    if size is not None:
        if "data" in fields or type(size) is not int or not binary or not 0 <= size <= len(rest):
            refuse("the size")
        return _read_bytes(rest[:size], dtype, count).reshape(shape), rest[size:]
    data = fields.get("data")
    if dtype.datatype in ("FP16", "BF16") or type(data) is not list:
        refuse("the data")
    cells = _flatten(data, shape) if data and type(data[0]) is list and len(shape) > 1 else data
    if len(cells) != count or not all(type(cell) in dtype.json_types for cell in cells):
        refuse("other values")
    if dtype.kind in "iu" and not all(dtype.low <= cell <= dtype.high for cell in cells):
        refuse("out of range")
    if dtype.kind != "f":
        return np.array(cells, dtype.array).reshape(shape), rest
    with np.errstate(over="ignore"):
        array = np.array([float(cell) for cell in cells], np.float64).astype(dtype.array).reshape(shape)
    if not np.isfinite(array).all():
        refuse("out of range")
    return array, rest


def _flatten(data: Any, shape: list[int]) -> list[Any]:
    if not shape:
        return [data]
    if type(data) is not list or len(data) != shape[0]:
        refuse("another shape")
    return [cell for each in data for cell in _flatten(each, shape[1:])]


def _read_bytes(data: bytes, dtype: Any, count: int) -> Array:
    if dtype.kind == "O":
        texts = []
        while data:
            if len(data) < 4:
                refuse("half a length")
            (size,) = struct.unpack_from("<I", data)
            if len(data) < 4 + size:
                refuse("half a string")
            texts.append(data[4 : 4 + size].decode("utf-8"))
            data = data[4 + size :]
        if len(texts) != count:
            refuse("other strings")
        return np.array(texts, object)
    if dtype.name == "bfloat16":
        return bfloat16_values(np.frombuffer(data, np.uint16))
    if len(data) != count * dtype.array.itemsize or (dtype.kind == "b" and not set(data) <= {0, 1}):
        refuse("other bytes")
    return np.array(np.frombuffer(data, dtype.array)) if data else np.empty(0, dtype.array)
