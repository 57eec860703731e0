"""Who may join the waiting line. What cannot be served in time is refused at the door, with a time to come back."""

import enum
import math
from dataclasses import dataclass

from .forecast import Forecast
from .queue import FOREVER, RequestQueue


class Limit(enum.StrEnum):
    """What a request was refused for, or expired by."""

    COUNT = "queued_requests"
    BYTES = "queued_bytes"
    WAIT = "queue_wait"
    DEADLINE = "deadline"  # the request's own


@dataclass(frozen=True)
class QueueLimits:
    """How many requests, and how many bytes of them, may wait, and how long each."""

    max_count: int
    max_bytes: int
    max_wait_s: float


def limit_met(
    queue: RequestQueue, limits: QueueLimits, size_bytes: int, ahead: Forecast, left_s: float = FOREVER
) -> Limit | None:
    """What a request of `size_bytes` may not join for; None if it may. `left_s`: to its own deadline.

    An empty line takes any single request, and a scorer that has nothing to do any deadline: a cost that was learned in
    a bad hour is unlearned only when requests run.
    """
    if queue.count >= limits.max_count:
        return Limit.COUNT
    if queue.count and queue.size_bytes + size_bytes > limits.max_bytes:
        return Limit.BYTES
    if ahead.wait_s > limits.max_wait_s:
        return Limit.WAIT
    if ahead.wait_s and ahead.answer_s > left_s:
        return Limit.DEADLINE
    return None


def retry_after(predicted_wait_s: float) -> int:
    """Whole seconds, at least 1 and at most 60, after which the line will have moved."""
    return min(60, max(1, math.ceil(predicted_wait_s)))
