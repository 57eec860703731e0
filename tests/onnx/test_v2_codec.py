"""Requests of the Open Inference Protocol to arrays, and outputs to replies: bytes in, bytes out."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scoring_runtime.onnx.codecs import v2
from scoring_runtime.onnx.codecs.binary import to_bytes
from scoring_runtime.onnx.codecs.v2 import InferenceCodec
from scoring_runtime.onnx.dtypes import BY_NAME, TABLE, bfloat16_bits, bfloat16_values
from scoring_runtime.onnx.tensors import BadInputError, Sequential, Tensor

Array = np.ndarray[Any, Any]

TARGET = b"/v2/models/m/infer"
VALUES: dict[str, list[Any]] = {
    "f": [0.5, -2.0, 3.25, 0.0],
    "i": [1, -2, 3, 0],
    "u": [1, 2, 3, 0],
    "b": [True, False, False, True],
    "O": ["a", "", "Zürich", "null"],
}


def tensor(name: str, dtype: str, *shape: Any) -> Tensor:
    return Tensor(name, BY_NAME[dtype], shape)


X = tensor("x", "float32", "N", 2)
CODEC = InferenceCodec([X], [tensor("y", "float32", "N", 2), Sequential("map", "seq(map(int64,float))")], "m")
TWO = InferenceCodec(
    [tensor("a", "int64", "N"), tensor("b", "string", "N", None)],
    [tensor("c", "int64", "N"), tensor("d", "float32", "N", 2), tensor("e", "string", "N")],
    "two",
)
GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
BINARY = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}


def message(document: Any, *blobs: bytes, header_bytes: Any = None) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    if not blobs and header_bytes is None:
        return TARGET, text
    size = len(text) if header_bytes is None else header_bytes
    return TARGET + b"\nInference-Header-Content-Length: %s" % str(size).encode(), text + b"".join(blobs)


def read(head: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A reply's JSON, and the bytes of its binary outputs."""
    if not head:
        return json.loads(body), {}
    lines = dict(line.split(": ") for line in head.decode().split("\n"))
    assert lines["content-type"] == "application/octet-stream"
    size = int(lines["Inference-Header-Content-Length"])
    document = json.loads(body[:size])
    blobs = {}
    for output in document["outputs"]:
        if "parameters" in output:
            end = size + output["parameters"]["binary_data_size"]
            blobs[output["name"]] = body[size:end]
            size = end
    assert size == len(body)
    return document, blobs


def refusal(codec: InferenceCodec, head: bytes, body: bytes) -> str:
    with pytest.raises(BadInputError) as refused:
        codec.decode(head, body)
    text = str(refused.value)
    assert json.loads(v2.encode_error(text)) == {"error": text}
    return text


# Requests


@pytest.mark.parametrize("dtype", TABLE, ids=lambda dtype: dtype.datatype)
def test_every_type_as_binary(dtype):
    values = np.array(VALUES[dtype.kind], dtype.array).reshape(2, 2)
    codec = InferenceCodec([Tensor("x", dtype, ("N", 2))], [Tensor("y", dtype, ("N", 2))], "m")
    if dtype.kind == "O":
        blob = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in values.ravel())
    else:
        blob = (bfloat16_bits(values) if dtype.name == "bfloat16" else values).tobytes()
    described = {
        "name": "x",
        "datatype": dtype.datatype,
        "shape": [2, 2],
        "parameters": {"binary_data_size": len(blob)},
    }
    request = {"inputs": [described], "parameters": {"binary_data_output": True}}
    (array,), form = codec.decode(*message(request, blob))
    assert array.dtype == dtype.array
    np.testing.assert_array_equal(array, values)
    document, blobs = read(*form.encode([array]))
    assert document["outputs"][0]["datatype"] == dtype.datatype
    assert document["outputs"][0]["shape"] == [2, 2]
    assert blobs == {"y": blob}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", TABLE, ids=lambda dtype: dtype.datatype)
def test_every_type_as_json(dtype, nested, large):
    values = np.array(VALUES[dtype.kind], dtype.array).reshape(2, 2)
    codec = InferenceCodec([Tensor("x", dtype, ("N", 2))], [Tensor("y", dtype, ("N", 2))], "m")
    data = values.tolist() if nested else values.ravel().tolist()
    described = {"name": "x", "datatype": dtype.datatype, "shape": [2, 2], "data": data}
    head, body = message({"inputs": [described]})
    body += b" " * 600 * large
    if dtype.datatype in ("FP16", "BF16"):
        assert "send it as binary" in refusal(codec, head, body)
        return
    (array,), form = codec.decode(head, body)
    assert array.dtype == dtype.array
    np.testing.assert_array_equal(array, values)
    document, _ = read(*form.encode([array]))
    expected = {"name": "y", "datatype": dtype.datatype, "shape": [2, 2], "data": values.ravel().tolist()}
    assert document == {"model_name": "m", "model_version": "1", "outputs": [expected]}


def test_a_binary_input_is_a_view_of_the_body():
    head, body = message({"inputs": [BINARY]}, np.array([1, 2], np.float32).tobytes())
    memory = bytearray(body)
    (array,), _ = CODEC.decode(head, memoryview(memory).toreadonly())
    assert not array.flags.writeable
    memory[-4:] = np.float32(7).tobytes()
    assert array.tolist() == [[1, 7]]


def test_inputs_in_any_order_and_both_forms():
    blob = b"\x01\x00\x00\x00z\x00\x00\x00\x00"
    a = {"name": "a", "datatype": "INT64", "shape": [1], "data": [5]}
    b = {"name": "b", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 9}}
    for inputs in ([a, b], [b, a]):
        arrays, _ = TWO.decode(*message({"inputs": inputs}, blob))
        assert [array.tolist() for array in arrays] == [[5], [["z", ""]]]


@pytest.mark.parametrize("shape", [(), (1,), (2, 0), (3, 2, 1)])
def test_shapes_of_any_rank(shape):
    codec = InferenceCodec([Tensor("x", BY_NAME["int32"], None)], [tensor("y", "int32")], "m")
    array = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    described = {"name": "x", "datatype": "INT32", "shape": shape}
    binary = {**described, "parameters": {"binary_data_size": array.nbytes}}
    for request in (
        message({"inputs": [{**described, "data": array.ravel().tolist()}]}),
        message({"inputs": [binary]}, array.tobytes(), header_bytes=len(json.dumps({"inputs": [binary]}))),
    ):
        (decoded,), form = codec.decode(*request)
        assert decoded.shape == shape
        assert decoded.tolist() == array.tolist()
        document, _ = read(*form.encode([decoded]))
        assert document["outputs"][0]["shape"] == list(shape)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([dtype for dtype in TABLE if dtype.kind in "fiu" and dtype.name != "bfloat16"]))
def test_any_numbers_travel_unchanged_as_binary(data, dtype):
    array = data.draw(hnp.arrays(dtype.array, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))
    codec = InferenceCodec([Tensor("x", dtype, None)], [Tensor("y", dtype, None)], "m")
    described = {
        "name": "x",
        "datatype": dtype.datatype,
        "shape": array.shape,
        "parameters": {"binary_data_size": array.nbytes},
    }
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    (decoded,), form = codec.decode(*message({"inputs": [described], "outputs": outputs}, array.tobytes()))
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()
    assert read(*form.encode([decoded]))[1] == {"y": array.tobytes()}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_strings_travel_unchanged(texts):
    codec = InferenceCodec([tensor("x", "string", "N")], [tensor("y", "string", "N")], "m")
    described = {"name": "x", "datatype": "BYTES", "shape": [len(texts)]}
    (array,), form = codec.decode(*message({"inputs": [{**described, "data": texts}]}))
    assert array.tolist() == texts
    assert read(*form.encode([array]))[0]["outputs"][0]["data"] == texts
    blob = to_bytes(array, BY_NAME["string"])
    binary = {**described, "parameters": {"binary_data_size": len(blob)}}
    (array,), form = codec.decode(
        *message({"inputs": [binary], "parameters": {"binary_data_output": True}}, bytes(blob))
    )
    assert array.tolist() == texts
    assert read(*form.encode([array]))[1] == {"y": blob}


# Replies


def outputs_of(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    a = {"name": "a", "datatype": "INT64", "shape": [1], "data": [5]}
    b = {"name": "b", "datatype": "BYTES", "shape": [1, 1], "data": ["z"]}
    _, form = TWO.decode(*message({"inputs": [a, b], **request}))
    return read(*form.encode([np.array([3]), np.array([[1, 2]], np.float32), np.array(["ü"], object)]))


def test_only_what_was_asked_for_in_that_order():
    document, blobs = outputs_of({"id": "é", "outputs": [{"name": "e"}, {"name": "c"}]})
    assert document["id"] == "é"
    assert document["model_name"] == "two"
    assert [(each["name"], each["data"]) for each in document["outputs"]] == [("e", ["ü"]), ("c", [3])]
    assert not blobs


def test_each_output_may_be_binary_or_not():
    asked = [{"name": "d", "parameters": {"binary_data": False}}, {"name": "e"}, {"name": "c"}]
    document, blobs = outputs_of({"outputs": asked, "parameters": {"binary_data_output": True}})
    assert [each["name"] for each in document["outputs"]] == ["d", "e", "c"]
    assert document["outputs"][0]["data"] == [1, 2]
    assert blobs == {"e": b"\x02\x00\x00\x00\xc3\xbc", "c": np.array([3]).tobytes()}


def test_all_outputs_unless_some_are_named():
    requests: list[dict[str, Any]] = [{}, {"outputs": []}, {"outputs": None}]
    for request in requests:
        assert [each["name"] for each in outputs_of(request)[0]["outputs"]] == ["c", "d", "e"]


def test_what_is_no_finite_number_is_as_in_answers_of_score():
    _, form = CODEC.decode(*message({"inputs": [GOOD], "id": "null"}))
    _, body = form.encode([np.array([[np.nan, -np.inf]], np.float32), []])
    assert b'"data":[NaN,-Infinity]' in body
    assert json.loads(body)["id"] == "null"


def test_an_output_that_is_no_tensor_is_left_out_unless_it_is_asked_for():
    _, form = CODEC.decode(*message({"inputs": [GOOD]}))
    assert [each.tensor.name for each in form.wanted] == ["y"]
    assert "is no tensor" in refusal(CODEC, *message({"inputs": [GOOD], "outputs": [{"name": "map"}]}))


def test_a_half_as_json_is_refused_with_the_cure():
    codec = InferenceCodec([X], [tensor("h", "float16", "N")], "m")
    for asked in ({}, {"outputs": [{"name": "h"}]}):
        assert '"binary_data": true' in refusal(codec, *message({"inputs": [GOOD], **asked}))


def test_metadata():
    assert TWO.describe()["inputs"] == [
        {"name": "a", "datatype": "INT64", "shape": [-1]},
        {"name": "b", "datatype": "BYTES", "shape": [-1, -1]},
    ]
    assert [each["name"] for each in CODEC.describe()["outputs"]] == ["y"]


# Refusals


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"\x1f\x8b\x08", "compressed"),
        ([], "no object"),
        ({}, '"inputs" is no list'),
        ({"inputs": {"x": [1]}}, '"inputs" is no list'),
        ({"inputs": []}, "missing inputs: 'x'"),
        ({"inputs": [5]}, 'no object with a "name"'),
        ({"inputs": [{}]}, 'no object with a "name"'),
        ({"inputs": [{**GOOD, "name": "z"}]}, "unknown input: 'z'; the model's inputs are 'x': FP32 [N, 2]"),
        ({"inputs": [GOOD, GOOD]}, "stands twice"),
        ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "expects FP32 [N, 2]; given: FP64 [1, 2]"),
        ({"inputs": [{**GOOD, "datatype": None}]}, 'no "datatype"'),
        ({"inputs": [{**GOOD, "shape": [2]}]}, "given: FP32 [2]"),
        ({"inputs": [{**GOOD, "shape": [1, 3]}]}, "given: FP32 [1, 3]"),
        ({"inputs": [{**GOOD, "shape": [0, 2], "data": []}]}, "no rows"),
        ({"inputs": [{**GOOD, "shape": [1, True]}]}, 'no "shape"'),
        ({"inputs": [{**GOOD, "shape": [-1, 2]}]}, 'no "shape"'),
        ({"inputs": [{**GOOD, "shape": [1 << 40, 2]}]}, 'no "shape"'),
        ({"inputs": [{**GOOD, "shape": "1,2"}]}, 'no "shape"'),
        ({"inputs": [{**GOOD, "data": [1]}]}, "[1, 2] takes 2 values; given: 1"),
        ({"inputs": [{**GOOD, "data": [1, "a"]}]}, '"a" at [1]'),
        ({"inputs": [{**GOOD, "data": [1, 1e39]}]}, "out of range"),
        ({"inputs": [{**GOOD, "data": [[1], [2]]}]}, "given: integer [2, 1]"),
        ({"inputs": [{**GOOD, "data": 5}]}, 'no "data" that is a list'),
        ({"inputs": [{**GOOD, "data": None}]}, 'no "data" that is a list'),
        ({"inputs": [{**GOOD, "parameters": []}]}, '"parameters" is no object'),
        ({"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"inputs": [BINARY]}, "without the header Inference-Header-Content-Length"),
        ({"inputs": [{**BINARY, "data": [1, 2]}]}, "both"),
        ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 8}}]}, "both"),
        ({"inputs": [GOOD], "id": 5}, '"id" is no text'),
        ({"inputs": [GOOD], "outputs": {}}, '"outputs" is no list'),
        ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, "unknown output: 'z'"),
        ({"inputs": [GOOD], "outputs": [{"name": "y"}] * 2}, "stands twice"),
        ({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}, "classification"),
        ({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "neither true nor false"),
        ({"inputs": [GOOD], "parameters": {"binary_data_output": "yes"}}, "neither true nor false"),
        ({"inputs": [GOOD], "parameters": {"sequence_id": 1}}, "no sequences"),
        ({"inputs": [GOOD], "parameters": {"timeout": 1}}, "x-request-timeout-ms"),
    ],
)
@pytest.mark.parametrize("padding", [0, 600])
def test_what_is_wrong_is_named(document, told, padding):
    head, body = message(document)
    if told != "compressed":
        body += b" " * padding
    assert told in refusal(CODEC, head, body)


@pytest.mark.parametrize(
    ("described", "blob", "header_bytes", "told"),
    [
        (BINARY, b"12345678", 1000, "is 1000, the body has"),
        (BINARY, b"12345678", 0, "is 0"),
        (BINARY, b"12345678", "-1", "not one number"),
        (BINARY, b"12345678", "9" * 5000, "not one number"),
        (BINARY, b"12345678", 20, "not JSON"),
        (BINARY, b"1234567", None, "the body has 7 bytes left for it"),
        (BINARY, b"12345678!", None, "1 bytes follow"),
        (GOOD, b"!", None, "1 bytes follow"),
        ({**BINARY, "parameters": {"binary_data_size": 4}}, b"1234", None, "takes 8 bytes; given: 4"),
        ({**BINARY, "parameters": {"binary_data_size": -8}}, b"1234", None, "is no number of bytes"),
        ({**BINARY, "parameters": {"binary_data_size": True}}, b"1234", None, "is no number of bytes"),
        ({**BINARY, "shape": [2**31, 2]}, b"12345678", None, "takes 17179869184 bytes"),
    ],
)
def test_what_is_wrong_with_binary_inputs_is_named(described, blob, header_bytes, told):
    assert told in refusal(CODEC, *message({"inputs": [described]}, blob, header_bytes=header_bytes))


def test_two_headers_are_refused():
    head, body = message({"inputs": [BINARY]}, b"12345678")
    assert "not one number" in refusal(CODEC, head + b"\n" + head.split(b"\n")[1], body)


@pytest.mark.parametrize(
    "blob", [b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00ab", b"\x01\x00", b"\xff\xff\xff\xffa", b"\x01\x00\x00\x00\xff"]
)
def test_strings_that_are_none(blob):
    codec = InferenceCodec([tensor("x", "string", "N")], [X], "m")
    described = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(blob)}}
    assert "input 'x'" in refusal(codec, *message({"inputs": [described]}, blob))


def test_a_bool_is_0_or_1():
    codec = InferenceCodec([tensor("x", "bool", "N")], [X], "m")
    described = {"name": "x", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}}
    assert "neither 0 nor 1" in refusal(codec, *message({"inputs": [described]}, b"\x01\x02"))


def test_flat_and_nested_numbers_are_told_apart_however_large():
    """simdjson flattens: two numbers in one of two lists must not pass for one number in each."""
    padding = b" " * 600
    for data in ([[1, 2], []], [1, [2]], [[1, 2, 3]], [[[1]], [[2]]]):
        head, body = message({"inputs": [{**GOOD, "data": data}]})
        assert refusal(CODEC, head, body) == refusal(CODEC, head, body + padding)
    head, body = message({"inputs": [GOOD], "id": "[[["})
    assert CODEC.decode(head, body + padding)[0][0].tolist() == [[1, 2]]


def test_bfloat16_is_exact():
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bfloat16_values(bits)
    numbers = ~np.isnan(values)
    blob = to_bytes(values, BY_NAME["bfloat16"])
    np.testing.assert_array_equal(np.frombuffer(blob, np.uint16)[numbers], bits[numbers])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["x", "y", "FP32", "BYTES"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=3)
            | st.sampled_from(
                ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "id"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={"inputs": JSON, "outputs": JSON, "parameters": JSON, "id": JSON})
    | st.builds(
        lambda changed: {"inputs": [{**GOOD, **changed}]}, st.dictionaries(st.sampled_from(list(BINARY)), JSON)
    ),
    st.binary(max_size=20),
    st.none() | st.integers(0, 300),
    st.sampled_from([CODEC, TWO]),
    st.sampled_from([0, 600]),
)
def test_nothing_but_a_refusal_comes_of_any_json(document, blob, header_bytes, codec, padding):
    text = json.dumps(document).encode("utf-8", "surrogatepass") + b" " * padding
    head, body = message(text, blob, header_bytes=len(text) if header_bytes is None else header_bytes)
    try:
        codec.decode(head, body)
    except BadInputError as error:
        v2.encode_error(str(error))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=700))
def test_nothing_but_a_refusal_comes_of_any_bytes(value, body):
    for head in (TARGET, TARGET + b"\nInference-Header-Content-Length:" + value):
        with pytest.raises(BadInputError):
            CODEC.decode(head, body)
