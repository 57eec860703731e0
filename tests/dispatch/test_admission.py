"""Who may join the line, and what the others are told."""

import pytest

from scoring_runtime.dispatch.admission import QueueLimits, admits, refusal, retry_after
from scoring_runtime.dispatch.queue import RequestQueue, Ticket


def line_of(*sizes: int) -> RequestQueue:
    queue = RequestQueue()
    for size in sizes:
        ticket = Ticket()
        ticket.body = b"x" * size
        queue.push(ticket)
    return queue


@pytest.mark.parametrize(
    ("waiting", "size", "admitted"),
    [
        ((), 0, True),
        ((), 101, True),  # an empty line takes any single request
        ((1, 1), 1, True),
        ((1, 1, 1), 1, False),  # too many
        ((60,), 40, True),
        ((60,), 41, False),  # too much
        ((100,), 0, True),
    ],
)
def test_the_line_is_bounded_by_count_and_by_bytes(waiting, size, admitted):
    assert admits(line_of(*waiting), QueueLimits(max_count=3, max_bytes=100), size) is admitted


def test_who_leaves_makes_room():
    queue, limits = RequestQueue(), QueueLimits(1, 100)
    first = Ticket()
    queue.push(first)
    assert not admits(queue, limits, 1)
    queue.cancel(first)
    assert admits(queue, limits, 1)


@pytest.mark.parametrize(
    ("predicted_s", "told_s"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.1, 2), (59.5, 60), (3600.0, 60), (-1.0, 1)]
)
def test_the_time_to_come_back_is_computed_and_bounded(predicted_s, told_s):
    assert retry_after(predicted_s) == told_s


def test_a_refusal_says_what_there_is_too_much_of_and_when_to_come_back():
    too_many = refusal(line_of(1, 1), QueueLimits(2, 100), predicted_wait_s=2.5)
    too_much = refusal(line_of(90), QueueLimits(2, 100), predicted_wait_s=0.0)
    assert (too_many.status, too_many.retry_after_s) == (503, 3)
    assert too_many.message == "The server is overloaded: 2 requests are waiting already. Try again in 3 s."
    assert (too_much.status, too_much.retry_after_s) == (503, 1)
    assert too_much.message == (
        "The server is overloaded: the requests that wait hold 90 bytes already. Try again in 1 s."
    )
