"""Natural batching: a scorer that is free gets what is waiting, up to a bound. Nothing ever waits for company."""

from dataclasses import dataclass

from .cost import CostModel
from .queue import RequestQueue, Ticket


@dataclass(frozen=True)
class FrameLimits:
    """The bounds of one frame: requests, bytes of bodies, predicted seconds."""

    max_count: int
    max_bytes: int
    target_s: float


def take_frame(queue: RequestQueue, cost: CostModel, limits: FrameLimits, idle_scorers: int) -> list[Ticket]:
    """The tickets for the next frame, in the order in which they came; empty only when nothing waits.

    One ticket always goes, whatever it costs. Several idle scorers share what waits. A ticket under which a scorer has
    ended travels alone, so that a poisonous request can harm nobody a second time.
    """
    fair_share = -(-queue.count // max(1, idle_scorers))
    count = min(cost.largest(limits.target_s, limits.max_count), fair_share)
    return queue.take(max(1, count), limits.max_bytes)
