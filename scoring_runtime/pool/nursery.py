"""The preload process, seen from the front: init() runs once in it, and each scorer is a fork of it.

Nothing here waits: a question is asked over the control socket, and the loop goes on until the answer comes. One
question is under way at a time, so an answer needs no number, and one deadline covers them all.

    (none) ──launch──▶ loading ──READY──▶ forking ──drain, last fork has ended──▶ (none)
                          any ──ended──▶ (none): its forks die with it, and the next launch starts another
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import ScorerStartError
from ..scorer import frames
from .launch import LaunchPlan, Wires, launch
from .launcher import (
    DirectLauncher,
    Launched,
    Launcher,
    OnLaunched,
    OwnChild,
    attempt,
    reason_against_preload,
    watch_pidfd,
)
from .life import DRAIN_LINGER_S, Life, State

logger = logging.getLogger("scoring_runtime.pool")

ANSWER_TIMEOUT_S = 10.0
"""How long the preload process may take to fork: the tables of a very large process are copied in seconds."""

_NONSENSE = 1 << 31
"""What no pid, exit code or error number of the system reaches."""

OnReaped = Callable[[int | None], None]


def choose(
    plan: LaunchPlan,
    start_timeout_s: float,
    loop: asyncio.AbstractEventLoop,
    on_ended: Callable[[], None],
    tap: Callable[[int, bytes], None] | None,
) -> Launcher:
    """Who starts the scorers of this plan. `on_ended` is called when a process that is no scorer has ended."""
    if plan.preload:
        reason = reason_against_preload(plan)
        if not reason:
            return Nursery(plan, start_timeout_s, loop, on_ended, tap)
        logger.warning("Preloading is on, and does nothing here: %s. Each scorer loads by itself.", reason)
    return DirectLauncher(plan, loop)


class Fork:
    """A scorer that is the preload process's child, not ours: we see it end, and ask its parent how."""

    def __init__(self, pid: int, pidfd: int, nursery: "PreloadProcess", loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._nursery = nursery
        self._loop = loop

    def watch(self, on_ended: Callable[[], None]) -> None:
        """By the descriptor of the process."""
        watch_pidfd(self._loop, self._pidfd, on_ended)

    def reap(self, on_reaped: Callable[[int | None], None]) -> None:
        """When the parent answers; None when it has gone, or cannot say."""
        self._nursery.reap(self.pid, on_reaped)


class Nursery:
    """Launches scorers as forks of one preload process, and keeps one while it is needed."""

    def __init__(
        self,
        plan: LaunchPlan,
        start_timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        on_ended: Callable[[], None],
        tap: Callable[[int, bytes], None] | None,
    ) -> None:
        self._plan = plan
        self._start_timeout_s = start_timeout_s
        self._loop = loop
        self._on_ended = on_ended
        self._tap = tap
        self._process: PreloadProcess | None = None

    def launch(self, seat: int, on_launched: OnLaunched) -> None:
        """Once the preload process has loaded, which it is started for if there is none."""
        if self._process is None:
            error = self._start()
            if error is not None:
                on_launched(error)
                return
        assert self._process is not None
        self._process.fork(on_launched)

    def check(self, now: float) -> None:
        if self._process is not None:
            self._process.check(now)

    def describe(self) -> list[str]:
        process = self._process
        return [f"preload process: {process.state.value} (pid {process.pid})"] if process is not None else []

    def drain(self) -> None:
        if self._process is not None:
            self._process.drain_after_forks()

    def kill(self, why: str) -> None:
        if self._process is not None:
            self._process.kill(why)

    @property
    def empty(self) -> bool:
        return self._process is None

    def _start(self) -> ScorerStartError | None:
        ours: list[socket.socket] = []

        def start() -> Launched:
            control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.append(control)
            with theirs:
                process, wires = launch(self._plan, piped=True, control=theirs)
            return Launched(OwnChild(process, self._loop), wires)

        launched = attempt(self._plan, start)
        if isinstance(launched, ScorerStartError):
            for control in ours:
                control.close()
            return launched
        self._process = PreloadProcess(self._plan, launched, ours[0], self._loop, self._process_ended, self._tap)
        self._process.expect_ready(self._start_timeout_s)
        return None

    def _process_ended(self) -> None:
        self._process = None
        self._on_ended()


class PreloadProcess(Life):
    """One life of it."""

    def __init__(
        self,
        plan: LaunchPlan,
        launched: Launched,
        control: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_process_ended: Callable[[], None],
        tap: Callable[[int, bytes], None] | None,
    ) -> None:
        super().__init__(0, "Preload process", plan, launched, loop, tap)
        self._on_process_ended = on_process_ended
        self._control: socket.socket | None = control
        self._launches: deque[OnLaunched] = deque()
        self._reaps: deque[tuple[int, OnReaped]] = deque()
        self._asked_fork: tuple[OnLaunched, Wires] | None = None
        self._asked_reap: tuple[int, OnReaped] | None = None
        self._forks: set[int] = set()  # pids that are still taken
        self._ends_with_forks = False
        control.setblocking(False)
        loop.add_reader(control.fileno(), self._on_answer)

    # What the launcher and the forks ask for

    def fork(self, on_launched: OnLaunched) -> None:
        """A scorer more."""
        self._launches.append(on_launched)
        self._ask()

    def reap(self, pid: int, on_reaped: OnReaped) -> None:
        """How a fork that has ended did so."""
        if self._control is None:
            self._forks.discard(pid)
            on_reaped(None)
        else:
            self._reaps.append((pid, on_reaped))
            self._ask()

    def drain_after_forks(self) -> None:
        """No forks any more; end when the last one has been reaped, because they would end with it."""
        self._ends_with_forks = True
        self._launches.clear()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._ends_with_forks and self._asked_fork is None and not self._forks:
            self.drain()
            self._hang_up()

    # Questions and answers

    def _ask(self) -> None:
        """Ask what is to be asked next, unless an answer is still to come."""
        if self._control is None or self.state is State.STARTING or self._asked_fork or self._asked_reap:
            return
        if self._reaps:
            self._asked_reap = pid, _ = self._reaps.popleft()
            self._say(self._control, frames.PACKET.pack(frames.REAP, pid, 0))
        elif self._launches:
            on_launched = self._launches.popleft()
            try:
                wires = Wires(piped=True)
            except OSError as error:  # no descriptor left: it may pass
                on_launched(self._cannot_fork(str(error)))
                return
            self._asked_fork = on_launched, wires
            self._say(self._control, frames.PACKET.pack(frames.FORK, 0, 0), wires.theirs)
            wires.close_theirs()

    def _say(self, control: socket.socket, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        self._set_deadline(ANSWER_TIMEOUT_S)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        try:
            control.sendmsg([packet], ancillary)
        except OSError:
            self._hang_up()

    def _on_answer(self) -> None:
        assert self._control is not None
        try:
            packet = self._control.recv(frames.PACKET.size)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        _, pid, code = frames.PACKET.unpack(packet) if len(packet) == frames.PACKET.size else (0, _NONSENSE, 0)
        if max(abs(pid), abs(code)) >= _NONSENSE:  # it has ended, or user code has written there
            self._hang_up()
            return
        self._deadline = float("inf")
        if self._asked_reap is not None:
            (pid, on_reaped), self._asked_reap = self._asked_reap, None
            self._forks.discard(pid)
            on_reaped(None if code == frames.UNKNOWN_EXIT else code)
        elif self._asked_fork is not None:
            (on_launched, wires), self._asked_fork = self._asked_fork, None
            self._on_forked(pid, code, on_launched, wires)
        self._end_if_done()
        self._ask()

    def _on_forked(self, pid: int, code: int, on_launched: OnLaunched, wires: Wires) -> None:
        if pid <= 0:  # below zero it would mean others, whoever wrote that
            wires.close()
            on_launched(self._cannot_fork(os.strerror(code)))
            return
        self._forks.add(pid)
        try:
            fork = Fork(pid, os.pidfd_open(pid), self, self._loop)
        except OSError as error:  # no descriptor left, or it has ended and user code has waited for it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)  # it is its parent's to be waited for, so the pid is still taken
            wires.close()
            self.reap(pid, lambda _: None)
            on_launched(self._cannot_fork(str(error)))
            return
        if self._ends_with_forks:
            wires.close()  # it finds its channel closed, and ends
            fork.watch(lambda: fork.reap(lambda _: None))
        else:
            on_launched(Launched(fork, wires))

    def _cannot_fork(self, reason: str) -> ScorerStartError:
        return ScorerStartError(f"{self._plan.target}: cannot fork a scorer from the preload process: {reason}.")

    def _hang_up(self) -> None:
        """It answers no more: forks that have ended did so in a way that nobody will know."""
        if self._control is None:
            return
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._control = None
        self._loop.call_later(DRAIN_LINGER_S, self._end_linger)  # it is of no use any more
        if self._asked_fork is not None:
            (on_launched, wires), self._asked_fork = self._asked_fork, None
            wires.close()
            self._launches.append(on_launched)  # it hears why when the process has ended
        unknown = [*self._reaps, *([self._asked_reap] if self._asked_reap else [])]
        self._reaps.clear()
        self._asked_reap = None
        for pid, on_reaped in unknown:
            self._forks.discard(pid)
            on_reaped(None)

    # What the process does

    def on_ready(self) -> None:
        logger.info("%s is ready: scorers are forked from it.", self.name)
        self._ask()

    def on_ended(self) -> None:
        self._hang_up()
        for pid in self._forks:  # the kernel has killed them already, where it could be asked to
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        if self.state is State.DEAD and not self._ends_with_forks and self.start_error is None:
            logger.error("%s %s; the scorers that were forked from it end with it.", self.name, self.exit_text)
        error = self.start_error or ScorerStartError(f"{self._plan.target}: the preload process {self.exit_text}.")
        self._on_process_ended()
        while self._launches:
            self._launches.popleft()(error)
