"""Load that does not wait for answers: requests are due at random moments, whatever the server does.

A client that waits for each answer asks less often when the server is slow, and so never sees what most users of a slow
server see. Here the moments are drawn beforehand (Poisson arrivals), and the time of a request counts from its moment,
also when it could not be sent then because all connections were taken. Prints one JSON object.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import itertools
import json
import random
import sys
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

BODY = b'{"data": [[5.1,3.5,1.4,0.2]]}'
REFUSED_PAUSE_S = 0.1
LOST = 0
"""In the place of a status: the connection ended, or no answer came."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one request; times in seconds since the load began."""

    due_s: float
    sent_s: float
    ended_s: float
    status: int

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.due_s


def poisson(rate_per_s: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """Moments of a Poisson process, in order."""
    at_s = chance.expovariate(rate_per_s)
    while at_s < seconds:
        yield at_s
        at_s += chance.expovariate(rate_per_s)


def post(path: str, body: bytes, headers: str = "Content-Type: application/json\n") -> bytes:
    """A request as bytes. `headers` are lines."""
    head = f"POST {path} HTTP/1.1\nHost: localhost\n{headers}Content-Length: {len(body)}\n\n"
    return head.replace("\n", "\r\n").encode() + body


def get(path: str) -> bytes:
    """A request as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    """One connection, with one request at a time. One that the server has closed is opened again."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.due_s = self.sent_s = 0.0
        self.busy = False
        self.closing = False
        self.received = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.closing = False
        self.received.clear()

    def send(self, request: bytes, due_s: float) -> None:
        self.busy = True
        self.due_s, self.sent_s = due_s, self.load.now()
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head_bytes = self.received.find(b"\r\n\r\n") + 4
        if head_bytes < 4:
            return
        head = bytes(self.received[:head_bytes]).lower()
        _, found, length = head.partition(b"\r\ncontent-length:")
        if not found:
            raise ValueError(f"an answer without Content-Length: {head!r}")
        if len(self.received) >= head_bytes + int(length.split(b"\r", 1)[0]):
            self.received.clear()
            self._answered(int(head[9:12]))
            self.closing = b"\r\nconnection: close" in head
            if self.closing or self.load.fresh:
                assert self.transport is not None
                self.transport.close()
            else:
                self.load.freed(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._answered(LOST)
        self.load.lost(self)

    def _answered(self, status: int) -> None:
        self.busy = False
        self.load.answers.append(Answer(self.due_s, self.sent_s, self.load.now(), status))


class Load:
    """Sends the next of its requests at each of its moments, over whichever connection is free.

    again: each answer is followed by another request at once; there are no moments then.
    fresh: a connection is opened for each request. For servers that serve one connection at a time, and close it: one that
    is open and waits for its next request would keep them from all others.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        moments: Iterator[float],
        connections: int,
        *,
        again: bool = False,
        fresh: bool = False,
    ) -> None:
        self.port = port
        self.requests = itertools.cycle(requests)
        self.moments = moments
        self.again = again
        self.fresh = fresh
        self.connections = [Connection(self) for _ in range(connections)]
        self.free: list[Connection] = []
        self.waiting: deque[float] = deque()  # due, but no connection was free
        self.most_waiting = 0
        self.sent = 0
        self.answers: list[Answer] = []
        self.began = 0.0
        self.ended = asyncio.Event()
        self.due: float | None = None
        self.closed = False
        self.opening: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        return time.perf_counter() - self.began

    async def connect(self) -> None:
        for connection in self.connections:
            if not self.fresh:
                await self._open(connection)
            self.free.append(connection)

    async def _open(self, connection: Connection) -> None:
        await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.port)

    def _send(self, connection: Connection, due_s: float) -> None:
        if self.fresh:
            self._in_background(self._open_and_send(connection, due_s))
        else:
            connection.send(next(self.requests), due_s)

    async def _open_and_send(self, connection: Connection, due_s: float) -> None:
        try:
            await self._open(connection)
        except OSError:
            now = self.now()
            self.answers.append(Answer(due_s, now, now, LOST))
            self.freed(connection)
        else:
            connection.send(next(self.requests), due_s)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def _open_again(self, connection: Connection) -> None:
        """A server that takes no connection any more is asked no more: what is due waits until the load ends."""
        with contextlib.suppress(OSError):
            await self._open(connection)
            self.freed(connection)

    async def run(self, seconds: float, drain_s: float) -> list[Answer]:
        """An answer for each moment. Those that are missing long after the last one are lost."""
        self.began = time.perf_counter()
        self.due = next(self.moments, None)
        self._send_due()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds + drain_s)
        now = self.now()
        for connection in self.connections:
            if connection.busy:
                self.answers.append(Answer(connection.due_s, connection.sent_s, now, LOST))
        self.answers += [Answer(due_s, now, now, LOST) for due_s in self.waiting]
        self.close()
        return self.answers

    async def run_again(self, seconds: float) -> list[Answer]:
        """What was answered in so many seconds."""
        self.began = time.perf_counter()
        for connection in self.connections:
            connection.send(next(self.requests), 0.0)
        await asyncio.sleep(seconds)
        answers = list(self.answers)
        self.close()
        return answers

    def close(self) -> None:
        self.closed = True
        for task in self.opening:
            task.cancel()
        for connection in self.connections:
            connection.busy = False
            if connection.transport is not None:
                connection.transport.abort()

    def freed(self, connection: Connection) -> None:
        if self.again:
            # Who is refused comes back later: at once, the refusals would take the processor from the answers.
            delay_s = 0.0 if self.answers[-1].status == 200 else REFUSED_PAUSE_S
            asyncio.get_running_loop().call_later(delay_s, self._send_again, connection)
        elif self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.free.append(connection)
        self._end_if_done()

    def lost(self, connection: Connection) -> None:
        if connection in self.free:
            self.free.remove(connection)
        self._end_if_done()
        if not self.closed and not self.ended.is_set():
            if self.fresh:
                self.freed(connection)
            else:
                self._in_background(self._open_again(connection))

    def _send_due(self) -> None:
        now = self.now()
        while self.due is not None and self.due <= now:
            self.sent += 1
            if self.free:
                self._send(self.free.pop(), self.due)
            else:
                self.waiting.append(self.due)
                self.most_waiting = max(self.most_waiting, len(self.waiting))
            self.due = next(self.moments, None)
        if self.due is not None:
            asyncio.get_running_loop().call_later(max(0.0, self.due - self.now()), self._send_due)
        self._end_if_done()

    def _send_again(self, connection: Connection) -> None:
        if connection.transport is not None and not connection.transport.is_closing():
            connection.send(next(self.requests), self.now())

    def _end_if_done(self) -> None:
        if self.due is None and not self.again and len(self.answers) == self.sent:
            self.ended.set()


def quantile(values: list[float], share: float) -> float:
    """The value that so large a share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def summary(answers: list[Answer], seconds: float, target_s: float) -> dict[str, object]:
    """Counts by status, the times of each status in milliseconds, and goodput: answers with 200 within the target."""
    by_status: dict[int, list[float]] = {}
    for answer in answers:
        by_status.setdefault(answer.status, []).append(answer.latency_s)
    good = sum(latency_s <= target_s for latency_s in by_status.get(200, ()))
    return {
        "requests": len(answers),
        "good_per_s": round(good / seconds, 2),
        "sent_late_p99_ms": round(quantile([answer.sent_s - answer.due_s for answer in answers], 0.99) * 1000, 2),
        "status": {
            str(status): {
                "count": len(latencies_s),
                **{
                    f"p{share * 100:g}_ms": round(quantile(latencies_s, share) * 1000, 2)
                    for share in (0.5, 0.9, 0.99, 0.999)
                },
                "max_ms": round(max(latencies_s) * 1000, 2),
            }
            for status, latencies_s in sorted(by_status.items())
        },
    }


async def closed_loop(port: int, connections: int, seconds: float, requests: Sequence[bytes] = ()) -> float:
    """Answers with 200 a second when each connection asks again as soon as it has its answer."""
    load = Load(port, requests or [post("/score", BODY)], iter(()), connections, again=True)
    await load.connect()
    answers = await load.run_again(seconds)
    return sum(answer.status == 200 for answer in answers) / seconds


async def open_loop(
    port: int,
    path: str,
    requests: Sequence[bytes],
    rate_per_s: float,
    seconds: float,
    connections: int,
    target_s: float,
    seed: int,
    probes: list[str],
    drain_s: float,
    *,
    fresh: bool = False,
) -> dict[str, object]:
    """The load on `path`, and beside it each of `probes` asked for twenty times a second; a summary of each."""
    chance = random.Random(seed)  # noqa: S311 - to be had again, not to be guessed
    load = Load(port, requests, poisson(rate_per_s, seconds, chance), connections, fresh=fresh)
    loads = {path: load}
    for probe in probes:
        loads[probe] = Load(port, [get(probe)], poisson(20.0, seconds, chance), 20)
    for one in loads.values():
        await one.connect()
    cpu_s, began_s = time.process_time(), time.perf_counter()
    results = await asyncio.gather(*(one.run(seconds, drain_s) for one in loads.values()))
    busy = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
    report: dict[str, object] = {
        asked: summary(answers, seconds, target_s) for asked, answers in zip(loads, results, strict=True)
    }
    report["client_busy"] = round(busy, 3)
    report["most_waiting_for_a_connection"] = load.most_waiting
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, help="requests a second; without it as many as are answered")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--path", default="/score", help="what is posted to (default: %(default)s)")
    parser.add_argument("--body", type=Path, action="append", metavar="FILE", help="sent in turn; repeatable")
    parser.add_argument("--headers", type=Path, metavar="FILE", help="lines of request headers; without it JSON's")
    parser.add_argument("--target-ms", type=float, default=1000.0, help="an answer after this is not good")
    parser.add_argument("--fresh-connections", action="store_true", help="open one for each request")
    parser.add_argument("--drain-seconds", type=float, default=10.0, help="how long the last answers may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--probe", action="append", default=[], metavar="PATH", help="ask for this too; repeatable")
    arguments = parser.parse_args()
    gc.disable()  # a collection would be a pause of the client's, and there are no cycles to speak of
    headers = ["Content-Type: application/json\n"] if arguments.headers is None else [arguments.headers.read_text()]
    bodies = [BODY] if arguments.body is None else [file.read_bytes() for file in arguments.body]
    requests = [post(arguments.path, body, *headers) for body in bodies]
    if arguments.rate is None:
        good_per_s = uvloop.run(closed_loop(arguments.port, arguments.connections, arguments.seconds, requests))
        report: dict[str, object] = {"good_per_s": round(good_per_s, 2)}
    else:
        report = uvloop.run(
            open_loop(
                arguments.port,
                arguments.path,
                requests,
                arguments.rate,
                arguments.seconds,
                arguments.connections,
                arguments.target_ms / 1000,
                arguments.seed,
                arguments.probe,
                arguments.drain_seconds,
                fresh=arguments.fresh_connections,
            )
        )
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
