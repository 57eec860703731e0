"""When a batch does not fit into memory: it is halved, and the halves run. What has fitted is learned.

A GPU that has no memory left fails the run and nothing else, so that a smaller run may succeed. How large one may be is only
found out by trying: other processes have memory there, too, and it comes and goes.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import buckets
from .dtypes import Array
from .runner import Runner, Wrapper
from .session import OutOfMemoryError

FIRST_TRIAL_S = 30.0
"""After this time without a failure the bound is doubled: who had the memory may have gone."""
LONGEST_TRIAL_S = 3600.0
"""Each failure doubles the time, up to this: to try costs a run that fails."""

_log = logging.getLogger(__name__)


class Bound:
    """How many bytes of inputs may run together, as far as is known. Pure: the time is given.

    In bytes and not in rows: rows may be of different lengths.
    """

    def __init__(self) -> None:
        self.most_bytes: int | None = None
        """None: no run has failed, or those that failed are tried again."""
        self._failed_bytes = 0
        self._failed: float | None = None
        self._changed = 0.0
        self._wait_s = FIRST_TRIAL_S

    def fell(self, size_bytes: int, now: float) -> None:
        """A run of such size did not fit."""
        half = max(1, size_bytes // 2)
        self.most_bytes = half if self.most_bytes is None else min(half, self.most_bytes)
        self._failed_bytes = max(size_bytes, self._failed_bytes)
        # Failures close to each other are one: a half is followed by its quarter.
        if self._failed is not None and now - self._failed >= FIRST_TRIAL_S:
            self._wait_s = min(self._wait_s * 2, LONGEST_TRIAL_S)
        self._failed = self._changed = now

    def rows(self, rows: int, size_bytes: int, now: float) -> int:
        """How many of so many rows, which are of `size_bytes` together, may run at once; at least one."""
        if self.most_bytes is not None and now - self._changed >= self._wait_s:
            self._changed = now
            self.most_bytes = self.most_bytes * 2 if self.most_bytes * 2 < self._failed_bytes else None
        if self.most_bytes is None:
            return rows
        return min(rows, max(1, self.most_bytes * rows // max(1, size_bytes)))


class Halving(Wrapper):
    """A Runner whose runs are cut where memory does not hold them. For models whose rows do not depend on each other."""

    def __init__(self, runner: Runner, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(runner)
        self._clock = clock
        self.bound = Bound()

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """As Runner. OutOfMemoryError when not even one row fits."""
        if self.bound.most_bytes is not None:
            rows = buckets.rows_of(arrays)
            most_rows = rows and self.bound.rows(rows, _size_bytes(arrays), self._clock())
            if rows and most_rows and most_rows < rows:
                return self._run_parts(arrays, rows, most_rows)
        try:
            return self._runner.run(arrays)
        except OutOfMemoryError as error:
            rows = buckets.rows_of(arrays)
            if rows is None or rows == 1:
                raise
            self.bound.fell(_size_bytes(arrays), self._clock())
            half = (rows + 1) // 2
            _log.warning(
                "a batch of %d rows does not fit into memory: it runs in parts of %d, and so do those that follow (%s)",
                *(rows, half, error),
            )
            return self._run_parts(arrays, rows, half)

    def _run_parts(self, arrays: Sequence[Array], rows: int, most_rows: int) -> list[Any]:
        return buckets.join([self.run([array[part] for array in arrays]) for part in buckets.parts(rows, most_rows)])


def _size_bytes(arrays: Sequence[Array]) -> int:
    return sum(array.nbytes for array in arrays)
