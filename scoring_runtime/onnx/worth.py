"""How many rows a run should hold: as many as make a row cheapest, learned from what runs take.

Whether company pays depends on the model. A tree ensemble takes hardly longer for 32 rows than for one; a network of
convolutions may take longer for each row of 32 than for a row alone, because its values no longer fit the cache. So sizes
are compared by their time for each row. Copying rows next to each other counts in it.

Seconds in, rows out: no session, no clock.
"""

from collections import deque
from collections.abc import Callable

from .batch import Signature

WINDOW = 16
"""A size is judged by its last so many runs, of which the lower quartile counts: what disturbs a run makes it slower, never
quicker."""
TIE = 1.03
"""A size that is within this of the best is as good, and the smallest of those is taken: its answers come earlier."""
SURE_AFTER = 3
"""Runs after which a size is known. Until then the next larger size than the best is tried whenever there are rows for it."""
TRIAL_SHARE = 0.02
"""Of the time, for trying the neighbours of the best size again: what was disturbed once may be better than it seemed."""
TRIAL_RUNS = 16
"""So many runs long a trial waits for rows enough; then it is another size's turn."""

BUDGET_S = 0.5
"""For the measurement at warm-up."""
REPEATS = 9
WORSE = 1.1
"""The measurement stops at a size whose rows take so many times those of the best: larger ones would be worse."""

_MOST_SIGNATURES = 1024
_MOST_KINDS = 128


class _Size:
    """The last runs of about so many rows."""

    __slots__ = ("cell_s", "seen", "times_s")

    def __init__(self) -> None:
        self.times_s: deque[float] = deque(maxlen=WINDOW)  # for each cell
        self.seen = 0
        self.cell_s = 0.0
        """By which it is judged."""

    def judge(self) -> None:
        self.cell_s = sorted(self.times_s)[(len(self.times_s) - 1) // 4]


class Kind:
    """Rows of about one shape. Their sizes of runs are filed by powers of two: 1, 2, 3-4, 5-8, ... rows."""

    __slots__ = (
        *("_cap", "_row_cells", "_sizes", "_spare_s", "_top", "_trial", "_turn", "_waited"),
        *("best_rows", "most_rows"),
    )

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._top = _size(cap)
        self._sizes: dict[int, _Size] = {}
        self._row_cells = 1.0
        self._spare_s = 0.0
        self._trial: int | None = None
        self._turn = 0
        self._waited = 0  # runs since the trial began
        self.best_rows = 1
        """The size that is best by what is known."""
        self.most_rows = 1
        """What the next run should hold at most: the best size, or one that is tried."""

    def observe(self, rows: int, cells: float, seconds: float) -> None:
        """A run of `rows` rows, of `cells` cells in all, took so long. Padding is no cell: so it makes the others dearer."""
        if not 0 < rows <= self._cap or not cells:
            return
        size = _size(rows)
        known = self._sizes.get(size)
        if known is None:
            known = self._sizes[size] = _Size()
        known.times_s.append(seconds / cells)
        known.seen += 1
        self._row_cells = cells / rows
        settled = False
        if self._trial is None:
            self._spare_s += TRIAL_SHARE * seconds
        elif size == self._trial:
            self._spare_s -= seconds
            self._trial, settled = None, True
        else:
            self._waited += 1
            if self._waited >= TRIAL_RUNS:
                self._trial, settled = None, True
        # To judge at each run would cost a cheap model what a request costs.
        if settled or known.seen < WINDOW or not known.seen % WINDOW:
            known.judge()
            self._choose()

    def gain(self) -> float | None:
        """Throughput of the best size against that of single rows; of the best larger one where that is single rows.

        None where there is nothing to compare.
        """
        by_size = {size: known.cell_s for size, known in self._sizes.items()}
        alone = by_size.pop(0, None)
        if alone is None or not by_size:
            return None
        best = _size(self.best_rows)
        best_s = by_size[best] if best in by_size else min(by_size.values())
        return alone / best_s if best_s else None  # a clock with large steps may see nothing

    def _choose(self) -> None:
        by_size = {size: known.cell_s for size, known in self._sizes.items()}
        good = TIE * min(by_size.values())
        best = min(size for size, seconds in by_size.items() if seconds <= good)
        self.best_rows = self._rows(best)
        larger = self._sizes.get(best + 1)
        if best < self._top and (larger is None or larger.seen < SURE_AFTER):
            self._trial = None
            self.most_rows = self._rows(best + 1)
            return
        if self._trial is None:
            neighbours = [size for size in (best - 1, best + 1) if 0 <= size <= self._top]
            if neighbours:
                size = neighbours[self._turn % len(neighbours)]
                run_s = by_size.get(size, by_size[best]) * self._row_cells * self._rows(size)
                if self._spare_s >= run_s:
                    self._trial, self._waited = size, 0
                    self._turn += 1
        self.most_rows = self.best_rows if self._trial is None else self._rows(self._trial)

    def _rows(self, size: int) -> int:
        return min(1 << size, self._cap)


class Worth:
    """The kinds of rows that one model was given. At most `cap` rows go in a run."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._by_signature: dict[Signature, tuple[Kind, int]] = {}
        self._kinds: dict[Signature, Kind] = {}

    def of(self, signature: Signature) -> tuple[Kind, int]:
        """What is known of rows of this shape, and how many cells one has.

        Shapes whose sizes have the same number of bits share what is known, so that not every length of a text must be
        learned by itself.
        """
        known = self._by_signature.get(signature)
        if known is not None:
            return known
        key = tuple([tuple([size.bit_length() for size in shape]) for shape in signature])
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:  # clients choose shapes: what is known must stay small
                self._kinds.clear()
                self._by_signature.clear()
            kind = self._kinds[key] = Kind(self._cap)
        if len(self._by_signature) >= _MOST_SIGNATURES:
            self._by_signature.clear()
        known = self._by_signature[signature] = kind, cells(signature)
        return known


def cells(signature: Signature) -> int:
    """How many cells a row of this shape has; at least 1."""
    total = 0
    for shape in signature:
        count = 1
        for size in shape:
            count *= size
        total += count
    return max(1, total)


def measure(kind: Kind, row_cells: int, cap: int, seconds_of: Callable[[int], float]) -> None:
    """Tell `kind` what runs of 1, 2, 4, ... rows take, until they get worse or the time is up.

    seconds_of: run so many rows, and say how long it took.
    """
    spent_s, best_s, rows = 0.0, float("inf"), 1
    while True:
        times = [seconds_of(rows)]
        spent_s += times[0]
        while (
            len(times) <= REPEATS
            and spent_s + times[-1] <= BUDGET_S
            and (len(times) <= SURE_AFTER or sum(times) < BUDGET_S / 8)
        ):
            times.append(seconds_of(rows))
            spent_s += times[-1]
        for seconds in times[1:] or times:  # the first run of a size finds no memory yet
            kind.observe(rows, rows * row_cells, seconds)
        row_s = min(times) / rows
        larger = min(2 * rows, cap)
        if larger == rows or row_s > WORSE * best_s or spent_s + (SURE_AFTER + 1) * larger * row_s > BUDGET_S:
            return
        rows, best_s = larger, min(best_s, row_s)


def _size(rows: int) -> int:
    return (rows - 1).bit_length()
