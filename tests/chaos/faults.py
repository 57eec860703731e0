"""What strikes, and when: one table, and a schedule that the seed decides alone."""

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import psutil

from .clients import Place, burst, drip, one_order, silent_connections
from .ledger import Cuts
from .servers import HEAD_TIMEOUT_S, MAX_CONNECTIONS, Server

SCRIPTS = frozenset(("raw", "plain"))
ALL = SCRIPTS | {"onnx"}
NOBODY: frozenset[str] = frozenset()


@dataclass
class Scene:
    """Where a fault strikes."""

    server: Server
    place: Place
    random: Random

    def some_scorer(self) -> int:
        """One of those that are there; 0 if there is none."""
        return self.random.choice(sorted(self.server.scorer_pids()) or [0])


Strike = Callable[[Scene], Awaitable[frozenset[int]]]
"""Does the harm; returns the scorers that must be gone before the server has recovered."""


@dataclass(frozen=True)
class Fault:
    """One row: what is done, to which servers, and what requests that asked for nothing bad may feel of it."""

    strike: Strike
    strikes: frozenset[str]
    """Engines that it makes sense for."""

    harms: frozenset[str]
    """Engines whose other requests may be answered with an error."""

    cuts: Cuts = Cuts.NONE
    ends: str = ""
    """The process that does not survive it: "front" or "arbiter"."""


# Processes


def _signal(pid: int, number: int) -> frozenset[int]:
    if not pid:
        return frozenset()
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    return frozenset((pid,))


async def kill_scorer(scene: Scene) -> frozenset[int]:
    return _signal(scene.some_scorer(), signal.SIGKILL)


async def kill_all_scorers(scene: Scene) -> frozenset[int]:
    return frozenset().union(*(_signal(pid, signal.SIGKILL) for pid in scene.server.scorer_pids()))


async def stop_scorer(scene: Scene) -> frozenset[int]:
    return _signal(scene.some_scorer(), signal.SIGSTOP)


async def pause_scorer(scene: Scene) -> frozenset[int]:
    pid = scene.some_scorer()
    _signal(pid, signal.SIGSTOP)
    await asyncio.sleep(0.3)
    _signal(pid, signal.SIGCONT)
    return frozenset()


async def terminate_scorer(scene: Scene) -> frozenset[int]:
    return _signal(scene.some_scorer(), signal.SIGTERM)


async def pause_front(scene: Scene) -> frozenset[int]:
    pids = scene.server.front_pids()
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    await asyncio.sleep(0.7)
    for pid in pids:
        _signal(pid, signal.SIGCONT)
    return frozenset()


async def few_descriptors(scene: Scene) -> frozenset[int]:
    """The front cannot open anything for a second, and a scorer must be replaced meanwhile."""
    killed: frozenset[int] = frozenset()
    with suppress(psutil.Error, IndexError, ValueError):
        front = psutil.Process(scene.server.front_pids()[0])
        limits = front.rlimit(resource.RLIMIT_NOFILE)
        front.rlimit(resource.RLIMIT_NOFILE, (front.num_fds(), limits[1]))
        try:
            killed = await kill_scorer(scene)
            await asyncio.sleep(1.0)
        finally:
            front.rlimit(resource.RLIMIT_NOFILE, limits)
    return killed


async def kill_front(scene: Scene) -> frozenset[int]:
    scorers = frozenset(scene.server.scorer_pids())
    for pid in scene.server.front_pids():
        _signal(pid, signal.SIGKILL)
    return scorers


async def reload(scene: Scene) -> frozenset[int]:
    scorers = frozenset(scene.server.scorer_pids())
    scene.server.signal(signal.SIGHUP)
    return scorers


async def kill_arbiter(scene: Scene) -> frozenset[int]:
    server = scene.server
    server.signal(signal.SIGKILL)
    await server.ended()
    await _start_again(scene, await server.left_behind())
    return frozenset()


async def restart(scene: Scene) -> frozenset[int]:
    await _start_again(scene, await scene.server.stop())
    return frozenset()


async def _start_again(scene: Scene, wrong: str) -> None:
    server = scene.server
    if wrong:
        scene.place.ledger.violations.add("a bad end", f"{server.name}: {wrong}")
        server.kill_everything()
    server.start()


# Loading


async def slow_init(scene: Scene) -> frozenset[int]:
    return await _load_differently(scene, "slow-init", 1.0)


async def failing_init(scene: Scene) -> frozenset[int]:
    return await _load_differently(scene, "failing-init", 1.5)


async def _load_differently(scene: Scene, flag: str, for_s: float) -> frozenset[int]:
    path = scene.server.folder / flag
    path.touch()
    try:
        killed = await kill_scorer(scene)
        await asyncio.sleep(for_s)
    finally:
        path.unlink()
    return killed


# Requests


def poison(do: str) -> Strike:
    """A request that harms the scorer it runs in."""

    async def strike(scene: Scene) -> frozenset[int]:
        await one_order(scene.place, f"poison: {do}", scene.random, do)
        return frozenset()

    return strike


async def poison_in_a_row(scene: Scene) -> frozenset[int]:
    """Of several kinds at once, among other requests."""
    kinds = [scene.random.choice(("exit", "segfault", "loop", "fail", "close")) for _ in range(4)]
    await asyncio.gather(*(one_order(scene.place, "poison in a row", scene.random, kind) for kind in kinds))
    return frozenset()


async def long_lines(scene: Scene) -> frozenset[int]:
    """Lines of a megabyte, while nobody reads the log."""
    scene.server.pause_log()
    try:
        tasks = [
            asyncio.create_task(one_order(scene.place, "long lines", scene.random, "print")) for _ in range(3)
        ]  # fmt: skip
        await asyncio.sleep(1.0)
    finally:
        scene.server.resume_log()
    await asyncio.gather(*tasks)
    return frozenset()


# Clients


async def request_burst(scene: Scene) -> frozenset[int]:
    await burst(scene.place, scene.random, 150)
    return frozenset()


async def connection_flood(scene: Scene) -> frozenset[int]:
    """More than the server takes."""
    await silent_connections(scene.place, MAX_CONNECTIONS + 100, 0.5)
    return frozenset()


async def slowloris(scene: Scene) -> frozenset[int]:
    for wrong in await asyncio.gather(*(drip(scene.place, HEAD_TIMEOUT_S + 10.0) for _ in range(30))):
        if wrong:
            scene.place.ledger.violations.add("slowloris", wrong)
    return frozenset()


async def pause_log(scene: Scene) -> frozenset[int]:
    scene.server.pause_log()
    await asyncio.sleep(1.5)
    scene.server.resume_log()
    return frozenset()


async def nothing(scene: Scene) -> frozenset[int]:
    """The load alone, to see that errors come from faults."""
    await asyncio.sleep(2.0)
    return frozenset()


FAULTS: dict[str, Fault] = {
    "kill -9 of a scorer": Fault(kill_scorer, ALL, SCRIPTS),
    "kill -9 of all scorers": Fault(kill_all_scorers, ALL, SCRIPTS),
    "SIGTERM to a scorer": Fault(terminate_scorer, ALL, SCRIPTS),
    "SIGSTOP of a scorer": Fault(stop_scorer, ALL, SCRIPTS),
    "a scorer pauses": Fault(pause_scorer, ALL, NOBODY),
    "the front pauses": Fault(pause_front, ALL, NOBODY),
    "no descriptors": Fault(few_descriptors, ALL, SCRIPTS, Cuts.IDLE),
    "kill -9 of the front": Fault(kill_front, ALL, NOBODY, Cuts.ANY, ends="front"),
    "reload": Fault(reload, ALL, NOBODY, Cuts.IDLE, ends="front"),
    "kill -9 of the arbiter": Fault(kill_arbiter, ALL, ALL, Cuts.ANY, ends="arbiter"),
    "restart": Fault(restart, ALL, NOBODY, Cuts.IDLE, ends="arbiter"),
    "slow init": Fault(slow_init, SCRIPTS, SCRIPTS),
    "failing init": Fault(failing_init, SCRIPTS, SCRIPTS),
    "run() exits": Fault(poison("exit"), SCRIPTS, SCRIPTS),
    "segfault": Fault(poison("segfault"), SCRIPTS, SCRIPTS),
    "abort": Fault(poison("abort"), SCRIPTS, SCRIPTS),
    "SystemExit": Fault(poison("leave"), SCRIPTS, SCRIPTS),
    "exception": Fault(poison("fail"), SCRIPTS, NOBODY),
    "Python loop": Fault(poison("loop"), SCRIPTS, SCRIPTS),
    "C loop that holds the GIL": Fault(poison("hold"), SCRIPTS, SCRIPTS),
    "memory blow-up": Fault(poison("memory"), SCRIPTS, SCRIPTS),
    "descriptors closed": Fault(poison("close"), SCRIPTS, SCRIPTS),
    "poison in a row": Fault(poison_in_a_row, SCRIPTS, SCRIPTS),
    "long lines, unread": Fault(long_lines, SCRIPTS, NOBODY),
    "log unread": Fault(pause_log, ALL, NOBODY),
    "burst of requests": Fault(request_burst, ALL, ALL),
    "flood of connections": Fault(connection_flood, ALL, ALL, Cuts.IDLE),
    "slowloris": Fault(slowloris, ALL, NOBODY),
    "nothing": Fault(nothing, ALL, NOBODY),
}


@dataclass(frozen=True)
class Stroke:
    """One line of the schedule."""

    at_s: float
    fault: str
    seed: int


def schedule(random: Random, engine: str, mortal: str, length_s: float) -> list[Stroke]:
    """What strikes one server. All faults that it may get come once, in some order, before one comes again.

    mortal: what may be ended: "" for neither front nor arbiter, "front", or "arbiter" for both.
    """
    may_end = {"": {""}, "front": {"", "front"}, "arbiter": {"", "front", "arbiter"}}[mortal]
    names = [name for name, fault in FAULTS.items() if engine in fault.strikes and fault.ends in may_end]
    strikes = []
    at_s = random.uniform(1, 3)
    deck: list[str] = []
    while at_s < length_s:
        if not deck:
            deck = random.sample(names, len(names))
        strikes.append(Stroke(round(at_s, 3), deck.pop(), random.getrandbits(32)))
        at_s += random.uniform(2, 8)
    return strikes
