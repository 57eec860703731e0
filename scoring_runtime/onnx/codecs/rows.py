"""Many small requests of the plainest form, `{"data": [[1, 2], ...]}`, decoded as one.

What makes that safe is each body's skeleton: what is left of it without digits, signs, points, exponents and white space.
A body whose skeleton is exactly that of its rows can be pasted between others: no bracket of it closes a neighbour's. Then
`{"data":` and `}` are taken out of all bodies at once. What a skeleton cannot tell (`1 2`, `01`, a digit before the first
or behind the last bracket) the parser refuses, because nothing but rows is left; then every body is decoded by itself.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import simdjson

from scoring_runtime.onnx.dtypes import Array
from scoring_runtime.onnx.tensors import Tensor

from .buffers import UNFIT, fill, structure

Blob = bytes | bytearray | memoryview

MAX_CELLS_OF_ROW = 256
MAX_ROWS_OF_BODY = 16
MAX_BYTES = 1 << 18
"""Of bodies that are looked at together. Above it they are not small ones."""

_NUMERIC = b"0123456789+-.eE \t\r\n"
_NAME = b'"data"'
_FORM = b'{}":dat'
"""What a body has beside its rows."""
_BETWEEN = b";"
"""Stands between bodies, and in no skeleton: so it shows where each body ends."""
_TO_LIST = bytes.maketrans(_BETWEEN, b",")


class RowsDecoder:
    """The decoder of one model, of one input with numbers in rows of fixed shape: 0.25 us a request in place of 1.7."""

    def __init__(self, tensor: Tensor, cells: int) -> None:
        self._tensor = tensor
        self._parser = simdjson.Parser()
        shape = tuple(size for size in (tensor.shape or ())[1:] if isinstance(size, int))
        self._rows_by_skeleton = {
            b'{"data":%b}' % structure((rows, *shape)): rows
            for rows in range(1, min(MAX_ROWS_OF_BODY, max(1, 1024 // cells)) + 1)
        }

    def decode(self, bodies: Sequence[Blob]) -> tuple[Array, list[int]] | None:
        """The stacked rows and how many of them each body has; None when in doubt."""
        if sum(map(len, bodies)) > MAX_BYTES:
            return None
        text = _BETWEEN.join(bodies)
        skeletons = text.translate(None, _NUMERIC).split(_BETWEEN)
        rows = list(map(self._rows_by_skeleton.get, skeletons))
        # White space would be no part of a skeleton within the name either.
        if len(rows) != len(bodies) or None in rows or text.count(_NAME) != len(bodies):
            return None
        known = cast(list[int], rows)
        try:
            # The parser must not be used again while objects of it live: none leaves this method.
            values: Any = self._parser.parse(b"[%b]" % text.translate(_TO_LIST, _FORM))
            return fill(values, self._tensor, sum(known)), known
        except UNFIT:
            return None


def decoder_for(inputs: Sequence[Tensor]) -> RowsDecoder | None:
    """The decoder of a model with these inputs, when they allow it."""
    if len(inputs) != 1 or not inputs[0].dtype.buffer or not inputs[0].shape:
        return None
    inner = inputs[0].shape[1:]
    if not all(isinstance(size, int) and size > 0 for size in inner):
        return None
    cells = int(np.prod([size for size in inner if isinstance(size, int)], dtype=np.int64))
    return RowsDecoder(inputs[0], cells) if cells <= MAX_CELLS_OF_ROW else None
