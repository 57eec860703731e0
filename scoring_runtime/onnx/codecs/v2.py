"""Requests and replies of the Open Inference Protocol (KServe V2), with its binary tensor data extension.

A body is a JSON object, behind it the bytes of the tensors whose `binary_data_size` says so, in the order in which the
object describes them. Where there are any, the header Inference-Header-Content-Length says where the object ends.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson
import simdjson

from scoring_runtime.onnx.dtypes import Array
from scoring_runtime.onnx.tensors import BadInputError, Output, Tensor, shape_text

from .binary import Blob, from_bytes, to_bytes
from .buffers import UNFIT, narrow, numbers
from .json import why_compressed, why_not_json
from .nested import to_array

VERSION = "1"
"""Of every model: there is one of each."""

HEADER = "inference-header-content-length"

LARGE_BYTES = 512
"""From this size on, simdjson reads the numbers of a JSON body: see json.py."""

_KEEP_PARSER_BYTES = 8 << 20
_MOST_DIGITS = 12
_WITHOUT_JSON = frozenset(("FP16", "BF16"))
_TOO_LARGE = 1 << 32
_UNSUPPORTED = {
    "classification": "there is no classification of outputs: ask for the output itself",
    "shared_memory_region": "there is no shared memory with clients: send the tensor in the body",
    "sequence_id": "there are no sequences of requests: send what the model must know in its inputs",
    "timeout": "a deadline is set by a header of the request (x-request-timeout-ms, unless configured otherwise)",
}
"""Parameters that a client would rely on, and what to do in their place."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that a request asks for. `number` is its place among the model's outputs."""

    number: int
    tensor: Tensor
    binary: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How one request wants its reply. `start` holds its fields up to the outputs."""

    start: Mapping[str, str]
    wanted: Sequence[Wanted]

    def encode(self, outputs: Sequence[Any]) -> tuple[bytes, bytes]:
        """Head and body of the reply for one request's outputs, all of the model's."""
        described = []
        blobs: list[Blob] = []
        for each in self.wanted:
            tensor = each.tensor
            array = np.asarray(outputs[each.number])
            fields: dict[str, Any] = {"name": tensor.name, "datatype": tensor.dtype.datatype, "shape": array.shape}
            if each.binary:
                blob = to_bytes(array, tensor.dtype)
                blobs.append(blob)
                fields["parameters"] = {"binary_data_size": len(blob)}
            else:
                flat = np.ascontiguousarray(array).reshape(-1)
                fields["data"] = flat.tolist() if flat.dtype.kind == "O" else flat
            described.append(fields)
        header = _encode({**self.start, "outputs": described})
        if not blobs:
            return b"", header
        head = b"content-type: application/octet-stream\nInference-Header-Content-Length: %d" % len(header)
        return head, b"".join((header, *blobs))


class InferenceCodec:
    """The codec of one model."""

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Output], name: str) -> None:
        self._inputs = inputs
        self._inputs_by_name = {tensor.name: tensor for tensor in inputs}
        self._outputs = outputs
        self._numbers = {output.name: number for number, output in enumerate(outputs)}
        self._start = {"model_name": name, "model_version": VERSION}
        # What is no tensor has no form in the protocol: by default it is left out.
        tensors = [(number, output) for number, output in enumerate(outputs) if isinstance(output, Tensor)]
        self._all = {binary: [Wanted(*each, binary) for each in tensors] for binary in (False, True)}
        self._parser = simdjson.Parser()

    def describe(self) -> dict[str, Any]:
        """What READY says of it: which header it needs, and the model's metadata."""
        return {
            "headers": [HEADER],
            "versions": [VERSION],
            "platform": "onnxruntime_onnx",
            "inputs": [_metadata(tensor) for tensor in self._inputs],
            "outputs": [_metadata(output) for output in self._outputs if isinstance(output, Tensor)],
        }

    def decode(self, head: bytes, body: Blob) -> tuple[tuple[Array, ...], Form]:
        """The input arrays in the model's order, and the form of the reply; BadInputError when the request is wrong.

        The arrays of binary inputs lie in `body`: see `from_bytes`.
        """
        header_bytes = _header_bytes(head)
        if header_bytes is None:
            document = self._parse(body)
            rest = None
        elif header_bytes > len(body):
            text = f"Inference-Header-Content-Length is {header_bytes}, the body has {len(body)} bytes"
            raise BadInputError(why_compressed(body) or text)
        elif not header_bytes:
            raise BadInputError(
                "Inference-Header-Content-Length is 0: describe the tensors in a JSON object before them"
            )
        else:
            view = memoryview(body)
            document = self._parse(view[:header_bytes])
            rest = view[header_bytes:]
        if type(document) is not dict:
            raise BadInputError(f'the body is JSON, but no object: send {{"inputs": [...]}}; {self._expected()}')
        return self._decode_inputs(document.get("inputs"), rest), self._form(document)

    # JSON

    def _parse(self, text: Blob) -> Any:
        if len(text) >= LARGE_BYTES:
            document = self._parse_large(bytes(text))
            if document is not None:
                return document
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise BadInputError(why_not_json(bytes(text), error)) from None

    def _parse_large(self, text: bytes) -> dict[str, Any] | None:
        """The object, with flat arrays of numbers as arrays of numpy; None when in doubt.

        simdjson flattens nested lists. That there are none shows in the text: it has no more opening brackets than lists
        are known. A bracket in a text only adds to the doubt.
        """
        try:
            # The parser must not be used again while objects of it live: none may leave this method.
            whole: Any = self._parser.parse(text)
            lists = 1
            described = []
            for each in whole["inputs"]:
                tensor = self._inputs_by_name[each["name"]]
                if not tensor.dtype.buffer:
                    return None
                fields = _fields(each, "data")
                fields["data"] = numbers(each["data"], tensor.dtype)
                described.append(fields)
                lists += 2
            document = _fields(whole, "inputs")
            document["inputs"] = described
            return document if text.count(b"[") == lists + ("outputs" in document) else None
        except UNFIT:
            return None  # whatever is wrong, the other parser has the words for it
        finally:
            if len(text) > _KEEP_PARSER_BYTES:
                self._parser = simdjson.Parser()

    # Inputs

    def _decode_inputs(self, described: Any, rest: memoryview | None) -> tuple[Array, ...]:
        if type(described) is not list:
            raise BadInputError(f'"inputs" is no list; {self._expected()}')
        arrays: dict[str, Array] = {}
        at = 0
        for fields in described:
            tensor = self._named(fields, "input", self._inputs_by_name)
            if tensor.name in arrays:
                raise BadInputError(f"input {tensor.name!r} stands twice")
            parameters = _parameters(fields, f"input {tensor.name!r}")
            size = parameters.get("binary_data_size")
            shape = _shape(fields, tensor)
            try:
                if size is None:
                    arrays[tensor.name] = _from_json(fields.get("data"), tensor, shape)
                else:
                    begin, at = at, at + _size(size, fields, tensor, rest, at)
                    arrays[tensor.name] = from_bytes(rest[begin:at], tensor, shape)  # type: ignore[index]  # _size looks
            except (ValueError, OverflowError, MemoryError) as error:  # numpy, of a shape that it cannot have
                raise BadInputError(f"input {tensor.name!r}: {shape_text(shape)} is no shape: {error}") from None
        if len(arrays) != len(self._inputs):
            missing = ", ".join(repr(name) for name in self._inputs_by_name if name not in arrays)
            raise BadInputError(f"missing inputs: {missing}; {self._expected()}")
        if rest is not None and at != len(rest):
            raise BadInputError(f"{len(rest) - at} bytes follow the tensors that the request describes")
        return tuple([arrays[tensor.name] for tensor in self._inputs])

    # Outputs

    def _form(self, document: dict[str, Any]) -> Form:
        parameters = _parameters(document, "the request")
        binary = _flag(parameters, "binary_data_output", default=False)
        start = self._start
        if "id" in document:
            if type(document["id"]) is not str:
                raise BadInputError('"id" is no text')
            start = {**start, "id": document["id"]}
        listed = document.get("outputs")
        wanted: Sequence[Wanted] = self._all[binary]
        if listed is not None and type(listed) is not list:
            raise BadInputError('"outputs" is no list')
        if listed:
            wanted = [self._wanted(fields, binary) for fields in listed]
            if len({each.number for each in wanted}) != len(wanted):
                raise BadInputError("an output stands twice")
        for each in wanted:
            if not each.binary and each.tensor.dtype.datatype in _WITHOUT_JSON:
                what = f"output {each.tensor.name!r} is {each.tensor.dtype.datatype}, which has no form in JSON"
                raise BadInputError(f'{what}: ask for it with "parameters": {{"binary_data": true}}')
        return Form(start, wanted)

    def _wanted(self, fields: Any, binary: bool) -> Wanted:
        number = self._named(fields, "output", self._numbers)
        tensor = self._outputs[number]
        parameters = _parameters(fields, f"output {tensor.name!r}")
        if not isinstance(tensor, Tensor):
            raise BadInputError(f"output {tensor.name!r} is no tensor but {tensor.type}: send the request to /score")
        return Wanted(number, tensor, _flag(parameters, "binary_data", default=binary))

    def _named(self, fields: Any, what: str, known: Mapping[str, Any]) -> Any:
        """Who an object in a list of inputs or outputs is about."""
        name = fields.get("name") if type(fields) is dict else None
        if type(name) is not str:
            raise BadInputError(f'an {what} is no object with a "name"; {self._expected()}')
        if name not in known:
            raise BadInputError(f"unknown {what}: {name[:60]!r}; {self._expected()}")
        return known[name]

    def _expected(self) -> str:
        inputs = "; ".join(f"{tensor.name!r}: {_declared(tensor)}" for tensor in self._inputs)
        outputs = ", ".join(repr(output.name) for output in self._outputs)
        return f"the model's inputs are {inputs}; its outputs are {outputs}"


def encode_error(message: str) -> bytes:
    """The body of a reply that is no answer."""
    return orjson.dumps({"error": message})


def _encode(document: dict[str, Any]) -> bytes:
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:
        return text
    # orjson writes null for NaN and infinities, Python's json the tokens that /score has for them.
    for fields in document["outputs"]:
        if isinstance(fields.get("data"), np.ndarray):
            fields["data"] = fields["data"].tolist()
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _header_bytes(head: bytes) -> int | None:
    """The size of the JSON object in the body; None when all of the body is JSON."""
    _, *lines = head.split(b"\n")
    if not lines:
        return None
    value = lines[0].partition(b":")[2].strip()
    if len(lines) > 1 or not value.isdigit() or len(value) > _MOST_DIGITS:
        raise BadInputError(
            "Inference-Header-Content-Length is not one number: send the size of the JSON object in bytes"
        )
    return int(value)


def _fields(thing: Any, but: str) -> dict[str, Any]:
    """The fields of an object of simdjson's, all but one, as plain values; ValueError when one stands twice."""
    names = list(thing.keys())
    if len(set(names)) != len(names):
        raise ValueError(names)
    return {name: _plain(thing[name]) for name in names if name != but}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _parameters(fields: Any, whose: str) -> dict[str, Any]:
    parameters = fields.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise BadInputError(f'{whose}: "parameters" is no object')
    for name, cure in _UNSUPPORTED.items():
        if name in parameters:
            raise BadInputError(f"{whose}: the parameter {name!r} is not supported: {cure}")
    return parameters


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise BadInputError(f"the parameter {name!r} is neither true nor false")
    return value


def _shape(fields: dict[str, Any], tensor: Tensor) -> tuple[int, ...]:
    """The shape that a request gives an input, which fits what the model declares, as its datatype does."""
    datatype, shape = fields.get("datatype"), fields.get("shape")
    declared = tensor.shape
    if type(shape) is not list or not all(type(size) is int and 0 <= size < _TOO_LARGE for size in shape):
        raise BadInputError(
            f'input {tensor.name!r} has no "shape" of sizes from 0 on; the model expects {_declared(tensor)}'
        )
    if type(datatype) is not str:
        raise BadInputError(f'input {tensor.name!r} has no "datatype"; the model expects {_declared(tensor)}')
    if (
        datatype != tensor.dtype.datatype
        or (declared is not None and len(shape) != len(declared))
        or any(type(size) is int and size != given for size, given in zip(declared or (), shape, strict=False))
    ):
        given = f"{datatype[:20]} {shape_text(shape[:20])}"
        raise BadInputError(f"input {tensor.name!r} expects {_declared(tensor)}; given: {given}")
    if shape and not shape[0]:
        raise BadInputError(f"input {tensor.name!r} expects {_declared(tensor)}; given: no rows")
    return tuple(shape)


def _size(size: Any, fields: dict[str, Any], tensor: Tensor, rest: memoryview | None, at: int) -> int:
    """How many bytes of `rest` from `at` on are an input's; there are as many."""
    if "data" in fields:
        raise BadInputError(f"input {tensor.name!r} has both \"data\" and the parameter 'binary_data_size'")
    if type(size) is not int or size < 0:
        raise BadInputError(f"input {tensor.name!r}: the parameter 'binary_data_size' is no number of bytes")
    if rest is None:
        what = "without the header Inference-Header-Content-Length: it says where the JSON object ends"
        raise BadInputError(f"input {tensor.name!r} is binary, {what}")
    if size > len(rest) - at:
        left = f"the body has {len(rest) - at} bytes left for it"
        raise BadInputError(f"input {tensor.name!r} has 'binary_data_size' {size}; {left}")
    return size


def _from_json(data: Any, tensor: Tensor, shape: tuple[int, ...]) -> Array:
    """The array that `data` spells, flat or nested."""
    dtype = tensor.dtype
    if dtype.datatype in _WITHOUT_JSON:
        what = f"input {tensor.name!r} is {dtype.datatype}, which has no form in JSON"
        raise BadInputError(f"{what}: send it as binary (the parameter 'binary_data_size')")
    if isinstance(data, np.ndarray):
        wide, data = data, None
        if len(wide) == prod(shape):
            try:
                return narrow(wide, tensor.dtype).reshape(shape)
            except ArithmeticError:
                pass
        data = wide.tolist()
    if type(data) is not list:
        raise BadInputError(
            f"input {tensor.name!r} has no \"data\" that is a list, and no parameter 'binary_data_size'"
        )
    if data and type(data[0]) is list and len(shape) > 1:
        return to_array(data, Tensor(tensor.name, dtype, shape))
    count = prod(shape)
    if len(data) != count:
        raise BadInputError(f"input {tensor.name!r}: {shape_text(shape)} takes {count} values; given: {len(data)}")
    return (
        to_array(data, Tensor(tensor.name, dtype, (count,))).reshape(shape) if count else np.empty(shape, dtype.array)
    )


def _declared(tensor: Tensor) -> str:
    return f"{tensor.dtype.datatype} {'of any shape' if tensor.shape is None else shape_text(tensor.shape)}"


def _metadata(tensor: Tensor) -> dict[str, Any]:
    """As the protocol has it: a free axis is -1, and so is all of a shape that is not declared."""
    shape = [-1] if tensor.shape is None else [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "datatype": tensor.dtype.datatype, "shape": shape}
