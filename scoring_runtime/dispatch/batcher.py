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


def frame_count(cost: CostModel, limits: FrameLimits, each_bytes: int) -> int:
    """How many requests of `each_bytes` a full frame holds."""
    count = cost.largest(limits.target_s, limits.max_count, each_bytes)
    return count if count * each_bytes <= limits.max_bytes else max(1, limits.max_bytes // each_bytes)


def take_frame(queue: RequestQueue, cost: CostModel, limits: FrameLimits, idle_scorers: int) -> list[Ticket]:
    """The tickets for the next frame, in the order in which they came; empty only when nothing waits.

    One ticket always goes, whatever it costs. Several idle scorers share what waits. A ticket under which a scorer has
    ended travels alone, so that a poisonous request can harm nobody a second time.
    """
    waiting = queue.count
    if not waiting:
        return []
    fair_share = -(-waiting // max(1, idle_scorers))
    count = cost.largest(limits.target_s, limits.max_count, queue.size_bytes // waiting)
    return queue.take(min(count, fair_share), limits.max_bytes)


def fills_all(queue: RequestQueue, cost: CostModel, limits: FrameLimits, scorers: int) -> bool:
    """Whether a full frame waits for each of so many scorers, so that nothing is lost by sending one before its time.

    With fewer the requests wait for company. Where some ticket has lost a scorer the line waits too: such a one shares a
    scorer with nobody.
    """
    waiting = queue.count
    if not waiting or queue.returned or cost.predict(1, 0) is None:
        return False
    return waiting >= scorers * frame_count(cost, limits, queue.size_bytes // waiting)


def split_late(tickets: list[Ticket], now: float, max_wait_s: float) -> tuple[list[Ticket], list[Ticket]]:
    """Those that may still run, and those that are past their deadline or have waited for too long."""
    oldest = now - max_wait_s
    late = [ticket for ticket in tickets if ticket.expires_at <= now or ticket.queued_at <= oldest]
    return [ticket for ticket in tickets if ticket.expires_at > now and ticket.queued_at > oldest], late
