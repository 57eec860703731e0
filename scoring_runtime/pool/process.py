"""One scorer: the frames that it is given, and what comes of them."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Protocol

from ..dispatch.queue import Ticket
from ..scorer import frames
from .launch import LaunchPlan
from .launcher import Launched
from .life import Event, Life, State

_COLUMNS = attrgetter("timeout_ms", "route", "method", "head", "body")
"""Of a ticket: what travels of it, beside its id."""

_PIECE_FLAGS = frames.FLAG_MORE | frames.FLAG_ABORT

RECALL_AFTER_S = 0.1
"""A reply in pieces that takes longer gives the rest of its frame back. Short ones are not worth sending that twice."""

Reply = tuple[int, int, int, int, bytes, frames.Blob]
"""As frames.Reply."""


class Ids:
    """Request ids: rising, never used twice."""

    def __init__(self) -> None:
        self._next = 1

    def take(self, count: int) -> range:
        """The next `count` ids."""
        first = self._next
        self._next = first + count
        return range(first, first + count)


class Owner(Protocol):
    """What a scorer tells the pool."""

    def scorer_ready(self, scorer: "Scorer") -> None:
        """READY came."""

    def scorer_replied(self, scorer: "Scorer", settled: list[tuple[Ticket, Reply]], busy_us: int) -> None:
        """Replies came, for some or all of its frame."""

    def scorer_streamed(self, scorer: "Scorer", ticket: Ticket, reply: Reply) -> None:
        """A piece of a reply came; the last has no FLAG_MORE."""

    def scorer_returned(self, scorer: "Scorer", tickets: list[Ticket]) -> None:
        """It gave back what it had not begun."""

    def scorer_settled(self, scorer: "Scorer") -> None:
        """Its frame is settled: it is free."""

    def scorer_advanced(self, scorer: "Scorer") -> None:
        """Its frame is settled, and it works on the one that was sent ahead."""

    def scorer_leaving(self, scorer: "Scorer") -> None:
        """It is to be given nothing any more; scorer_ended() follows. May be said more than once."""

    def scorer_ended(self, scorer: "Scorer", unsettled: list[tuple[Ticket, bool]]) -> None:
        """The process is gone. `unsettled`: the tickets that it had, in order, and whether each may have run."""


class Scorer(Life):
    """Feed it, and hear what comes back; the owner hears what happens."""

    def __init__(
        self,
        number: int,
        plan: LaunchPlan,
        launched: Launched,
        owner: Owner,
        ids: "Ids",
        loop: asyncio.AbstractEventLoop,
        tap: Callable[[int, bytes], None] | None = None,
        max_memory_bytes: int = 0,
    ) -> None:
        super().__init__(number, f"Scorer {number}", plan, launched, loop, tap, max_memory_bytes)
        self.answered = False  # anything
        self.in_flight: dict[int, Ticket] = {}  # of the frame that it works on
        self.ahead: dict[int, Ticket] = {}  # of the frame that it has beside that
        self._ahead_timeout_s = 0.0
        self.streamed = False  # a reply of the present frame came in pieces, at its client's pace
        self._streaming = 0  # the request whose reply is coming in pieces
        self._piece_due = False  # it was asked for the next one
        self._recall_at = float("inf")
        self._running = 0  # the request that it was seen to run at the last look
        self._early: set[int] = set()  # requests whose replies were taken before they were sent
        self._owner = owner
        self._ids = ids

    # What the pool asks for

    def send(self, tickets: Sequence[Ticket], timeout_s: float) -> None:
        """Give it one frame. It is killed when the frame is not settled within `timeout_s`."""
        self._move(Event.SENT)
        self.streamed = False
        self.in_flight = self._write(tickets)
        self._set_deadline(timeout_s)

    def send_ahead(self, tickets: Sequence[Ticket], timeout_s: float) -> None:
        """Give it the frame after the one that it works on. Its time counts from when that one is settled."""
        self._move(Event.SENT_AHEAD)
        self.ahead = self._write(tickets)
        self._ahead_timeout_s = timeout_s

    def _write(self, tickets: Sequence[Ticket]) -> dict[int, Ticket]:
        # A new id for each try: within a scorer ids only rise, so its mark says which of them it has begun.
        ids = self._ids.take(len(tickets))
        self._channel.send(frames.encode_request_columns(ids, *zip(*map(_COLUMNS, tickets), strict=True)))
        return dict(zip(ids, tickets, strict=True))

    @property
    def takes_ahead(self) -> bool:
        """It may be sent a frame beside the one that it works on."""
        return (
            self.state is State.BUSY
            and not self.ahead
            and not self.leaving
            and not self._streaming
            and self.info.get("ahead", 0) > 0
        )

    def stop(self, frame: dict[int, Ticket]) -> bool:
        """Let it give up one of its two frames, for nobody waits for any request of it; False where it cannot."""
        if not frame or self.leaving or not self.info.get("stops"):
            return False
        self._channel.send([frames.encode_control(frames.STOP, next(iter(frame)))])
        return True

    @property
    def free(self) -> bool:
        return not self.in_flight

    def check(self, now: float) -> None:
        super().check(now)
        if self._streaming and now >= self._recall_at and len(self.in_flight) > 1 and self.state is State.BUSY:
            self._recall_at = float("inf")
            self._channel.send([frames.encode_control(frames.RECALL, self._streaming)])
        if self.state is State.BUSY and len(self.in_flight) > 1 and not self._streaming:
            self._take_early()

    def _take_early(self) -> None:
        """Replies wait in a scorer for company, but not for the end of a run that has lasted since the last look."""
        before, self._running = self._running, self._progress.read()
        if self._running == before and before in self.in_flight:
            with contextlib.suppress(ValueError):  # user code may have written there: then nothing is known of it
                early = [reply for reply in self._progress.kept_behind(before) if reply[0] < before]
                self._early.update(self._settle(early))

    def pull(self, number: int) -> None:
        """Let the next piece of a reply come."""
        self._ask_for_piece(number, frames.PULL)

    def cancel(self, number: int) -> None:
        """Nobody reads the pieces of a reply any more."""
        self._ask_for_piece(number, frames.CANCEL)

    def _ask_for_piece(self, number: int, kind: int) -> None:
        if number == self._streaming and not self._piece_due:
            self._piece_due = True
            self._set_deadline(self._timeout_s)
            self._channel.send([frames.encode_control(kind, number)])

    # What the process does

    def on_ready(self) -> None:
        self._owner.scorer_ready(self)

    def on_leaving(self) -> None:
        self._owner.scorer_leaving(self)

    def on_ended(self) -> None:
        self._settle_kept()
        begun = max(self._progress.read(), self._streaming)
        unsettled = [(ticket, number <= begun) for number, ticket in [*self.in_flight.items(), *self.ahead.items()]]
        self.in_flight, self.ahead = {}, {}
        self._owner.scorer_ended(self, unsettled)

    def _settle_kept(self) -> None:
        """What it had answered, but not sent yet, when a request took it down."""
        with contextlib.suppress(ValueError):  # as above
            self._settle(self._progress.kept())

    def _settle(self, kept: Sequence[Reply]) -> list[int]:
        """Settle what was found in the progress file; the ids of those that it was news for."""
        settled = []
        for reply in kept:
            ticket = self.in_flight.get(reply[0])
            if ticket is not None and reply[0] != self._streaming and not reply[2] & _PIECE_FLAGS:
                self.answered = True
                self._owner.scorer_replied(self, [(ticket, reply)], 0)
                del self.in_flight[reply[0]]
                settled.append(reply[0])
        return settled

    def _on_frame(self, frame: frames.Frame) -> None:
        if frame.kind == frames.REPLIES:
            self._on_replies(frame)
        elif frame.kind == frames.RETURNED and self._streaming:
            self._on_returned(frame)
        else:
            super()._on_frame(frame)

    def _on_replies(self, frame: frames.Frame) -> None:
        replies = frames.decode_replies(frame)
        if self._early:
            replies = self._without_early(replies)
            if not replies:
                return
        if len(replies) == 1 and (replies[0][2] & _PIECE_FLAGS or replies[0][0] == self._streaming):
            self._on_piece(replies[0])
            return
        in_flight = self.in_flight
        numbers = [reply[0] for reply in replies]
        if numbers == list(in_flight) and numbers and not self._streaming:
            settled = list(zip(in_flight.values(), replies, strict=True))  # all, in order: nearly always
            in_flight.clear()
        else:
            settled = self._take_settled(numbers, replies)
        self.answered = True
        self._owner.scorer_replied(self, settled, frame.busy_us)
        self._after_replies()

    def _take_settled(self, numbers: list[int], replies: list[Reply]) -> list[tuple[Ticket, Reply]]:
        """Each reply with its request, which is in flight no longer."""
        if not replies or self._streaming or len(set(numbers)) != len(numbers):
            raise frames.FrameError(
                "a frame of replies that is empty, has two to one request, or interrupts one in pieces"
            )
        in_flight = self.in_flight
        try:
            settled = [(in_flight[number], reply) for number, reply in zip(numbers, replies, strict=True)]
        except KeyError as error:
            raise frames.FrameError(f"a reply to request {error}, which this scorer does not have") from None
        for number in numbers:
            del in_flight[number]
        return settled

    def _without_early(self, replies: list[Reply]) -> list[Reply]:
        """What is left of them when those that were taken before they were sent are taken out, each once."""
        left = [reply for reply in replies if reply[0] not in self._early]
        self._early.difference_update(reply[0] for reply in replies)
        return left

    def _on_piece(self, reply: Reply) -> None:
        """A reply that comes in pieces, each in a frame of its own."""
        number, _, flags, *_ = reply
        ticket = self.in_flight.get(number)
        if ticket is None:
            raise frames.FrameError(f"a piece of request {number}, which this scorer does not have")
        if self._streaming and not (self._piece_due and number == self._streaming):
            raise frames.FrameError(f"a piece of request {number}, which nobody has asked for")
        self._piece_due = False
        if flags & frames.FLAG_MORE:
            if self._streaming != number:
                self._streaming = number
                self._recall_at = self._loop.time() + RECALL_AFTER_S
            self.streamed = True
            self._deadline = float("inf")  # it waits to be pulled: the client's pace is the connection's business
        else:
            self._streaming = 0
            self.answered = True
            del self.in_flight[number]
        self._owner.scorer_streamed(self, ticket, reply)
        self._after_replies()

    def _on_returned(self, frame: frames.Frame) -> None:
        """What waited behind a reply in pieces, and has not begun."""
        numbers = frames.decode_returned(frame)
        begun = max(self._progress.read(), self._streaming)
        if any(number <= begun or number not in self.in_flight for number in numbers):
            raise frames.FrameError("requests come back that it has begun, or never had")
        tickets = [self.in_flight.pop(number) for number in dict.fromkeys(numbers)]
        self._owner.scorer_returned(self, tickets)

    def _after_replies(self) -> None:
        in_flight = self.in_flight
        if in_flight:
            if not self._streaming:
                self._set_deadline(self._timeout_s)  # they run one after the other: the next one has its own time
        elif self.ahead:
            self.in_flight, self.ahead = self.ahead, {}
            self.streamed = False
            self._set_deadline(self._ahead_timeout_s)
            self._move(Event.NEXT)
            self._owner.scorer_advanced(self)
        else:
            self._deadline = float("inf")
            self._move(Event.SETTLED)
            if self.state is State.DRAINING:
                self._channel.close()
            else:
                self._owner.scorer_settled(self)
