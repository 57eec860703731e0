"""A rising load: what one level of it showed, and which level comes next. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEP = 4
MOST_CLIENTS = 256
LOOKS = 2
"""Between two levels of the rise."""
GAIN = 1.03
"""A level that brings less than this over those below it is no gain."""
FAR_BEYOND = 2.0
"""A p99 at so many times the limit is no noise."""


@dataclass(frozen=True)
class Point:
    """So many clients, each of which asks again when it has its answer, for a moment."""

    clients: int
    throughput: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    requests: int
    failures: int = 0
    client_share: float = 0.0
    """Of one CPU, that making the load took."""

    def keeps(self, slo_p99_ms: float) -> bool:
        """Every request was answered, 99 of 100 within the limit."""
        return self.failures == 0 and self.requests > 0 and self.p99_ms <= slo_p99_ms


def next_level(points: Sequence[Point], slo_p99_ms: float) -> int | None:
    """How many clients to try after `points`, in the order in which they were measured; None when enough is known.

    Rises in large steps until the limit is broken, twice or by far, or until more clients bring nothing; then looks a few
    times between the last level that keeps the limit and the first above it that does not.
    """
    if not points:
        return 1
    falls = (number for number in range(1, len(points)) if points[number].clients < points[number - 1].clients)
    rising = points[: next(falls, len(points))]
    looks = len(points) - len(rising)
    if looks == 0 and not _is_over(rising, slo_p99_ms):
        return rising[-1].clients * STEP
    return _between(points, slo_p99_ms) if looks < LOOKS else None


def near_knee(points: Sequence[Point], slo_p99_ms: float) -> tuple[int, ...]:
    """The levels to measure again: the best that keeps the limit, and its neighbours on both sides."""
    ordered = sorted(points, key=lambda point: point.clients)
    kept = [number for number, point in enumerate(ordered) if point.keeps(slo_p99_ms)]
    if not kept:
        return tuple(point.clients for point in ordered[:2])
    best = max(kept, key=lambda number: ordered[number].throughput)
    return tuple(point.clients for point in ordered[max(0, best - 1) : best + 2])


def _is_over(rising: Sequence[Point], slo_p99_ms: float) -> bool:
    last = rising[-1]
    if last.failures or last.p99_ms > FAR_BEYOND * slo_p99_ms or last.clients >= MOST_CLIENTS:
        return True
    if len(rising) > 1 and not last.keeps(slo_p99_ms) and not rising[-2].keeps(slo_p99_ms):
        return True
    below = max((point.throughput for point in rising[:-1]), default=0.0)
    return last.throughput < below * GAIN


def _between(points: Sequence[Point], slo_p99_ms: float) -> int | None:
    """Half way, by ratio, between the highest level that keeps the limit and the next above it."""
    lower = max((point.clients for point in points if point.keeps(slo_p99_ms)), default=None)
    if lower is None:
        return None
    upper = min((point.clients for point in points if point.clients > lower), default=lower)
    middle = round(math.sqrt(lower * upper))
    return middle if lower < middle < upper else None
