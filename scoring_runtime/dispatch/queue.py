"""The waiting line of requests. Pure: `now` comes in as seconds of a monotonic clock."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

FOREVER = float("inf")


class Ticket:
    """One request from admission until it is settled.

    `settled` turns true exactly once, through `settle` or the line's `cancel`; whoever comes later is told so.
    Subclasses say in `on_settled` what an answer means to them. The defaults stand in the class and not in an
    `__init__`: most tickets never change them, and setting them costs more than parsing the request.
    """

    route = 0
    method = 0
    head: bytes = b""
    body: Any = b""
    queued_at = 0.0
    expires_at = FOREVER  # its own deadline
    timeout_ms = 0  # what was left of it when it was sent; 0 for none
    attempts = 0  # how many scorers ended under it
    settled = False
    waiting = False  # in the line, neither sent nor settled

    def settle(self, answer: Any) -> bool:
        """Give the answer; False when there already was one, or the client has gone."""
        if self.settled:
            return False
        self.settled = True
        self.on_settled(answer)
        return True

    def on_settled(self, answer: Any) -> None:
        """What the owner does with the answer."""
        raise NotImplementedError


class RequestQueue:
    """First in, first out; counts requests and bytes; forgets cancelled tickets when it meets them."""

    def __init__(self) -> None:
        self._line: deque[Ticket] = deque()
        self.returned = 0  # tickets in it that have lost a scorer
        self.timed = False  # some ticket in it has a deadline of its own
        self.count = 0
        self.size_bytes = 0

    def push(self, ticket: Ticket) -> None:
        """To the end of the line."""
        ticket.waiting = True
        self._line.append(ticket)
        self.count += 1
        self.size_bytes += len(ticket.body)

    def extend(self, tickets: Sequence[Ticket], size_bytes: int) -> None:
        """To the end of the line, in the order given; `size_bytes` is what their bodies have together."""
        for ticket in tickets:
            ticket.waiting = True
        self._line.extend(tickets)
        self.count += len(tickets)
        self.size_bytes += size_bytes

    def push_front(self, tickets: Iterable[Ticket]) -> None:
        """Back to the head of the line, in the order given: they have waited before."""
        for ticket in reversed(list(tickets)):
            self.returned += ticket.attempts > 0
            self.timed = self.timed or ticket.expires_at != FOREVER
            ticket.waiting = True
            self._line.appendleft(ticket)
            self.count += 1
            self.size_bytes += len(ticket.body)

    def take(self, max_count: int, max_bytes: int) -> list[Ticket]:
        """The next tickets in order, at least one when any waits, then as many as both bounds allow.

        A ticket under which a scorer has ended comes alone.
        """
        line = self._line
        if line and len(line) == self.count <= max_count and self.size_bytes <= max_bytes and not self.returned:
            # All of it: nothing was cancelled and nothing returned, so no ticket needs a look of its own.
            everything = list(line)
            line.clear()
            for ticket in everything:
                ticket.waiting = False
            self.count = self.size_bytes = 0
            self.timed = False
            return everything
        taken: list[Ticket] = []
        taken_bytes = 0
        while line and len(taken) < max_count:
            ticket = line[0]
            if not ticket.settled:
                size_bytes = len(ticket.body)
                if taken and (ticket.attempts or taken_bytes + size_bytes > max_bytes):
                    break
                ticket.waiting = False
                taken.append(ticket)
                taken_bytes += size_bytes
                if ticket.attempts:
                    self.returned -= 1
                    line.popleft()
                    break
            line.popleft()  # taken now, or cancelled and uncounted before
        self.count -= len(taken)
        self.size_bytes -= taken_bytes
        if not line:
            self.timed = False
        return taken

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for the answer any more: what waits is not run, what was sent is answered into the void."""
        ticket.settled = True
        if ticket.waiting:
            self._leave(ticket)
            ticket.body = b""  # the line forgets the ticket only when it meets it

    def take_expired(self, now: float, max_wait_s: float = FOREVER) -> list[Ticket]:
        """Remove and return every ticket past its own deadline or in line for `max_wait_s`, in order."""
        oldest = now - max_wait_s
        expired = [
            ticket
            for ticket in self._line
            if not ticket.settled and (ticket.expires_at <= now or ticket.queued_at <= oldest)
        ]
        for ticket in expired:
            self._leave(ticket)
        if len(self._line) != self.count:  # what was cancelled must not pile up while nothing is taken
            self._line = deque(ticket for ticket in self._line if ticket.waiting)
        return expired

    def take_all(self) -> list[Ticket]:
        """Remove and return everything that waits, in order."""
        return self.take_expired(FOREVER, 0.0)

    def _leave(self, ticket: Ticket) -> None:
        ticket.waiting = False
        self.returned -= ticket.attempts > 0
        self.count -= 1
        self.size_bytes -= len(ticket.body)
