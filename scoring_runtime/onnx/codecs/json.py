"""JSON request bodies to arrays, arrays to JSON reply bodies. The JSON parsers are imported in this folder only.

A request is `{"inputs": {"<name>": nested list, ...}}`, or `{"data": nested list}` for a model of one input.
A reply is `{"outputs": {"<name>": nested list, ...}}`.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import simdjson

from scoring_runtime.onnx.dtypes import Array
from scoring_runtime.onnx.tensors import BadInputError, Output, Tensor

from . import slices
from .buffers import UNFIT, fill, is_regular, number_of_lists, structure
from .nested import to_array
from .rows import decoder_for

Blob = bytes | bytearray | memoryview

LARGE_BYTES = 512
"""From this size on, simdjson fills arrays straight from the text. At 450 bytes it costs what orjson costs (7 us), at 2 kB
half of it, at 3 MB (an image of 3 x 224 x 224) 3.4 ms in place of 8 and more."""

SLICED_BYTES = 512 << 10
"""From this size on, bodies are read in slices. Below, all that a parser needs stays in the second-level cache anyway."""

COUNTED_BYTES = 4 << 10
"""From this size on, lists are counted; below, looking at all of the text is as quick (7 us for 100 rows of 10 cells)."""

MIN_BYTES_OF_LIST = 64
"""To ask a list for its length takes 50 ns, to look at this many bytes of text as long."""

_KEEP_PARSER_BYTES = SLICED_BYTES
"""A parser keeps about 3 bytes of memory for each byte of the largest body that it has seen."""
_COMPRESSED = frozenset((b"\x1f\x8b", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"))  # how gzip and zlib begin
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))


class JsonCodec:
    """The codec of one model."""

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Output]) -> None:
        self._inputs = inputs
        self._by_name = {tensor.name: tensor for tensor in inputs}
        self._output_names = [output.name for output in outputs]
        self._as_lists = [
            number
            for number, output in enumerate(outputs)
            if not isinstance(output, Tensor) or output.dtype.kind == "O"
        ]
        self._rows = decoder_for(inputs)
        self._templates: dict[tuple[int, ...], bytes] = {}
        self._parser = simdjson.Parser()
        self._plain_names = not any(set("[{") & set(tensor.name) for tensor in inputs)
        self._all_buffers = all(tensor.dtype.buffer and tensor.shape is not None for tensor in inputs)

    def decode(self, body: Blob) -> tuple[Array, ...]:
        """The input arrays in the model's order; BadInputError when the body does not spell them."""
        if len(body) >= LARGE_BYTES and self._all_buffers:
            arrays = self._decode_large(body)
            if arrays is not None:
                return arrays
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadInputError(why_not_json(bytes(body), error)) from None
        if type(document) is not dict:
            raise BadInputError(f"the body is JSON, but no object: send {self._form()}")
        if len(document) == 1:
            if "data" in document and len(self._inputs) == 1:
                return (to_array(document["data"], self._inputs[0]),)
            values = document.get("inputs")
            if type(values) is dict and values.keys() == self._by_name.keys():
                return tuple([to_array(values[tensor.name], tensor) for tensor in self._inputs])
        raise BadInputError(self._why_not_inputs(document))

    def decode_together(self, bodies: Sequence[Blob]) -> tuple[list[Array], list[int]] | None:
        """The inputs of many small requests, stacked already, and the number of rows of each request.

        None when in doubt: a body that is wrong, large, or of another shape than its neighbours. Then each is decoded
        by itself. Checking and converting all rows at once takes 1 us a request in place of 3.
        """
        if self._rows is not None:
            decoded = self._rows.decode(bodies)
            if decoded is not None:
                return [decoded[0]], decoded[1]
        columns: list[list[Any]] = [[] for _ in self._inputs]
        rows = []
        single = len(columns) == 1
        try:
            for body in bodies:
                if len(body) >= LARGE_BYTES:
                    return None
                document = orjson.loads(body)
                if single and "data" in document:
                    values = document["data"]
                    if type(values) is not list:
                        return None
                    columns[0] += values
                    count = len(values)
                else:
                    fields = document["inputs"]
                    if len(fields) != len(columns):
                        return None
                    counts = set()
                    for column, tensor in zip(columns, self._inputs, strict=True):
                        values = fields[tensor.name]
                        if type(values) is not list:
                            return None
                        column.extend(values)
                        counts.add(len(values))
                    if len(counts) != 1:
                        return None
                    count = counts.pop()
                if not count or len(document) != 1:
                    return None
                rows.append(count)
            return [to_array(column, tensor) for column, tensor in zip(columns, self._inputs, strict=True)], rows
        except (ValueError, TypeError, LookupError, BadInputError):
            return None

    def encode_apart(self, outputs: Sequence[Any], rows: Sequence[int]) -> list[bytes] | None:
        """The reply bodies of requests that ran together: `outputs` have one row for each row of theirs, in order.

        None when in doubt, and then each is encoded by itself. Numbers are written once for all and cut where the text
        says that a row ends: 0.5 us a request in place of 1.6.
        """
        if self._as_lists:
            return None
        columns = []
        depths = []
        for output in outputs:
            depth = output.ndim
            if not depth:
                return None
            text = orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)
            separator = b"]" * (depth - 1) + b"," + b"[" * (depth - 1)
            texts = text[depth:-depth].split(separator)
            if len(texts) != sum(rows) or b"null" in text:
                return None
            columns.append(texts if len(texts) == len(rows) else _join(texts, rows, separator))
            depths.append(depth)
        template = self._template(tuple(depths))
        return [template % parts for parts in zip(*columns, strict=True)]

    def _template(self, depths: tuple[int, ...]) -> bytes:
        """A reply body with a place for the rows of each output; `depths` are the ranks of the outputs."""
        template = self._templates.get(depths)
        if template is None:
            fields = [
                b"%b:%b%%b%b" % (orjson.dumps(name).replace(b"%", b"%%"), b"[" * depth, b"]" * depth)
                for name, depth in zip(self._output_names, depths, strict=True)
            ]
            template = self._templates[depths] = b'{"outputs":{%b}}' % b",".join(fields)
        return template

    def encode(self, outputs: Sequence[Any]) -> bytes:
        """The reply body for one request's outputs. NaN and infinities become the tokens that Python's json writes."""
        values = dict(zip(self._output_names, outputs, strict=True))
        for number in self._as_lists:
            values[self._output_names[number]] = _plain(outputs[number])
        try:
            body = orjson.dumps({"outputs": values}, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError:  # an array of rank 0, which orjson does not know
            return _encode_plainly(values)
        # orjson writes null for what is no finite number. Looking for the word costs 0.1 to 0.2 microseconds a reply,
        # numpy.isfinite 0.9 for each output.
        return _encode_plainly(values) if b"null" in body else body

    def encode_request(self, arrays: Sequence[Array]) -> bytes:
        """The body of a request for these input arrays: what `decode` reads back."""
        values = [array if array.ndim and array.dtype.kind != "O" else _plain(array) for array in arrays]
        request = {"data": values[0]} if len(values) == 1 else {"inputs": dict(zip(self._by_name, values, strict=True))}
        return orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)

    def _decode_large(self, body: Blob) -> tuple[Array, ...] | None:
        """The input arrays of a body that is wholly regular; None when in doubt, and then `decode` looks closer."""
        if len(body) >= SLICED_BYTES:
            sliced = slices.decode(memoryview(body), self._by_name, self._parser)
            if sliced is not None:
                return tuple([sliced[tensor.name] for tensor in self._inputs])
        return self._decode_whole(body)

    def _decode_whole(self, body: Blob) -> tuple[Array, ...] | None:
        """As `_decode_large`, parsed at once.

        simdjson flattens nested lists. That they are regular is proved in one of two ways. Either the brackets, braces and
        commas of the text alone are those of the shape, no more and no less. Or each list has its length, and in the text
        are no more opening brackets than these lists: then the innermost hold no lists, nor strings or objects, of which no
        buffer can be made. Names cannot feign any: they are the model's own, and with brackets in them only the first way
        is taken.
        """
        if body[0] != ord("{"):
            return None
        try:
            # The parser must not be used again while objects of it live: none may leave this method.
            document: Any = self._parser.parse(body)
            (form,) = document.keys()
            if form == "data" and len(self._inputs) == 1:
                names, values = [self._inputs[0].name], [document["data"]]
            elif form == "inputs":
                fields = document["inputs"]
                names = list(fields.keys())
                if sorted(names) != sorted(self._by_name):
                    return None
                values = [fields[name] for name in names]
            else:
                return None
            tensors = [self._by_name[name] for name in names]
            arrays = {
                tensor.name: fill(value, tensor) if tensor.shape else to_array(value, tensor)
                for tensor, value in zip(tensors, values, strict=True)
            }
            shapes = [arrays[name].shape for name in names]
            if (
                len(body) < COUNTED_BYTES
                or not self._plain_names
                or (lists := sum(map(number_of_lists, shapes))) * MIN_BYTES_OF_LIST > len(body)
            ):
                text = b",".join(map(structure, shapes))
                text = b"{%b}" % text if form == "data" else b"{{%b}}" % text
                if bytes(body).translate(None, _NOT_STRUCTURE) != text:
                    return None
            else:
                if np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")) != lists:
                    return None
                if not all(is_regular(value, shape) for value, shape in zip(values, shapes, strict=True) if shape):
                    return None
            return tuple([arrays[tensor.name] for tensor in self._inputs])
        except UNFIT:
            return None  # whatever is wrong, the other parser has the words for it
        finally:
            if len(body) > _KEEP_PARSER_BYTES:
                self._parser = simdjson.Parser()

    def _form(self) -> str:
        if len(self._inputs) == 1:
            return '{"data": ...}'
        return '{"inputs": {' + ", ".join(f'"{name}": ...' for name in self._by_name) + "}}"

    def _why_not_inputs(self, document: dict[str, Any]) -> str:
        values = document.get("inputs")
        expected = "; ".join(f"{tensor.name!r}: {tensor}" for tensor in self._inputs)
        if document.keys() != {"inputs"}:
            wrong = f"the body has the fields {_names(document) or 'none'}"
        elif type(values) is not dict:
            wrong = '"inputs" is no object'
        else:
            missing = _names(name for name in self._by_name if name not in values)
            unknown = _names(name for name in values if name not in self._by_name)
            wrong = ", ".join(
                text
                for text in (missing and f"missing inputs: {missing}", unknown and f"unknown inputs: {unknown}")
                if text
            )
        return f"{wrong}; send {self._form()}; the model's inputs are {expected}"


def encode_error(message: str) -> bytes:
    """The body of a reply that is no answer."""
    return orjson.dumps({"message": message})


def _join(texts: list[bytes], rows: Sequence[int], separator: bytes) -> list[bytes]:
    """The texts of rows as the texts of requests, by their numbers of rows."""
    joined = []
    start = 0
    for count in rows:
        end = start + count
        joined.append(separator.join(texts[start:end]))
        start = end
    return joined


def _names(names: Any) -> str:
    listed = [repr(name)[:60] for name in names]
    return ", ".join(listed[:10] + ["..."] * (len(listed) > 10))


def why_not_json(body: bytes, error: orjson.JSONDecodeError) -> str:
    """Why a body cannot be parsed, for the client."""
    if not body.strip():
        return "the body is empty: send JSON"
    if text := why_compressed(body):
        return text
    try:
        text = body.decode()
    except UnicodeDecodeError as broken:
        return f"the body is not UTF-8: byte {body[broken.start]:#04x} at offset {broken.start}"
    why = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    if text.startswith(("NaN", "Infinity"), error.pos):
        why += "; JSON has no NaN and no Infinity"
    return why


def why_compressed(body: Blob) -> str:
    """What to say of a body that is compressed; nothing of others."""
    compressed = bytes(body[:2]) in _COMPRESSED
    return "the body is compressed: send it as it is, without a Content-Encoding" if compressed else ""


def _encode_plainly(values: dict[str, Any]) -> bytes:
    return json.dumps({"outputs": _plain(values)}, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Arrays, sequences and maps as what JSON has: lists, and objects with keys that are strings."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value
