"""One process that loads what is served, seen from the front: from its start to its end.

Two rules. The state changes only through `TABLE`; an event that the table does not know in a state is a bug and raises.
And a process that missed a deadline is killed, never waited for or reused.

    STARTING ──ready──▶ READY ──sent──▶ BUSY ──settled──▶ READY
                        BUSY ──sent ahead──▶ BUSY ──next──▶ BUSY
        any ──drain──▶ DRAINING            any ──ended──▶ DEAD
"""

import asyncio
import contextlib
import enum
import functools
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from ..errors import ScorerStartError
from ..scorer import frames
from ..telemetry.sink import STREAMS
from . import ready
from .channel import Channel
from .launch import LaunchPlan, describe_exit
from .launcher import Launched
from .output import OutputPipe
from .probe import cut_off, ended_early, no_frame, start_timeout
from .vitals import STOPPED_S, Watch

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
    SENT_AHEAD = "sent_ahead"  # one frame more than the one that it works on
    NEXT = "next"  # the first is settled, and it works on the other
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
    (State.BUSY, Event.SENT_AHEAD): State.BUSY,
    (State.BUSY, Event.NEXT): State.BUSY,
    (State.BUSY, Event.SETTLED): State.READY,
    (State.BUSY, Event.DRAIN): State.DRAINING,
    (State.BUSY, Event.ENDED): State.DEAD,
    (State.DRAINING, Event.READY): State.DRAINING,
    (State.DRAINING, Event.NEXT): State.DRAINING,
    (State.DRAINING, Event.SETTLED): State.DRAINING,
    (State.DRAINING, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.ENDED): State.DEAD,
}

_EXIT_LINGER_S = 0.1
"""How long replies of an ended process may still come out of its socket."""

DRAIN_LINGER_S = 2.0
"""How long a process that was told to end may take for its exit handlers, or for its own handler of SIGTERM."""

_KILL_PATIENCE_S = 5.0
"""How long a killed process may take to go before the log says so: one that waits for a driver or a disk cannot go."""


class Ending(enum.StrEnum):
    """Why a process ended, as the metrics count it."""

    EXITED = "exited"
    KILLED = "killed"  # by a signal that is not ours, or with the process that it was forked from
    TIMED_OUT = "timed_out"
    MEMORY = "memory"
    STOPPED = "stopped"
    CHANNEL_CLOSED = "channel_closed"  # by user code, or by us after bytes that are no frame
    START_FAILED = "start_failed"


class Life:
    """Watch it get ready, live and end. Subclasses say what else they talk about with it, and hear of its end."""

    def __init__(
        self,
        number: int,
        name: str,
        plan: LaunchPlan,
        launched: Launched,
        loop: asyncio.AbstractEventLoop,
        tap: Callable[[int, bytes], None] | None = None,
        max_memory_bytes: int = 0,
    ) -> None:
        self.number = number
        self.pid = launched.child.pid
        self.name = f"{name} (pid {self.pid})"
        self.state = State.STARTING
        self.info: dict[str, Any] = {}
        self.start_error: ScorerStartError | None = None
        self._plan = plan
        self._loop = loop
        self._child = launched.child
        self._deadline = float("inf")
        self._timeout_s = 0.0
        arena = plan.arena
        self._vitals = Watch(self.pid, max_memory_bytes, int if arena is None else lambda: arena.resident_bytes)
        self._max_memory_bytes = max_memory_bytes
        self._exit_text: str | None = None
        self._killed_why: str | None = None  # by us
        self._ending: Ending | None = None
        self._gone = False  # it has ended, and its pid will be free
        self._closed = False
        self._progress = launched.wires.progress
        self._channel = Channel(self._on_frame, self._on_channel_closed)
        self._outputs = [
            OutputPipe(loop, ours, STREAMS[index], tap and functools.partial(tap, 2 * number + index))
            for index, ours in enumerate(launched.wires.outputs)
        ]
        self._child.watch(self._on_ended)
        self._connecting = loop.create_task(self._connect(launched.wires.channel))

    async def _connect(self, ours: Any) -> None:
        try:
            await self._loop.create_unix_connection(lambda: self._channel, sock=ours)
        except OSError:
            logger.exception("%s cannot be reached.", self.name)
            ours.close()
            self._on_channel_closed()
            return
        if self._channel.closed:  # in the meantime
            self._channel.close()

    # What its owner asks for

    def expect_ready(self, timeout_s: float) -> None:
        """Kill it unless READY comes within `timeout_s`."""
        self._set_deadline(timeout_s)

    def drain(self) -> None:
        """Finish what it has, then end. What still loads does not look at its channel: it is sent SIGTERM."""
        if self.state is State.STARTING and not self._gone:
            self._signal_group(signal.SIGTERM)
        self._move(Event.DRAIN)
        if self.free:
            self._channel.close()

    @property
    def free(self) -> bool:
        """It has nothing to finish."""
        return True

    @property
    def leaving(self) -> bool:
        """It can be given nothing any more: it is killed, has ended or has hung up."""
        return self._gone or self._closed or self._killed_why is not None

    def kill(self, why: str, ending: Ending | None = None) -> None:
        """End it now, with everything it started. ending: what that counts as; None when it is no fault of its own."""
        if self._gone or self._killed_why is not None:
            return
        self._killed_why = why
        self._ending = ending
        self.on_leaving()
        if ending is None:
            logger.info("%s is killed: %s.", self.name, why)
        self._signal_group(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)  # a fork of a moment ago has no group of its own yet
        self._loop.call_later(_KILL_PATIENCE_S, self._end_patience)

    def check(self, now: float) -> None:
        """Kill it if it missed its deadline, is stopped, or holds too much memory."""
        vitals = self._vitals
        vitals.look(now)
        if now >= self._deadline:
            self._deadline = float("inf")
            if self.state is State.STARTING:
                self.start_error = start_timeout(self._plan, self._timeout_s)
            self.kill(f"it took longer than {self._timeout_s:g} s", Ending.TIMED_OUT)
        elif vitals.stopped_s >= STOPPED_S:
            self.kill(f"it had been stopped (SIGSTOP) for {vitals.stopped_s:.1f} s", Ending.STOPPED)
        elif vitals.excess_bytes:
            self.kill(
                f"it held {vitals.excess_bytes >> 20} MiB of memory; --max-scorer-memory-mb allows "
                f"{self._max_memory_bytes >> 20}",
                Ending.MEMORY,
            )

    # What the process does

    def _on_frame(self, frame: frames.Frame) -> None:
        if frame.kind == frames.READY and self.state in (State.STARTING, State.DRAINING):
            self._deadline = float("inf")
            self.info = ready.read(frame)
            self._move(Event.READY)
            self.on_ready()
        elif frame.kind == frames.FATAL and self.state in (State.STARTING, State.DRAINING) and not self.start_error:
            self.start_error = ready.read_fatal(frame)
        else:
            raise frames.FrameError(f"frame of kind {frame.kind} while {self.state.value}")

    def on_ready(self) -> None:
        """READY came."""
        raise NotImplementedError

    def on_leaving(self) -> None:
        """It is killed, has ended or has hung up; on_ended() follows. May be called more than once."""

    def on_ended(self) -> None:
        """The process is gone, and what it wrote has been read."""
        raise NotImplementedError

    def _on_channel_closed(self) -> None:
        self._closed = True
        self.on_leaving()
        if self._exit_text is None:
            # Without a channel it is of no use, whether it ends by itself or not.
            if self._channel.fault is not None:
                if self.state is State.STARTING:
                    self.start_error = no_frame(self._plan, self._channel.fault)
                logger.error("%s sent what is no frame: %s.", self.name, self._channel.fault)
            linger_s = DRAIN_LINGER_S if self.state is State.DRAINING else _EXIT_LINGER_S
            self._loop.call_later(linger_s, self._end_linger)
        else:
            self._finish()

    def _end_patience(self) -> None:
        if not self._gone:
            logger.error(
                "%s was killed %g s ago because %s, and is still there: the system holds it (a device, a disk).",
                self.name,
                _KILL_PATIENCE_S,
                self._killed_why,
            )

    def _end_linger(self) -> None:
        if self._gone:
            return
        if self.state is State.STARTING and self.start_error is None:
            self.start_error = cut_off(self._plan)
        if self.state is State.DRAINING:
            self._signal_group(signal.SIGKILL)
        else:
            self.kill("its channel to the server is closed", Ending.CHANNEL_CLOSED)

    def _on_ended(self) -> None:
        self._gone = True
        self.on_leaving()
        self._signal_group(signal.SIGKILL)  # what it left behind, while its pid is still taken
        self._child.reap(self._on_reaped)

    def _on_reaped(self, returncode: int | None) -> None:
        signalled = returncode is None or returncode < 0
        if self._killed_why is not None and signalled:
            self._exit_text = f"was killed by the server: {self._killed_why}"
        else:
            self._exit_text = describe_exit(returncode)
            self._ending = Ending.KILLED if signalled else Ending.EXITED
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
        for output in self._outputs:
            output.close()
        self.on_ended()
        self._progress.close()

    @property
    def exit_text(self) -> str:
        """How it ended, in words."""
        return self._exit_text or "has not ended"

    @property
    def ending(self) -> Ending:
        """Why it ended."""
        return Ending.START_FAILED if self.start_error is not None else self._ending or Ending.KILLED

    @property
    def timed_out(self) -> bool:
        """It was killed because it missed a deadline."""
        return self._ending is Ending.TIMED_OUT

    # The shell

    def _move(self, event: Event) -> None:
        self.state = TABLE[self.state, event]

    def _set_deadline(self, timeout_s: float) -> None:
        self._deadline = self._loop.time() + timeout_s
        self._timeout_s = timeout_s

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return  # nothing of it is left
        except PermissionError:
            logger.warning("%s left a process that may not be sent a signal.", self.name)
