"""Pools of real processes on a real loop, and somebody who writes down what they tell."""

import asyncio
import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest
import uvloop

from scoring_runtime.dispatch.queue import Ticket
from scoring_runtime.errors import ScorerStartError
from scoring_runtime.pool import launch
from scoring_runtime.pool.launch import LaunchPlan
from scoring_runtime.pool.pool import Pool
from scoring_runtime.pool.process import Reply, Scorer
from scoring_runtime.scorer import frames
from scoring_runtime.settings import Settings
from scoring_runtime.target import Target

WAIT_S = 30


class Request(Ticket):
    """A request for /score."""

    route = frames.ROUTE_SCORE
    method = frames.METHODS["POST"]

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.answer: Reply | None = None

    def on_settled(self, answer: Any) -> None:
        self.answer = answer

    @property
    def text(self) -> str:
        """What the scorer answered."""
        assert self.answer is not None
        return bytes(self.answer[5]).decode()


class Crew:
    """A pool, and what it has told."""

    def __init__(
        self, plan: LaunchPlan, size: int, first_boot: bool, start_timeout_s: float, max_memory_bytes: int = 0
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.unsettled: list[tuple[Ticket, bool]] = []
        self.ended: list[Scorer] = []
        self.boot_errors: list[ScorerStartError] = []
        self.pieces: list[tuple[Scorer, Ticket, Reply]] = []
        self.returned: list[Ticket] = []
        self.busy_us: list[int] = []
        self.endings: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self.pool = Pool(
            plan,
            size,
            start_timeout_s,
            self.loop,
            first_boot=first_boot,
            on_idle=self._changed.set,
            on_replies=self._on_replies,
            on_piece=self._on_piece,
            on_returned=self._on_returned,
            on_unsettled=self._on_unsettled,
            on_boot_failed=self._on_boot_failed,
            on_ended=self._changed.set,
            max_memory_bytes=max_memory_bytes,
            endings=self.endings,
        )

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something has changed so that `condition` holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def pause(self) -> None:
        """Let the loop turn, for conditions that nobody tells of."""
        await asyncio.sleep(0.01)

    async def ready(self) -> "Crew":
        """Wait for all scorers."""
        await self.until(lambda: len(self.pool.idle) == self.pool.size)
        return self

    async def end(self) -> None:
        """Kill what is left."""
        self.pool.kill("the test is over")
        await self.until(lambda: self.pool.empty)

    def send(self, *bodies: bytes, timeout_s: float = 60.0) -> tuple[Scorer, list[Request]]:
        """Give one frame to the scorer that is idle longest."""
        requests = [Request(body) for body in bodies]
        scorer = self.pool.idle.pop(0)
        scorer.send(requests, timeout_s)
        return scorer, requests

    def send_ahead(self, scorer: Scorer, *bodies: bytes, timeout_s: float = 60.0) -> list[Request]:
        """Give a scorer that works on a frame another one."""
        requests = [Request(body) for body in bodies]
        scorer.send_ahead(requests, timeout_s)
        return requests

    async def ask(self, *bodies: bytes) -> list[str]:
        """Have one frame answered."""
        _, requests = self.send(*bodies)
        await self.until(lambda: all(request.settled for request in requests))
        return [request.text for request in requests]

    def processes(self) -> list[psutil.Process]:
        """The scorers."""
        return [psutil.Process(seat.scorer.pid) for seat in self.pool._seats if seat.scorer is not None]

    def _on_replies(self, scorer: Scorer, settled: list[tuple[Ticket, Reply]], busy_us: int) -> None:
        self.busy_us.append(busy_us)
        for ticket, reply in settled:
            assert ticket.settle(reply)
        self._changed.set()

    def _on_piece(self, scorer: Scorer, ticket: Ticket, reply: Reply) -> None:
        self.pieces.append((scorer, ticket, reply))
        self._changed.set()

    def _on_returned(self, tickets: list[Ticket]) -> None:
        self.returned += tickets
        self._changed.set()

    def _on_unsettled(self, scorer: Scorer, tickets: list[tuple[Ticket, bool]]) -> None:
        self.ended.append(scorer)
        self.unsettled += tickets
        self._changed.set()

    def _on_boot_failed(self, error: ScorerStartError) -> None:
        self.boot_errors.append(error)
        self._changed.set()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on the loop that the front uses."""

    def run_on_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)

    return run_on_uvloop


@pytest.fixture(scope="session")
def what_uvloop_keeps() -> None:
    """The first loop of a process opens descriptors for all that follow."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def nothing_is_left_behind(what_uvloop_keeps: None) -> Iterator[None]:
    """No process and no descriptor outlives a test."""
    gc.collect()
    here = psutil.Process()
    before = here.num_fds()
    yield
    assert here.children(recursive=True) == []
    gc.collect()
    assert here.num_fds() <= before


@pytest.fixture
def script_plan(tmp_path: Path) -> Callable[..., LaunchPlan]:
    """How to start scorers of the text of a score.py."""

    def plan(text: str, *, preload: bool = False, python: str = sys.executable, **environ: str) -> LaunchPlan:
        path = tmp_path / "score.py"
        path.write_text(dedent(text))
        return launch.plan(
            Target("script", path, "score"),
            Settings(python=python, app_root=str(tmp_path), preload=preload),
            {"PATH": os.environ["PATH"], **environ},
        )

    return plan


IMPOSTOR = """
import os, socket, struct, sys, time
sys.path.insert(0, {folder!r})
from frames import *
import progress
channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=int(sys.argv[1]))
mark = progress.Progress(int(sys.argv[2])).mark
decoder = Decoder()
waiting = []
def receive():
    while not waiting:
        data = channel.recv(65536)
        if not data:
            sys.exit(0)
        waiting.extend(decoder.feed(data))
    return waiting.pop(0)
def say(data):
    channel.sendall(data)
def be_ready():
    receive()
    say(encode_json(READY, {{"engine": "impostor", "headers": "none"}}))
def requests():
    return decode_requests(receive())
def replies(*given):
    return b"".join(encode_replies([(number, 200, 0, 0, b"", b"answer") for number in given], 7))
def wait_for_the_end():
    while True:
        receive()
"""


@pytest.fixture
def impostor_plan() -> Callable[[str], LaunchPlan]:
    """How to start processes that speak frames, and say in them what the given code wants."""
    folder = str(Path(frames.__file__).parent)

    def plan(code: str) -> LaunchPlan:
        text = IMPOSTOR.format(folder=folder) + dedent(code)
        return LaunchPlan((sys.executable, "-I", "-S", "-B", "-c", text), {}, {"target": "impostor"})

    return plan


@pytest.fixture
def crew() -> Callable[..., contextlib.AbstractAsyncContextManager[Crew]]:
    """A started pool, that is ended at the end."""

    @contextlib.asynccontextmanager
    async def started(
        plan: LaunchPlan,
        size: int = 1,
        first_boot: bool = True,
        start_timeout_s: float = 300.0,
        max_memory_bytes: int = 0,
    ) -> AsyncIterator[Crew]:
        crew = Crew(plan, size, first_boot, start_timeout_s, max_memory_bytes)
        crew.pool.start()
        try:
            yield crew
        finally:
            await crew.end()

    return started


@pytest.fixture
def told(tmp_path: Path) -> tuple[str, Callable[[], Awaitable[str]]]:
    """A named pipe, and a way to wait for what a scorer writes into it."""
    path = tmp_path / "told"
    os.mkfifo(path)

    async def listen() -> str:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, path.read_text), WAIT_S)

    return str(path), listen
