"""Does something grow? A process is sampled through its life; what it holds near the end is compared with its youth. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SAMPLES = 20
"""Of a process that lived shorter than this nothing can be told."""


@dataclass(frozen=True)
class Limit:
    """How much more may be held near the end: so much, or that part of what it was, whichever is more."""

    more: float
    part: float = 0.0

    def allows(self, before: float, after: float) -> bool:
        """Whether the growth is within the limit."""
        return after - before <= max(self.more, self.part * before)


LIMITS = {
    "rss_bytes": Limit(12 << 20, 0.15),
    "descriptors": Limit(4),  # without sockets: those come and go with clients, and are counted when these have gone
    "memfds": Limit(1),
    "threads": Limit(1),
    "children": Limit(1),
}


@dataclass(frozen=True)
class Growth:
    """Medians of the second and of the last fifth of the samples."""

    before: float
    after: float


def growth(samples: Sequence[float]) -> Growth | None:
    """None when there are too few samples. The first fifth is warm-up; medians do not see single peaks."""
    fifth = len(samples) // 5
    if len(samples) < LEAST_SAMPLES:
        return None
    return Growth(statistics.median(samples[fifth : 2 * fifth]), statistics.median(samples[-fifth:]))
