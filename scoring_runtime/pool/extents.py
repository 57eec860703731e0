"""Ranges of whole numbers that do not meet: which parts of something long are free, or hold memory. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Extents:
    """A set of numbers, kept as ranges in rising order. A range is [begin, end), and is never empty."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges, lowest first."""
        return zip(self._begins, self._ends, strict=True)

    def add(self, begin: int, end: int) -> None:
        """Put a range in; what it meets becomes one with it."""
        if begin >= end:
            return
        first = bisect_left(self._ends, begin)
        last = bisect_right(self._begins, end)
        if first < last:
            begin = min(begin, self._begins[first])
            end = max(end, self._ends[last - 1])
        self._begins[first:last] = [begin]
        self._ends[first:last] = [end]

    def remove(self, begin: int, end: int) -> None:
        """Take a range out, whatever of it is there."""
        first = bisect_right(self._ends, begin)
        last = bisect_left(self._begins, end)
        if begin >= end or first >= last:
            return
        left = [(self._begins[first], begin), (end, self._ends[last - 1])]
        kept = [(kept_begin, kept_end) for kept_begin, kept_end in left if kept_begin < kept_end]
        self._begins[first:last] = [kept_begin for kept_begin, _ in kept]
        self._ends[first:last] = [kept_end for _, kept_end in kept]

    def reach(self, number: int) -> int:
        """Up to where everything from `number` on is there; `number` itself when it is not."""
        index = bisect_right(self._begins, number) - 1
        return max(number, self._ends[index]) if index >= 0 else number

    def find(self, size: int) -> int | None:
        """Where the lowest range begins that is at least so long."""
        for begin, end in self:
            if end - begin >= size:
                return begin
        return None

    def last_of_both(self, other: "Extents", from_number: int) -> tuple[int, int] | None:
        """The highest range, not below `from_number`, that is in both."""
        mine, theirs = len(self._begins) - 1, len(other._begins) - 1
        while mine >= 0 and theirs >= 0:
            begin = max(self._begins[mine], other._begins[theirs], from_number)
            end = min(self._ends[mine], other._ends[theirs])
            if begin < end:
                return begin, end
            if self._begins[mine] >= other._begins[theirs]:
                mine -= 1
            else:
                theirs -= 1
        return None
