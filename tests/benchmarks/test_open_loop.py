"""The generator of open loads, against servers whose delays are known."""

import asyncio
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest

from benchmarks import open_loop

PROGRAM = Path(open_loop.__file__)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST_ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

Delay = Callable[[float], float]


class KnownServer:
    """Answers each request after delay(seconds since the first one). Its answers may end their connections."""

    def __init__(self, delay: Delay, *, closes: bool = False) -> None:
        self.delay = delay
        self.closes = closes
        self.began: float | None = None
        self.bodies: list[bytes] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
                self.bodies.append(await reader.readexactly(length))
                now = time.monotonic()
                self.began = self.began or now
                await asyncio.sleep(self.delay(now - self.began))
                writer.write(LAST_ANSWER if self.closes else ANSWER)
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def run(self, ready: threading.Event, end: threading.Event) -> None:
        async def main() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await asyncio.to_thread(end.wait)
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run(main())


@pytest.fixture
def serve() -> Iterator[Callable[..., KnownServer]]:
    ends: list[tuple[threading.Event, threading.Thread]] = []

    def start(delay: Delay, *, closes: bool = False) -> KnownServer:
        server = KnownServer(delay, closes=closes)
        ready, end = threading.Event(), threading.Event()
        thread = threading.Thread(target=server.run, args=(ready, end))
        thread.start()
        ends.append((end, thread))
        assert ready.wait(10)
        return server

    yield start
    for end, thread in ends:
        end.set()
        thread.join(10)


def ask(server: KnownServer, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-P", str(PROGRAM), "--port", str(server.port), *options]
    report: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return report


def test_moments_are_a_poisson_process():
    moments = list(open_loop.poisson(200.0, 100.0, random.Random(7)))
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    assert fmean(gaps) == pytest.approx(1 / 200, rel=0.03)
    assert pstdev(gaps) == pytest.approx(fmean(gaps), rel=0.05)  # what tells an exponential gap from a regular one
    assert moments == list(open_loop.poisson(200.0, 100.0, random.Random(7)))


def test_a_constant_delay_is_what_is_reported(serve):
    """The delay is long enough for what a loaded machine adds to be small beside it."""
    server = serve(lambda _: 0.3)
    seen = ask(server, "--rate", "50", "--seconds", "2", "--connections", "64")["/score"]
    times = seen["status"]["200"]
    assert times["count"] == seen["requests"] == len(server.bodies)
    assert 300 <= times["p50_ms"] < 600
    assert times["p50_ms"] <= times["p99_ms"] <= times["max_ms"]


def test_a_pause_of_the_server_counts_for_all_that_were_due_in_it(serve):
    """One connection, one pause of a second: a client that waits would see one slow answer, users see hundreds."""
    pauses = iter([1.0])
    server = serve(lambda at_s: next(pauses, 0.0) if at_s >= 0.5 else 0.0)
    seen = ask(server, "--rate", "200", "--seconds", "3", "--connections", "1")["/score"]["status"]["200"]
    assert seen["max_ms"] >= 1000
    # Those due in the pause waited half a second on average, and they are a third of all.
    assert seen["p90_ms"] > 500
    assert seen["p50_ms"] < seen["p90_ms"]


def test_times_count_from_when_a_request_was_due(serve):
    """One connection serves 20 a second; 40 are due: the last waits about as long as the load lasts."""
    server = serve(lambda _: 0.05)
    seen = ask(server, "--rate", "40", "--seconds", "2", "--connections", "1")
    times = seen["/score"]["status"]["200"]
    assert times["count"] == seen["/score"]["requests"]
    assert times["max_ms"] > 1000
    assert seen["most_waiting_for_a_connection"] > 10


def test_a_server_that_closes_after_each_answer_is_asked_over_new_connections(serve):
    server = serve(lambda _: 0.0, closes=True)
    seen = ask(server, "--rate", "100", "--seconds", "1", "--connections", "4")["/score"]
    assert list(seen["status"]) == ["200"]
    assert seen["status"]["200"]["count"] == len(server.bodies) > 50


def test_fresh_connections_serve_a_server_that_takes_one_at_a_time(serve):
    server = serve(lambda _: 0.0, closes=True)
    seen = ask(server, "--rate", "100", "--seconds", "1", "--connections", "4", "--fresh-connections")["/score"]
    assert list(seen["status"]) == ["200"]
    assert seen["status"]["200"]["count"] == seen["requests"] == len(server.bodies) > 50


def test_bodies_are_sent_in_turn(serve, tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"22")
    server = serve(lambda _: 0.0)
    bodies = ["--body", str(tmp_path / "one"), "--body", str(tmp_path / "two")]
    ask(server, "--rate", "100", "--seconds", "1", "--connections", "1", *bodies)
    assert server.bodies[:4] == [b"1", b"22", b"1", b"22"]


def test_an_answer_that_never_comes_is_lost(serve):
    server = serve(lambda _: 3600.0)
    seen = ask(server, "--rate", "20", "--seconds", "1", "--connections", "4", "--drain-seconds", "0.5")["/score"]
    assert list(seen["status"]) == ["0"]
