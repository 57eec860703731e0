"""What we read from an ONNX file ourselves, before ONNX Runtime sees it: a walk over protobuf's wire format.

The onnx package is not needed for that, and ONNX Runtime tells neither where a model's external data lies nor whether an
input is a scalar or of undeclared rank.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .tensors import Size

Buffer = bytes | mmap.mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

MAX_DEPTH = 100
"""Messages within messages; protobuf's own parsers stop at as many."""

MAX_KEY = (1 << 32) - 1
"""Field number and wire type. Some parsers cut a longer one, and so take one field for another."""

MAX_DIGITS = 19
"""Of an offset or a length: those of a number of 63 bits."""

CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
"""Every way from a model to a tensor, by field number."""


class MalformedModelError(Exception):
    """The bytes are no protobuf message."""


class Field(NamedTuple):
    """One field of a message: a number for VARINT, otherwise the place of its bytes."""

    number: int
    wire_type: int
    value: int
    start: int
    end: int


@dataclass(slots=True)
class ExternalTensor:
    """A tensor whose values lie in another file."""

    name: str = ""
    locations: list[str] = field(default_factory=list)
    """One, in a decent model; each is to be checked, for parsers differ in which of several they take."""
    offset: int = 0
    length: int = 0


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message at start..end, in order."""
    at = start
    while at < end:
        key, at = _varint(buffer, at, end)
        if key > MAX_KEY:
            raise MalformedModelError(f"a field number beyond all bounds at offset {at}")
        number, wire_type = key >> 3, key & 7
        value, begin = 0, at
        if wire_type == VARINT:
            value, at = _varint(buffer, at, end)
        elif wire_type == BYTES:
            size, begin = _varint(buffer, at, end)
            at = begin + size
        elif wire_type == FIXED64:
            at += 8
        elif wire_type == FIXED32:
            at += 4
        else:
            raise MalformedModelError(f"wire type {wire_type} at offset {begin}")
        if at > end:
            raise MalformedModelError(f"a field at offset {begin} is longer than its message")
        yield Field(number, wire_type, value, begin, at)


def _varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedModelError(f"an unfinished number at offset {at}")


def external_tensors(model: Buffer) -> list[ExternalTensor]:
    """The tensors of the model, of its subgraphs, functions and attributes, whose values lie in other files."""
    # An entry that names a file has the key "location". A tree ensemble of 11 MB, whose attributes hold two million
    # numbers as fields of their own, takes 2 seconds to walk and 6 milliseconds to search.
    if model.find(b"location") < 0:
        return []
    found = []
    waiting = [("ModelProto", 0, len(model), 1)]
    while waiting:
        message, start, end, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise MalformedModelError(f"messages nested more than {MAX_DEPTH} deep")
        if message == "TensorProto":
            tensor = _external(model, start, end)
            if tensor is not None:
                found.append(tensor)
            continue
        children = CHILDREN[message]
        for each in fields(model, start, end):
            child = children.get(each.number)
            if child is not None and each.wire_type == BYTES:
                waiting.append((child, each.start, each.end, depth + 1))
    return found


def _external(model: Buffer, start: int, end: int) -> ExternalTensor | None:
    tensor = ExternalTensor()
    external = False
    for each in fields(model, start, end):
        if each.number == 14 and each.wire_type == VARINT:  # data_location
            external |= each.value == 1
        elif each.number == 8 and each.wire_type == BYTES:
            tensor.name = _text(model, each)
        elif each.number == 13 and each.wire_type == BYTES:  # external_data, an entry of key and value
            external = True
            entry = {part.number: _text(model, part) for part in fields(model, each.start, each.end)}
            key, value = entry.get(1, ""), entry.get(2, "")
            if key == "location":
                tensor.locations.append(value)
            elif key in ("offset", "length") and value.isdecimal():
                if len(value) > MAX_DIGITS:
                    raise MalformedModelError(f"a tensor with an {key} of {len(value)} digits")
                setattr(tensor, key, int(value))
    return tensor if external else None


def _text(model: Buffer, place: Field) -> str:
    return bytes(model[place.start : place.end]).decode("utf-8", "surrogateescape")


def declared_shapes(model: Buffer) -> dict[str, tuple[Size, ...] | None]:
    """The declared shape of each graph input that is a tensor; None where not even the rank is declared."""
    shapes: dict[str, tuple[Size, ...] | None] = {}
    for graph in _messages(model, Field(0, BYTES, 0, 0, len(model)), 7):
        for value_info in _messages(model, graph, 11):
            names = [_text(model, name) for name in _messages(model, value_info, 1)]
            for kind in _messages(model, value_info, 2):
                for tensor_type in _messages(model, kind, 1):
                    shape = None
                    for dimensions in _messages(model, tensor_type, 2):
                        shape = tuple([_size(model, each) for each in _messages(model, dimensions, 1)])
                    shapes[names[-1] if names else ""] = shape
    return shapes


def _messages(model: Buffer, parent: Field, number: int) -> list[Field]:
    return [
        each for each in fields(model, parent.start, parent.end) if each.number == number and each.wire_type == BYTES
    ]


def _size(model: Buffer, dimension: Field) -> Size:
    size: Size = None
    for each in fields(model, dimension.start, dimension.end):
        if each.number == 1 and each.wire_type == VARINT:
            size = each.value if each.value < 1 << 63 else None  # a negative size means an unknown one
        elif each.number == 2 and each.wire_type == BYTES:
            size = _text(model, each) or None
    return size
