"""Who may join the waiting line. What cannot be served is refused at the door, with a time to come back."""

import math
from dataclasses import dataclass

from ..errors import Overloaded
from .queue import RequestQueue


@dataclass(frozen=True)
class QueueLimits:
    """How many requests, and how many bytes of them, may wait."""

    max_count: int
    max_bytes: int


def admits(queue: RequestQueue, limits: QueueLimits, size_bytes: int) -> bool:
    """Whether a request of `size_bytes` may join. An empty line takes any single request."""
    return queue.count < limits.max_count and (not queue.count or queue.size_bytes + size_bytes <= limits.max_bytes)


def refusal(queue: RequestQueue, limits: QueueLimits, predicted_wait_s: float) -> Overloaded:
    """Why a request may not join, and when to try again."""
    if queue.count >= limits.max_count:
        what, setting = f"{queue.count} requests are waiting already", "max_queued_requests"
    else:
        what, setting = f"the requests that wait hold {queue.size_bytes} bytes already", "max_queued_bytes"
    retry_after_s = retry_after(predicted_wait_s)
    return Overloaded(f"The server is overloaded: {what}. Try again in {retry_after_s} s.", retry_after_s, setting)


def retry_after(predicted_wait_s: float) -> int:
    """Whole seconds, at least 1 and at most 60, after which the line will have moved."""
    return min(60, max(1, math.ceil(predicted_wait_s)))
