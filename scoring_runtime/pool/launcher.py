"""Where scorers come from: each started by itself, or each a fork of one process that has loaded the script."""

import asyncio
import functools
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import ScorerStartError
from .launch import LaunchPlan, Wires, launch


class Child(Protocol):
    """A process that ends some time, and is then to be waited for."""

    pid: int

    def watch(self, on_ended: Callable[[], None]) -> None:
        """Call `on_ended` once it has ended."""

    def reap(self, on_reaped: Callable[[int | None], None]) -> None:
        """Find out how it ended, as subprocess says it, or None when that cannot be known. Its pid is free from then on."""


@dataclass
class Launched:
    """A started scorer: its process, and what connects us with it."""

    child: Child
    wires: Wires


OnLaunched = Callable[[Launched | ScorerStartError], None]


class Launcher(Protocol):
    """Starts scorers."""

    def launch(self, seat: int, on_launched: OnLaunched) -> None:
        """Start a scorer for a place of the pool; `on_launched` is called, now or later, with what came of it, unless the pool drains first."""

    def check(self, now: float) -> None:
        """Kill what missed a deadline. To be called a few times a second."""

    def describe(self) -> list[str]:
        """What there is beside the scorers, in a line for a person."""

    def drain(self) -> None:
        """Start nothing any more, and end when the last scorer has ended."""

    def kill(self, why: str) -> None:
        """End now."""

    @property
    def empty(self) -> bool:
        """No process of its own is left."""


class DirectLauncher:
    """Starts each scorer by itself; it loads what it serves."""

    empty = True

    def __init__(self, plan: LaunchPlan, loop: asyncio.AbstractEventLoop) -> None:
        self._plan = plan
        self._loop = loop

    def launch(self, seat: int, on_launched: OnLaunched) -> None:
        """At once."""
        on_launched(attempt(self._plan, functools.partial(start, self._plan, self._loop, seat)))

    def check(self, now: float) -> None:
        """There is nothing to check."""

    def describe(self) -> list[str]:
        """There is nothing beside the scorers."""
        return []

    def drain(self) -> None:
        """Each scorer ends by itself."""

    def kill(self, why: str) -> None:
        """There is nothing to kill."""


def start(plan: LaunchPlan, loop: asyncio.AbstractEventLoop, seat: int) -> Launched:
    """Start a process of our own."""
    process, wires = launch(plan, seat=seat, piped=True)
    return Launched(OwnChild(process, loop), wires)


def attempt(plan: LaunchPlan, start: Callable[[], Launched]) -> Launched | ScorerStartError:
    """What `start` returns, or why it cannot."""
    try:
        return start()
    except ScorerStartError as error:
        return error
    except OSError as error:  # out of descriptors, of processes, of memory: it may pass
        return ScorerStartError(f"{plan.target}: cannot start a scorer: {error}.")


class OwnChild:
    """A child of the front."""

    def __init__(self, process: "subprocess.Popen[bytes]", loop: asyncio.AbstractEventLoop) -> None:
        self.pid = process.pid
        self._process = process
        self._loop = loop

    def watch(self, on_ended: Callable[[], None]) -> None:
        """By a descriptor of the process where there are such, else by asking now and then."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # no Linux, an old one, a sandbox that forbids it, or no descriptor left
            self._loop.call_soon(self._poll, on_ended)  # not at once: who asks is not made yet
        else:
            watch_pidfd(self._loop, pidfd, on_ended)

    def reap(self, on_reaped: Callable[[int | None], None]) -> None:
        """At once."""
        on_reaped(self._process.wait())

    def _poll(self, on_ended: Callable[[], None]) -> None:
        if self._process.poll() is not None:
            on_ended()
        else:
            self._loop.call_later(0.05, self._poll, on_ended)


def watch_pidfd(loop: asyncio.AbstractEventLoop, pidfd: int, on_ended: Callable[[], None]) -> None:
    """Call `on_ended` when the process has ended; the descriptor is closed then."""

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        on_ended()

    loop.add_reader(pidfd, ended)


def reason_against_preload(plan: LaunchPlan) -> str:
    """Why scorers cannot be forks of one process; empty when they can."""
    if plan.hello.get("engine") != "script":
        return "an ONNX model has no init()"
    if plan.hello.get("debug_port"):
        return "a debugger does not follow a fork"
    if len(set(plan.gpus)) > 1:
        return "scorers get different GPUs, and a fork keeps its parent's"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        return f"this system does not let us watch processes of others (pidfd_open: {error})"
    return ""
