"""What is done to a server under load: one table."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .load import Client
from .subjects import Running

BATCH = 16
LEAVERS = 50
TOLD_AFTER_S = 0.5
"""How long after SIGTERM a load balancer still sends."""

Strike = Callable[[Running, Client], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One row of the report."""

    text: str
    strike: Strike
    scripts_only: bool = False
    needs_answerer: bool = False
    """It strikes the process that speaks HTTP where that is no worker."""

    ends_server: bool = False
    """Nothing of this server is to recover."""

    note: str = ""
    """What a reader must know."""


def _to_worker(number: int) -> Strike:
    async def strike(running: Running, _: Client) -> None:
        os.kill(running.workers()[0], number)

    return strike


def _poison(do: str) -> Strike:
    async def strike(_: Running, client: Client) -> None:
        client.send(do)

    return strike


async def _poison_among_others(_: Running, client: Client) -> None:
    for index in range(BATCH):
        client.send("exit" if index == BATCH // 2 else "")


async def _leave(_: Running, client: Client) -> None:
    await asyncio.gather(*(client.leave() for _ in range(LEAVERS)))


async def _kill_answerer(running: Running, _: Client) -> None:
    os.kill(running.answerer(), signal.SIGKILL)


async def _kill_first(running: Running, _: Client) -> None:
    running.process.kill()


async def _terminate(running: Running, _: Client) -> None:
    running.process.terminate()


FAULTS = {
    "kill-worker": Fault("`kill -9` of one of two workers", _to_worker(signal.SIGKILL)),
    "stop-worker": Fault("`SIGSTOP` of one of two workers", _to_worker(signal.SIGSTOP)),
    "exit": Fault("`run()` ends its process", _poison("exit"), scripts_only=True),
    "segfault": Fault("segmentation fault in `run()`", _poison("segfault"), scripts_only=True),
    "loop": Fault("endless Python loop in `run()`", _poison("loop"), scripts_only=True),
    "hold": Fault("C code in `run()` that never gives back the interpreter", _poison("hold"), scripts_only=True),
    "memory": Fault("`run()` takes all memory that it may have", _poison("memory"), scripts_only=True),
    "raise": Fault("`run()` raises", _poison("raise"), scripts_only=True),
    "poison-in-batch": Fault(
        f"one of {BATCH} requests at once ends its process", _poison_among_others, scripts_only=True
    ),
    "leave": Fault(f"{LEAVERS} clients leave at once", _leave),
    "kill-answerer": Fault(
        "`kill -9` of the process that speaks HTTP",
        _kill_answerer,
        needs_answerer=True,
        note="In azmlinfsrv the workers speak HTTP themselves: see the first table.",
    ),
    "kill-first": Fault(
        "`kill -9` of the first process",
        _kill_first,
        ends_server=True,
        note="What is lost cannot be helped: with its first process a container ends, and whoever runs it starts another. "
        "Other servers' processes live on without it for a while, and nobody replaces them.",
    ),
    "terminate": Fault(
        "`SIGTERM` under load",
        _terminate,
        ends_server=True,
        note=f"The load goes on for {TOLD_AFTER_S:g} s after the signal, as that of a load balancer does until it has noticed.",
    ),
}
