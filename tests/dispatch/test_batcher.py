"""Natural batching, with scorers that are numbers and a clock that is a variable."""

import heapq
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.dispatch.batcher import FrameLimits, fills_all, frame_count, split_late, take_frame
from scoring_runtime.dispatch.cost import CostModel
from scoring_runtime.dispatch.queue import RequestQueue, Ticket

ROOMY = FrameLimits(max_count=128, max_bytes=1 << 20, target_s=1.0)
CHEAP_S = 0.000001


def line_of(count: int, size: int = 1) -> tuple[RequestQueue, list[Ticket]]:
    queue, tickets = RequestQueue(), [Ticket() for _ in range(count)]
    for ticket in tickets:
        ticket.body = b"x" * size
        queue.push(ticket)
    return queue, tickets


def cost_of(**times_s: float) -> CostModel:
    """A model that has seen frames: `n4=0.1` is one of four requests that took 0.1 s."""
    cost = CostModel()
    for name, time_s in times_s.items():
        cost.observe(int(name[1:]), 0, time_s)
    return cost


def quick() -> CostModel:
    """A model that has seen frames of every size, all of them quick."""
    return cost_of(**{f"n{1 << power}": CHEAP_S for power in range(8)})


def test_nothing_waits_nothing_goes():
    assert take_frame(RequestQueue(), CostModel(), ROOMY, idle_scorers=1) == []


def test_what_waits_goes_together():
    queue, tickets = line_of(50)
    assert take_frame(queue, quick(), ROOMY, idle_scorers=1) == tickets


def test_the_first_frame_of_an_unknown_engine_holds_one_request():
    queue, tickets = line_of(50)
    assert take_frame(queue, CostModel(), ROOMY, idle_scorers=1) == tickets[:1]


def test_a_frame_is_bounded_by_count():
    queue, tickets = line_of(50)
    limits = FrameLimits(7, 1 << 20, 1.0)
    assert take_frame(queue, quick(), limits, idle_scorers=1) == tickets[:7]


def test_a_frame_is_bounded_by_bytes():
    queue, tickets = line_of(50, size=10)
    limits = FrameLimits(128, 35, 1.0)
    assert take_frame(queue, quick(), limits, idle_scorers=1) == tickets[:3]


def test_a_frame_is_bounded_by_what_it_is_predicted_to_cost():
    queue, tickets = line_of(50)
    limits = FrameLimits(128, 1 << 20, target_s=0.025)
    assert take_frame(queue, cost_of(n1=0.004, n2=0.008, n4=0.016), limits, idle_scorers=1) == tickets[:4]


def test_one_request_goes_whatever_it_costs():
    queue, tickets = line_of(2, size=1000)
    limits = FrameLimits(128, max_bytes=1, target_s=0.001)
    assert take_frame(queue, cost_of(n1=60.0), limits, idle_scorers=1) == tickets[:1]


def test_idle_scorers_share_what_waits():
    queue, tickets = line_of(10)
    cost = quick()
    shares = [take_frame(queue, cost, ROOMY, idle_scorers=idle) for idle in (4, 3, 2, 1)]
    assert [len(share) for share in shares] == [3, 3, 2, 2]
    assert [ticket for share in shares for ticket in share] == tickets


def test_no_scorer_stays_idle_while_another_one_has_two():
    queue, _ = line_of(3)
    shares = [take_frame(queue, quick(), ROOMY, idle_scorers=idle) for idle in (3, 2, 1)]
    assert [len(share) for share in shares] == [1, 1, 1]


def test_a_full_frame_is_bounded_by_bytes_too():
    limits = FrameLimits(128, max_bytes=1000, target_s=1.0)
    assert [frame_count(quick(), limits, each_bytes) for each_bytes in (0, 1, 100, 1000, 5000)] == [128, 128, 10, 1, 1]


@given(
    tickets=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10) | st.just(float("inf"))), max_size=10),
    now=st.floats(0, 10),
    max_wait_s=st.floats(0.1, 10),
)
def test_what_nobody_waits_for_any_more_is_sorted_out(tickets, now, max_wait_s):
    frame = []
    for queued_at, expires_at in tickets:
        ticket = Ticket()
        ticket.queued_at, ticket.expires_at = queued_at, expires_at
        frame.append(ticket)
    due, late = split_late(frame, now, max_wait_s)
    assert sorted(map(id, due + late)) == sorted(map(id, frame))
    assert all(ticket.expires_at > now and ticket.queued_at > now - max_wait_s for ticket in due)
    assert all(ticket.expires_at <= now or ticket.queued_at <= now - max_wait_s for ticket in late)


class Done(NamedTuple):
    """A frame that a scorer has, in the order in which frames end."""

    at_s: float
    number: int
    frame: list[Ticket]
    took_s: float


def test_a_frame_may_go_before_its_time_when_a_full_one_waits_for_each_scorer():
    queue, limits = RequestQueue(), FrameLimits(4, 1 << 20, 0.025)
    found = []
    for _ in range(8):
        queue.push(Ticket())
        found.append((fills_all(queue, quick(), limits, 1), fills_all(queue, quick(), limits, 2)))
    assert found == [(count >= 4, count >= 8) for count in range(1, 9)]
    assert not fills_all(RequestQueue(), quick(), limits, 1)
    assert not fills_all(queue, CostModel(), limits, 1)  # nothing is known yet


def test_a_frame_is_full_by_its_bytes_as_well():
    queue = RequestQueue()
    for _ in range(2):
        ticket = Ticket()
        ticket.body = b"x" * 500
        queue.push(ticket)
    assert fills_all(queue, quick(), FrameLimits(128, 1000, 0.025), 1)
    assert not fills_all(queue, quick(), FrameLimits(128, 2000, 0.025), 1)


def test_no_frame_goes_before_its_time_where_a_request_has_lost_a_scorer():
    queue = RequestQueue()
    queue.push(Ticket())
    queue.push(Ticket())
    assert fills_all(queue, quick(), FrameLimits(1, 1000, 0.025), 1)
    lost = Ticket()
    lost.attempts = 1
    queue.push_front([lost])
    assert not fills_all(queue, quick(), FrameLimits(1, 1000, 0.025), 1)


@settings(max_examples=60, deadline=None)
@given(
    arrivals_ms=st.lists(st.integers(0, 50), max_size=60),
    scorers=st.integers(1, 4),
    one_s=st.sampled_from([0.0001, 0.002, 0.04]),
    stacks=st.booleans(),
    max_count=st.integers(1, 20),
)
def test_a_day_at_work(arrivals_ms, scorers, one_s, stacks, max_count):
    """Whatever arrives when: everything is run once and in order, bounds hold, and no scorer idles while anything waits."""
    queue, cost = RequestQueue(), CostModel()
    limits = FrameLimits(max_count, 1 << 20, 0.025)
    arriving = [(at_ms / 1000, Ticket()) for at_ms in sorted(arrivals_ms)]
    tickets = [ticket for _, ticket in arriving]
    begun: list[Ticket] = []
    busy: list[Done] = []
    number = 0
    while arriving or busy:
        if arriving and (not busy or arriving[0][0] <= busy[0].at_s):
            now, ticket = arriving.pop(0)
            queue.push(ticket)
        else:
            now, _, frame, took_s = heapq.heappop(busy)
            cost.observe(len(frame), 0, took_s)
        while queue.count and len(busy) < scorers:
            frame = take_frame(queue, cost, limits, scorers - len(busy))
            assert 1 <= len(frame) <= max_count
            predicted = cost.predict(len(frame), 0)
            assert len(frame) == 1 or (predicted is not None and predicted.quantile_s <= limits.target_s)
            begun += frame
            number += 1
            took_s = one_s * (1 if stacks else len(frame))
            heapq.heappush(busy, Done(now + took_s, number, frame, took_s))
        assert not queue.count or len(busy) == scorers
    assert begun == tickets
