"""Large bodies read slice by slice, each straight into the arrays: regular nested lists of numbers, plainly written.

A slice is some whole rows (innermost lists), or a part of a row that is long itself. So what the parser needs stays in the
cache, and is small whatever the body is: it keeps about three bytes for each byte that it has parsed at once. 8.6 MB parse
in 10 ms in slices, in 12 at once, and in 20 at once in memory that is new.

Nothing here trusts the text. Where to cut is found by looking for brackets, and what was found is then proved with the
parser: the comments of `_Reader` say how. What is written in other ways (names with escapes, spaces between the first
brackets) or is not regular gives None, and then another decoder reads the whole body.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scoring_runtime.onnx.dtypes import Array
from scoring_runtime.onnx.tensors import Tensor

from .buffers import UNFIT, narrow, numbers

SLICE_BYTES = 128 << 10
"""64 to 256 KiB are alike. Less means more calls; more leaves the second-level cache."""

LONG_ROW_BYTES = 300
"""To ask a row for its length takes 50 ns, to find its end 200. This many bytes parse in 300."""

_PADDING = b" " * 64
_SPACED = int.from_bytes(b"], [", "little")
_OPENING = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"(data|inputs)"[ \t\n\r]*:[ \t\n\r]*')
_BRACE = re.compile(rb"\{[ \t\n\r]*")
_NAME = re.compile(rb'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_COMMA = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
_CLOSING = re.compile(rb"[ \t\n\r]*\}")
_END = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*")
_BETWEEN = re.compile(rb"(\](?:[ \t\n\r]*\])*)[ \t\n\r]*,[ \t\n\r]*(\[(?:[ \t\n\r]*\[)*)")
_LAST = re.compile(rb"\](?:[ \t\n\r]*\])*")


def decode(
    body: memoryview,
    inputs: Mapping[str, Tensor],
    parser: Any,
    slice_bytes: int = SLICE_BYTES,
    long_row_bytes: int = LONG_ROW_BYTES,
) -> dict[str, Array] | None:
    """The arrays of a body by the names of its inputs; None when in doubt."""
    opening = _OPENING.match(body)
    if opening is None:
        return None
    arrays: dict[str, Array] = {}
    try:
        at = opening.end()
        if opening[1] == b"data":
            ((name, tensor),) = inputs.items()
            arrays[name], at = _Reader(body, tensor, parser, slice_bytes, long_row_bytes).read(at)
        else:
            at = _past(_BRACE, body, at)
            while len(arrays) < len(inputs):
                at = _past(_COMMA, body, at) if arrays else at
                found = _NAME.match(body, at)
                name = found[1].decode() if found else ""
                if found is None or name in arrays:
                    return None
                arrays[name], at = _Reader(body, inputs[name], parser, slice_bytes, long_row_bytes).read(found.end())
            at = _past(_CLOSING, body, at)
        return arrays if _END.fullmatch(body, at) else None
    except (*UNFIT, MemoryError):
        return None


def _past(pattern: re.Pattern[bytes], body: memoryview, at: int) -> int:
    found = pattern.match(body, at)
    if found is None:
        raise ValueError(at)
    return found.end()


class _Reader:
    """Reads one value. One of UNFIT is raised when in doubt.

    A slice is copied behind a bracket, and the comma that ends it is overwritten with another. So it is a document by itself
    and the body is copied no second time: at 3 MB that is 5 % of all.
    """

    def __init__(self, body: memoryview, tensor: Tensor, parser: Any, slice_bytes: int, long_row_bytes: int) -> None:
        self._body = body
        self._dtype = tensor.dtype
        self._declared = tensor.shape or ()
        self._parser = parser
        self._slice_bytes = slice_bytes
        self._long_row_bytes = long_row_bytes
        self._slice = bytearray(min(len(body), 2 * slice_bytes) + 1 + len(_PADDING))
        self._slice[0] = ord("[")
        self._view = memoryview(self._slice)
        self._limit = 0  # where the slice ends
        self._rest = 0  # bytes of the body from where the slice begins
        self._cells = np.empty(0, self._dtype.array)
        self._count = 0  # of cells that have been read
        self._width = 0  # cells in a row, once one has been read
        self._closings = bytearray()  # how many lists each row but the last one closes besides itself
        self._between = b""  # what stands between two rows, from bracket to bracket

    def read(self, at: int) -> tuple[Array, int]:
        """The value that begins at `at`, and where it ends."""
        rank = len(self._declared)
        if not rank or self._body[at : at + rank] != b"[" * rank:
            raise ValueError(at)
        row: int | None = at + rank - 1
        while row is not None:
            end = self._load(row)
            if end < 0 or rank == 1:
                stop = self._read_parts(row)
            elif rank == 2:
                stop = self._read_rows(row) if end > self._long_row_bytes else self._read_short_rows(row)
            elif end > 2 * self._long_row_bytes:
                stop = self._read_deep_rows(row, end)
            else:
                raise ValueError(at)
            row, closed, at = self._after(stop)
            if row is not None:
                self._closings.append(closed)
        return self._cells[: self._count].reshape(self._shape()), at

    def _load(self, at: int) -> int:
        """Copy the text from `at` on: a slice, or all when that is not much more. Where its first list ends."""
        self._rest = len(self._body) - at
        size = self._slice_bytes if self._rest > 2 * self._slice_bytes else self._rest
        self._limit = 1 + size
        self._view[1 : self._limit] = self._body[at : at + size]
        self._view[self._limit : self._limit + len(_PADDING)] = _PADDING
        return self._slice.find(b"]", 1, self._limit)

    def _parse(self, end: int) -> Any:
        """The array that the slice is when it ends at `end`, where a comma or bracket is."""
        self._slice[end] = ord("]")
        return self._parser.parse(self._view[: end + 1])

    def _after(self, stop: int) -> tuple[int | None, int, int]:
        """What follows the row that ends at `stop`: the next row's place, how many other lists end between them, and where
        the text goes on. There is no next row when all lists end here.
        """
        found = _BETWEEN.match(self._body, stop)
        if found is None:
            last = _LAST.match(self._body, stop)
            if last is None or last[0].count(b"]") != len(self._declared):
                raise ValueError(stop)
            return None, 0, last.end()
        closed = found[1].count(b"]") - 1
        if closed != found[2].count(b"[") - 1 or closed + 1 >= len(self._declared):
            raise ValueError(stop)
        if not closed:
            self._between = found[0]
        return found.end() - 1, closed, found.end()

    def _read_parts(self, row: int) -> int:
        """Read the one row at `row`, cut at commas. Its end.

        No part has a closing bracket, so there are no lists in it.
        """
        at = row + 1
        width = 0
        end = -1
        while end < 0:
            end = self._load(at)
            cut = end if end >= 0 else self._slice.rfind(b",", 1, self._limit)
            if cut < 0:
                raise ValueError(row)
            width += self._keep(self._parse(cut), cut)
            at += cut
        self._width = self._width or width
        if width != self._width:
            raise ValueError(row)
        return at - 1

    def _read_rows(self, row: int) -> int:
        """Read the rows in the slice, the first of which is at `row`. The last one's end.

        There are as many opening brackets as rows: there are no lists in them.
        """
        stop = self._last_end()
        lists = self._parse(stop + 1)
        self._keep_rows(lists, stop, int(np.count_nonzero(np.frombuffer(self._slice, np.uint8)[1:stop] == ord("["))))
        self._closings += bytes(len(lists) - 1)
        return row - 1 + stop

    def _last_end(self) -> int:
        """Where the last row in the slice ends that is one of a matrix."""
        quote = self._slice.find(b'"', 1, self._limit)  # of the next input's name
        stop = self._slice.rfind(b"]", 1, quote if quote >= 0 else self._limit)
        return stop - (self._slice[stop - 1] == ord("]"))  # and not the matrix itself

    def _read_short_rows(self, row: int) -> int:
        """As `_read_rows`, for short ones: 10 cells of 8 bytes parse in 100 ns, and an object to ask for its length takes 50.

        So the brackets between the rows are blanked, and numbers alone are parsed, in four fifths of the time.

        Before the end of row i, from 0, there must be (i + 1) * width - 1 commas, and behind it exactly `],[`, or `], [`. So
        no number is where none should be, and the parser sees all the rest. No bracket is left but one at either end, for
        all that close have been found.
        """
        text = self._slice
        stop = self._last_end()
        characters = np.frombuffer(text, np.uint8, (self._limit + 63) // 64 * 64)
        ends = np.flatnonzero(characters[: stop + 1] == ord("]"))
        commas = np.packbits(characters == ord(","), bitorder="little").view("<u8")
        words = ends >> 6
        before = np.add.accumulate(np.bitwise_count(commas), dtype=np.int64)[words]
        before -= np.bitwise_count(commas[words] >> (ends & 63).view(np.uint64))
        self._width = self._width or int(before[0]) + 1
        rows = len(ends)
        if not np.array_equal(before, np.arange(self._width - 1, rows * self._width, self._width)):
            raise ValueError(row)
        quads: Array = np.ndarray(self._limit, "<u4", text, strides=(1,))  # the four bytes from each place on
        inner = ends[:-1]
        found = quads[inner]
        between, blank, others = (
            (b"], [", b" ,  ", 0) if rows > 1 and found[0] == _SPACED else (b"],[", b" , ", 0xFF << 24)
        )
        if ((found & ~np.uint32(others)) != int.from_bytes(between, "little")).any():
            raise ValueError(row)
        quads[inner] = found & np.uint32(others) | np.uint32(int.from_bytes(blank, "little"))
        characters[1] = ord(" ")
        self._keep(self._parse(stop), stop, rows * self._width)
        self._closings += bytes(rows - 1)
        return row - 1 + stop

    def _read_deep_rows(self, row: int, end: int) -> int:
        """Read the rows in the slice, of which the first one, at `row`, ends at `end` of the slice. The last one's end.

        For three axes and more. Of the brackets between two rows all but two are blanked. A row goes from its bracket to the
        first closing one, so what is parsed has as many lists as there are rows, and one: there are none in the rows.
        """
        text = self._slice
        limit = self._limit
        between = self._between
        begin = row - 1
        rows = 1
        stop = end
        while True:
            if between and text.startswith(between, stop):
                following, closed = stop + len(between) - 1, 0
            else:
                place, closed, _ = self._after(begin + stop)
                if place is None:
                    break
                following = place - begin
            end = text.find(b"]", following, limit)
            if end < 0:
                break
            rows += 1
            self._closings.append(closed)
            if closed:
                text[stop + 1 : following] = b",".ljust(following - stop - 1)
            stop = end
        self._keep_rows(self._parse(stop + 1), stop, rows)
        return begin + stop

    def _keep_rows(self, lists: Any, parsed: int, rows: int) -> None:
        """Add the numbers of a simdjson array of so many rows, parsed from so many bytes."""
        self._width = self._width or len(lists[0])
        if len(lists) != rows or set(map(len, lists)) != {self._width}:
            raise ValueError(rows)
        self._keep(lists, parsed, rows * self._width)

    def _keep(self, cells: Any, parsed: int, expected: int | None = None) -> int:
        """Add the numbers of a simdjson array, parsed from so many bytes. How many they are."""
        wide = numbers(cells, self._dtype)
        if not len(wide) or (expected is not None and len(wide) != expected):  # no cells: `[]`, or `[1,]` in parts
            raise ValueError(expected)
        end = self._count + len(wide)
        if end > len(self._cells):
            # Room for all, if the rest is like this slice. In memory for the most that could follow, an image takes 5 % longer.
            room = max(self._count + len(wide) * self._rest // parsed * 21 // 20, end, len(self._cells) * 3 // 2)
            kept = self._cells[: self._count]
            self._cells = np.empty(room, self._dtype.array)
            self._cells[: self._count] = kept
        narrow(wide, self._dtype, self._cells[self._count : end])
        self._count = end
        return len(wide)

    def _shape(self) -> tuple[int, ...]:
        """The shape that the brackets spell."""
        shape = [self._width]
        if len(self._declared) > 1:
            lists = len(self._closings) + 1
            for level in range(1, len(self._declared) - 1):
                outer = 1 + sum(self._closings.count(closed) for closed in range(level, len(self._declared)))
                shape.append(lists // outer)
                lists = outer
            shape.append(lists)
        expected = b""
        for level, size in enumerate(shape[1:]):
            expected = (expected + bytes([level])) * (size - 1) + expected
        if self._closings != expected:
            raise ValueError(shape)
        shape.reverse()
        for declared, size in zip(self._declared, shape, strict=True):
            if isinstance(declared, int) and declared != size:
                raise ValueError(size)
        return tuple(shape)
