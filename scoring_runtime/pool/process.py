"""One scorer process, seen from the front.

Two rules. The state changes only through `TABLE`; an event that the table does not know in a state is a bug and raises.
And a scorer that missed a deadline is killed, never waited for or reused.

    STARTING ──ready──▶ READY ──sent──▶ BUSY ──settled──▶ READY
        any ──drain──▶ DRAINING            any ──ended──▶ DEAD
"""

import asyncio
import enum
import functools
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..dispatch.queue import Ticket
from ..errors import ScorerStartError
from ..scorer import frames
from .channel import Channel
from .launch import LaunchPlan, describe_exit, launch
from .output import OutputPipe
from .probe import ended_early, start_timeout

logger = logging.getLogger("scoring_runtime.pool")


class State(enum.StrEnum):
    """Where a scorer is in its life."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    DEAD = "dead"


class Event(enum.StrEnum):
    """What moves it on."""

    READY = "ready"
    SENT = "sent"
    SETTLED = "settled"
    DRAIN = "drain"
    ENDED = "ended"


TABLE: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.READY): State.READY,
    (State.STARTING, Event.DRAIN): State.DRAINING,
    (State.STARTING, Event.ENDED): State.DEAD,
    (State.READY, Event.SENT): State.BUSY,
    (State.READY, Event.DRAIN): State.DRAINING,
    (State.READY, Event.ENDED): State.DEAD,
    (State.BUSY, Event.SETTLED): State.READY,
    (State.BUSY, Event.DRAIN): State.DRAINING,
    (State.BUSY, Event.ENDED): State.DEAD,
    (State.DRAINING, Event.READY): State.DRAINING,
    (State.DRAINING, Event.SETTLED): State.DRAINING,
    (State.DRAINING, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.ENDED): State.DEAD,
}

_PIECE_FLAGS = frames.FLAG_MORE | frames.FLAG_ABORT

_EXIT_LINGER_S = 0.1
"""How long replies of an ended process may still come out of its socket."""

_DRAIN_LINGER_S = 2.0
"""How long a scorer that was told to end may take for its exit handlers."""


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

    def scorer_settled(self, scorer: "Scorer") -> None:
        """Its frame is settled: it is free."""

    def scorer_ended(self, scorer: "Scorer", unsettled: list[tuple[Ticket, bool]]) -> None:
        """The process is gone. `unsettled`: the tickets that it had, in order, and whether each may have run."""


class Scorer:
    """Start it, feed it, and end it; the owner hears what happens."""

    def __init__(
        self,
        number: int,
        plan: LaunchPlan,
        owner: Owner,
        ids: "Ids",
        loop: asyncio.AbstractEventLoop,
        tap: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self.number = number
        self.state = State.STARTING
        self.info: dict[str, Any] = {}
        self.start_error: ScorerStartError | None = None
        self.timed_out = False
        self.frame_count = 0
        self.in_flight: dict[int, Ticket] = {}
        self._plan = plan
        self._owner = owner
        self._ids = ids
        self._loop = loop
        self._deadline = float("inf")
        self._timeout_s = 0.0
        self.streamed = False  # a reply of the present frame came in pieces, at its client's pace
        self._streaming = 0  # the request whose reply is coming in pieces
        self._exit_text: str | None = None
        self._killed = False  # by us
        self._closed = False
        self._channel = Channel(self._on_frame, self._on_channel_closed)
        launched = launch(plan, piped=True)
        self._outputs = [
            OutputPipe(loop, ours, 1 + index, tap and functools.partial(tap, 2 * number + index))
            for index, ours in enumerate(launched.outputs or ())
        ]
        self._process = launched.process
        self._progress = launched.progress
        self.pid = self._process.pid
        self._watch_exit()
        self._connecting = loop.create_task(self._connect(launched.channel))

    async def _connect(self, ours: Any) -> None:
        try:
            await self._loop.create_unix_connection(lambda: self._channel, sock=ours)
        except OSError:
            logger.exception("Scorer %d (pid %d) cannot be reached.", self.number, self.pid)
            ours.close()
            self._on_channel_closed()
            return
        if self._channel.closed:  # in the meantime
            self._channel.close()

    # What the pool asks for

    def expect_ready(self, timeout_s: float) -> None:
        """Kill it unless READY comes within `timeout_s`."""
        self._set_deadline(timeout_s)

    def send(self, tickets: Sequence[Ticket], timeout_s: float) -> None:
        """Give it one frame. It is killed when the frame is not settled within `timeout_s`."""
        self._move(Event.SENT)
        count = len(tickets)
        self.frame_count = count
        self.streamed = False
        # A new id for each try: within a scorer ids only rise, so its mark says which of them it has begun.
        ids = self._ids.take(count)
        self.in_flight = dict(zip(ids, tickets, strict=True))
        self._set_deadline(timeout_s)
        self._channel.send(
            frames.encode_requests(
                [(number, 0, t.route, t.method, t.head, t.body) for number, t in zip(ids, tickets, strict=True)]
            )
        )

    def drain(self) -> None:
        """Finish what it has, then end."""
        self._move(Event.DRAIN)
        if not self.in_flight:
            self._channel.close()

    def pull(self, number: int) -> None:
        """Let the next piece of a reply come."""
        if number == self._streaming:
            self._set_deadline(self._timeout_s)
            self._channel.send([frames.encode_control(frames.PULL, number)])

    def cancel(self, number: int) -> None:
        """Nobody reads the pieces of a reply any more."""
        if number == self._streaming:
            self._set_deadline(self._timeout_s)
            self._channel.send([frames.encode_control(frames.CANCEL, number)])

    def kill(self, why: str, level: int = logging.ERROR) -> None:
        """End it now, with everything it started."""
        if self._exit_text is None:
            self._killed = True
            logger.log(level, "Scorer %d (pid %d) is killed: %s.", self.number, self.pid, why)
            self._kill_group()

    def check_deadline(self, now: float) -> None:
        """Kill it if it missed its deadline."""
        if now >= self._deadline:
            self._deadline = float("inf")
            self.timed_out = True
            if self.state is State.STARTING:
                self.start_error = start_timeout(self._plan, self._timeout_s)
            self.kill(f"it took longer than {self._timeout_s:g} s")

    # What the process does

    def _on_frame(self, frame: frames.Frame) -> None:
        if frame.kind == frames.REPLIES:
            self._on_replies(frame)
        elif frame.kind == frames.READY and self.state in (State.STARTING, State.DRAINING):
            self._deadline = float("inf")
            self.info = frames.decode_json(frame)
            self._move(Event.READY)
            self._owner.scorer_ready(self)
        elif frame.kind == frames.FATAL:
            message = frames.decode_json(frame)
            self.start_error = ScorerStartError(str(message.get("message")), str(message.get("traceback", "")))
        else:
            raise frames.FrameError(f"frame of kind {frame.kind} while {self.state.value}")

    def _on_replies(self, frame: frames.Frame) -> None:
        replies = frames.decode_replies(frame)
        if len(replies) == 1 and (replies[0][2] & _PIECE_FLAGS or replies[0][0] == self._streaming):
            self._on_piece(replies[0])
            return
        in_flight = self.in_flight
        if not replies or len({reply[0] for reply in replies}) != len(replies):
            raise frames.FrameError("a frame of replies that is empty, or has two to one request")
        try:
            settled = [(in_flight[reply[0]], reply) for reply in replies]
        except KeyError as error:
            raise frames.FrameError(f"a reply to request {error}, which this scorer does not have") from None
        if len(settled) == len(in_flight):
            in_flight.clear()
        else:
            for reply in replies:
                in_flight.pop(reply[0], None)
        self._owner.scorer_replied(self, settled, frame.busy_us)
        self._after_replies()

    def _on_piece(self, reply: Reply) -> None:
        """A reply that comes in pieces, each in a frame of its own."""
        number, _, flags, *_ = reply
        ticket = self.in_flight.get(number)
        if ticket is None:
            raise frames.FrameError(f"a piece of request {number}, which this scorer does not have")
        if flags & frames.FLAG_MORE:
            self._streaming = number
            self.streamed = True
            self._deadline = float("inf")  # it waits to be pulled: the client's pace is the connection's business
        else:
            self._streaming = 0
            del self.in_flight[number]
        self._owner.scorer_streamed(self, ticket, reply)
        self._after_replies()

    def _after_replies(self) -> None:
        in_flight = self.in_flight
        if in_flight:
            if not self._streaming:
                self._set_deadline(self._timeout_s)  # they run one after the other: the next one has its own time
        else:
            self._deadline = float("inf")
            self._move(Event.SETTLED)
            if self.state is State.DRAINING:
                self._channel.close()
            else:
                self._owner.scorer_settled(self)

    def _on_channel_closed(self) -> None:
        self._closed = True
        if self._exit_text is None:
            # Without a channel it is of no use, whether it ends by itself or not.
            if self._channel.fault is not None:
                logger.error(
                    "Scorer %d (pid %d) sent what is no frame: %s.", self.number, self.pid, self._channel.fault
                )
            linger_s = _DRAIN_LINGER_S if self.state is State.DRAINING else _EXIT_LINGER_S
            self._loop.call_later(linger_s, self._end_linger)
        else:
            self._finish()

    def _end_linger(self) -> None:
        if self._exit_text is None:  # once it has been waited for, its pid may be another's
            self._kill_group()

    def _on_exit(self) -> None:
        returncode = self._process.wait()
        self._exit_text = "was killed by the server" if self._killed and returncode < 0 else describe_exit(returncode)
        if self._closed:
            self._finish()
        else:
            # A process that it left behind may hold the socket open: do not wait for the end of the stream for ever.
            self._loop.call_later(_EXIT_LINGER_S, self._channel.abort)

    def _finish(self) -> None:
        if self.state is State.DEAD:
            return
        if self.state is State.STARTING and self.start_error is None:
            self.start_error = ended_early(self._plan, self.exit_text)
        self._move(Event.ENDED)
        self._kill_group()  # what it left behind
        for output in self._outputs:
            output.close()
        begun = self._progress.read()
        self._progress.close()
        unsettled = [(ticket, number <= begun) for number, ticket in self.in_flight.items()]
        self.in_flight = {}
        self._owner.scorer_ended(self, unsettled)

    @property
    def exit_text(self) -> str:
        """How it ended, in words."""
        return self._exit_text or "has not ended"

    # The shell

    def _move(self, event: Event) -> None:
        self.state = TABLE[self.state, event]

    def _set_deadline(self, timeout_s: float) -> None:
        self._deadline = self._loop.time() + timeout_s
        self._timeout_s = timeout_s

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing of it is left
        except PermissionError:
            logger.warning("Scorer %d (pid %d) left a process that may not be killed.", self.number, self.pid)

    def _watch_exit(self) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # no Linux, an old one, a sandbox that forbids it, or no descriptor left
            self._poll_exit()
        else:
            self._loop.add_reader(pidfd, self._on_pidfd, pidfd)

    def _on_pidfd(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._on_exit()

    def _poll_exit(self) -> None:
        if _has_ended(self._process):
            self._on_exit()
        else:
            self._loop.call_later(0.05, self._poll_exit)


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is not None
