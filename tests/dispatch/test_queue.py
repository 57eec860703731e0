"""The waiting line against a plain list that says what it ought to hold."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scoring_runtime.dispatch.queue import RequestQueue, Ticket

FOREVER = float("inf")


class Request(Ticket):
    """A ticket that keeps every answer it is given."""

    def __init__(self, number: int, body: bytes = b"", queued_at: float = 0.0, expires_at: float = FOREVER) -> None:
        self.number = number
        self.body = body
        self.queued_at = queued_at
        self.expires_at = expires_at
        self.answers: list[Any] = []

    def on_settled(self, answer: Any) -> None:
        self.answers.append(answer)

    def __repr__(self) -> str:
        return f"<{self.number}>"


def line_of(*requests: Request) -> RequestQueue:
    queue = RequestQueue()
    for request in requests:
        queue.push(request)
    return queue


def due(line: list[Request], max_count: int, max_bytes: int) -> list[Request]:
    """What `take` has to give: the longest beginning of the line that keeps the rules, but at least one."""
    if line and line[0].attempts:
        return line[:1]
    count = 1
    while (
        count < min(max_count, len(line))
        and not line[count].attempts
        and sum(len(request.body) for request in line[: count + 1]) <= max_bytes
    ):
        count += 1
    return line[:count]


class WaitingLine(RuleBasedStateMachine):
    """Every request is in exactly one place: waiting, with a scorer, answered, or left by its client."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = RequestQueue()
        self.made: list[Request] = []
        self.waiting: list[Request] = []
        self.frames: list[list[Request]] = []
        self.answered: list[Request] = []
        self.left: list[Request] = []

    @initialize(count=st.integers(0, 5))
    def some_wait_already(self, count: int) -> None:
        for _ in range(count):
            self.arrive(1, FOREVER)

    @rule(size=st.integers(0, 9), lifetime=st.sampled_from([1.0, 3.0, FOREVER]))
    def arrive(self, size: int, lifetime: float) -> None:
        request = Request(len(self.made), b"x" * size, self.now, self.now + lifetime)
        self.made.append(request)
        self.waiting.append(request)
        self.queue.push(request)

    @rule(max_count=st.integers(1, 6), max_bytes=st.integers(1, 25))
    def take(self, max_count: int, max_bytes: int) -> None:
        frame = self.queue.take(max_count, max_bytes)
        assert frame == due(self.waiting, max_count, max_bytes)
        del self.waiting[: len(frame)]
        if frame:
            self.frames.append([request for request in frame if isinstance(request, Request)])

    @precondition(lambda self: self.frames)
    @rule(data=st.data())
    def scorer_answers(self, data: st.DataObject) -> None:
        frame = self.frames.pop(data.draw(st.integers(0, len(self.frames) - 1)))
        for request in frame:
            assert request.settle("answer") is (request not in self.left)
        self.answered += [request for request in frame if request not in self.left]

    @precondition(lambda self: self.frames)
    @rule(data=st.data())
    def scorer_dies(self, data: st.DataObject) -> None:
        frame = self.frames.pop(data.draw(st.integers(0, len(self.frames) - 1)))
        again = [request for request in frame if not request.settled]
        for request in again:
            request.attempts += 1
        self.queue.push_front(again)
        self.waiting[:0] = again

    @precondition(lambda self: self.waiting or self.frames)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        open_requests = [*self.waiting, *(one for frame in self.frames for one in frame if not one.settled)]
        if not open_requests:
            return
        request = data.draw(st.sampled_from(open_requests))
        self.queue.cancel(request)
        self.left.append(request)
        if request in self.waiting:
            self.waiting.remove(request)

    @invariant()
    def it_knows_who_lost_a_scorer(self) -> None:
        assert self.queue.returned == sum(request.attempts > 0 for request in self.waiting)

    @rule(passed_s=st.sampled_from([0.0, 1.0, 2.0]), max_wait_s=st.sampled_from([2.0, FOREVER]))
    def time_passes(self, passed_s: float, max_wait_s: float) -> None:
        self.now += passed_s
        expired = self.queue.take_expired(self.now, max_wait_s)
        assert expired == [
            request
            for request in self.waiting
            if request.expires_at <= self.now or self.now - request.queued_at >= max_wait_s
        ]
        self.waiting = [request for request in self.waiting if request not in expired]
        self.refuse(expired)

    @rule()
    def everything_is_refused(self) -> None:
        refused = self.queue.take_all()
        assert refused == self.waiting
        self.waiting = []
        self.refuse(refused)

    def refuse(self, requests: list[Ticket]) -> None:
        for request in requests:
            assert request.settle("refused")
            assert isinstance(request, Request)
            self.answered.append(request)

    @invariant()
    def counts_and_bytes_are_exact(self) -> None:
        assert self.queue.count == len(self.waiting)
        assert self.queue.size_bytes == sum(len(request.body) for request in self.waiting)

    @invariant()
    def tickets_know_whether_they_wait(self) -> None:
        assert [request for request in self.made if request.waiting] == sorted(self.waiting, key=lambda one: one.number)

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        assert all(len(request.answers) == (request in self.answered) for request in self.made)

    def teardown(self) -> None:
        """Nothing is lost: what waits comes out, and then everybody has an answer or has gone."""
        while self.queue.count:
            self.take(4, 20)
        while self.frames:
            for request in self.frames.pop():
                if request.settle("answer"):
                    self.answered.append(request)
        assert sorted(request.number for request in self.answered + self.left) == list(range(len(self.made)))
        self.nothing_is_answered_twice()


WaitingLine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWaitingLine = WaitingLine.TestCase


def test_first_come_first_served():
    first, second, third = requests = [Request(number, b"xx") for number in range(3)]
    queue = line_of(*requests)
    assert queue.take(2, 100) == [first, second]
    assert queue.take(2, 100) == [third]
    assert queue.take(2, 100) == []


def test_a_request_larger_than_a_frame_may_be_travels_alone():
    small, huge, other = Request(0, b"x"), Request(1, b"x" * 100), Request(2, b"x")
    queue = line_of(small, huge, other)
    assert queue.take(10, 50) == [small]
    assert queue.take(10, 50) == [huge]
    assert queue.take(10, 50) == [other]


def test_a_request_that_lost_a_scorer_travels_alone():
    returned, fresh, fresher = Request(0), Request(1), Request(2)
    queue = line_of(fresh, fresher)
    returned.attempts = 1
    queue.push_front([returned])
    assert queue.take(10, 100) == [returned]
    assert queue.take(10, 100) == [fresh, fresher]


def test_a_line_that_never_empties_forgets_what_lost_a_scorer():
    lost, left, recalled = Request(0), Request(1), Request(2)
    lost.attempts = left.attempts = 1
    queue = line_of(Request(3), Request(4))
    queue.push_front([lost, left])
    queue.push_front([recalled])
    assert queue.returned == 2
    queue.cancel(left)
    assert queue.returned == 1
    assert queue.take(1, 100) == [recalled]
    assert queue.take(10, 100) == [lost]
    assert (queue.returned, queue.count) == (0, 2)


def test_returned_requests_keep_their_order_and_stand_before_the_others():
    returned = [Request(number) for number in range(3)]
    queue = line_of(fresh := Request(3))
    for request in returned:
        request.attempts = 1
    queue.push_front(returned)
    assert [queue.take(10, 100) for _ in range(4)] == [[returned[0]], [returned[1]], [returned[2]], [fresh]]


def test_cancelled_requests_are_never_taken_and_let_their_bodies_go():
    first, cancelled, last = Request(0, b"abc"), Request(1, b"defg"), Request(2, b"hi")
    queue = line_of(first, cancelled, last)
    queue.cancel(cancelled)
    assert (queue.count, queue.size_bytes, cancelled.body) == (2, 5, b"")
    assert queue.take(10, 100) == [first, last]
    assert not cancelled.settle("too late")
    assert cancelled.answers == []


def test_requests_whose_clients_leave_while_nobody_takes_any_do_not_pile_up():
    waits = Request(0)
    queue = line_of(waits)
    for number in range(1, 1000):
        request = Request(number)
        queue.push(request)
        queue.cancel(request)
    assert queue.take_expired(now=1.0) == []
    assert list(queue._line) == [waits]


def test_a_request_expires_at_its_deadline_and_not_before():
    queue = line_of(early := Request(0, expires_at=5.0), late := Request(1, expires_at=6.0))
    assert queue.take_expired(4.999) == []
    assert queue.take_expired(5.0) == [early]
    assert queue.take(10, 100) == [late]


def test_the_longest_wait_counts_from_when_a_request_came():
    queue = line_of(old := Request(0, queued_at=1.0), Request(1, queued_at=2.0))
    assert queue.take_expired(10.9, max_wait_s=10.0) == []
    assert queue.take_expired(11.0, max_wait_s=10.0) == [old]
    assert queue.count == 1


def test_only_the_first_answer_counts():
    request = Request(0)
    assert request.settle("first")
    assert not request.settle("second")
    assert request.answers == ["first"]


def test_what_an_answer_means_is_for_the_owner_to_say():
    with pytest.raises(NotImplementedError):
        Ticket().settle("answer")
