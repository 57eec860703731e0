"""Who may join the line, and what the others are told."""

import pytest

from scoring_runtime.dispatch.admission import Limit, QueueLimits, limit_met, retry_after
from scoring_runtime.dispatch.forecast import Forecast
from scoring_runtime.dispatch.queue import RequestQueue, Ticket

NOTHING_AHEAD = Forecast(0.0, 0.0)


def line_of(*sizes: int) -> RequestQueue:
    queue = RequestQueue()
    for size in sizes:
        ticket = Ticket()
        ticket.body = b"x" * size
        queue.push(ticket)
    return queue


@pytest.mark.parametrize(
    ("waiting", "size", "met"),
    [
        ((), 0, None),
        ((), 101, None),  # an empty line takes any single request
        ((1, 1), 1, None),
        ((1, 1, 1), 1, Limit.COUNT),
        ((60,), 40, None),
        ((60,), 41, Limit.BYTES),
        ((100,), 0, None),
    ],
)
def test_the_line_is_bounded_by_count_and_by_bytes(waiting, size, met):
    limits = QueueLimits(max_count=3, max_bytes=100, max_wait_s=1.0)
    assert limit_met(line_of(*waiting), limits, size, NOTHING_AHEAD) is met


@pytest.mark.parametrize(
    ("wait_s", "answer_s", "left_s", "met"),
    [
        (1.0, 9.0, float("inf"), None),
        (1.01, 9.0, float("inf"), Limit.WAIT),
        (0.5, 2.0, 2.0, None),
        (0.5, 2.1, 2.0, Limit.DEADLINE),
        (1.5, 2.1, 2.0, Limit.WAIT),
    ],
)
def test_the_line_is_bounded_by_time(wait_s, answer_s, left_s, met):
    limits = QueueLimits(max_count=3, max_bytes=100, max_wait_s=1.0)
    assert limit_met(line_of(1), limits, 1, Forecast(wait_s, answer_s), left_s) is met


def test_where_a_scorer_has_nothing_to_do_a_deadline_is_tried_even_if_it_looks_too_short():
    """Else a cost from a slow hour would refuse everybody for ever: nothing would run to correct it."""
    limits = QueueLimits(max_count=3, max_bytes=100, max_wait_s=1.0)
    assert limit_met(line_of(), limits, 1, Forecast(0.0, 60.0), left_s=0.1) is None


def test_who_leaves_makes_room():
    queue, limits = RequestQueue(), QueueLimits(1, 100, 1.0)
    first = Ticket()
    queue.push(first)
    assert limit_met(queue, limits, 1, NOTHING_AHEAD) is Limit.COUNT
    queue.cancel(first)
    assert limit_met(queue, limits, 1, NOTHING_AHEAD) is None


@pytest.mark.parametrize(
    ("predicted_s", "told_s"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.1, 2), (59.5, 60), (3600.0, 60), (-1.0, 1)]
)
def test_the_time_to_come_back_is_computed_and_bounded(predicted_s, told_s):
    assert retry_after(predicted_s) == told_s
