"""How long a request will wait, and when it will be answered: from what waits before it and what is under way."""

from collections.abc import Collection
from math import sqrt
from typing import NamedTuple

from .batcher import FrameLimits, frame_count
from .cost import CostModel


class Flight:
    """A frame that a scorer has."""

    __slots__ = ("alone", "count", "expected_at", "expired", "size_bytes", "stopped", "timed")

    def __init__(self, count: int, size_bytes: int, expected_at: float, timed: bool) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.expected_at = expected_at  # when it will be settled
        self.timed = timed  # some request in it has a deadline of its own
        self.expired = 0  # requests in it that did not run, because their deadlines had passed
        self.alone = False  # a request that has lost a scorer: nothing is to share one with it
        self.stopped = False  # nobody waited for it any more, and the scorer was told so


class Line(NamedTuple):
    """What waits, and how many scorers have nothing to do."""

    waiting: int
    size_bytes: int
    idle_scorers: int


class Forecast(NamedTuple):
    """What awaits a request, in seconds."""

    wait_s: float  # until a scorer has it
    answer_s: float  # until it is answered


def forecast(
    cost: CostModel, limits: FrameLimits, line: Line, flights: Collection[Flight], size_bytes: int, now: float
) -> Forecast:
    """What awaits a request of `size_bytes` that joins the end of the line now; nothing while no cost is known.

    Scorers are taken to end their frames one after another, in the order in which they are free, and each frame of the
    line to cost the same. Of one frame a high quantile is expected. Over many, slow ones and quick ones make up for each
    other: what the quantile has above the mean grows with the root of their number only.
    """
    count = line.waiting + 1
    each_bytes = (line.size_bytes + size_bytes) // count
    together = frame_count(cost, limits, each_bytes)
    frame = cost.predict(together, together * each_bytes)
    if frame is None:
        return Forecast(0.0, 0.0)
    frames_before, before = divmod(line.waiting, together)
    own = cost.predict(before + 1, before * each_bytes + size_bytes) or frame
    free_in_s = sorted([0.0] * line.idle_scorers + [abs(flight.expected_at - now) for flight in flights]) or [0.0]
    rounds, turn = divmod(frames_before, len(free_in_s))
    margin_s = max(0.0, frame.quantile_s - frame.mean_s)
    expected_s = free_in_s[turn] + rounds * frame.mean_s
    wait_s = expected_s + sqrt(rounds) * margin_s
    return Forecast(wait_s, expected_s + own.mean_s + sqrt(rounds + 1) * margin_s)


def expected_end(cost: CostModel, count: int, size_bytes: int, now: float) -> float:
    """When a frame that is sent now will be settled.

    One that is late is taken, by the distance from this moment, to take as long again as it is late: who knows what it
    hangs on.
    """
    predicted = cost.predict(count, size_bytes)
    return now + (predicted.mean_s if predicted is not None else 0.0)


def surely_in_time(cost: CostModel, max_wait_s: float, scorers: int) -> float:
    """How many frames may wait, whatever frames they are, so that the last of them is predicted to be sent in time.

    A bound that is right but low: where it holds, nothing needs to be predicted for a request.
    """
    dearest_s = cost.dearest_s
    if not dearest_s:
        return float("inf")
    return max(0, int(max_wait_s / dearest_s) - 1) * max(1, scorers)
