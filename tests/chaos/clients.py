"""Clients of many kinds. Each visits a server again and again, and tells the ledger what became of every request."""

import asyncio
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .ledger import Ledger
from .orders import Order, model_order, script_order
from .wire import (
    Answer,
    Cut,
    NotHTTP,
    Reader,
    Writer,
    connect,
    encode,
    encode_chunked,
    read_answer,
    read_chunk,
    read_head,
    read_rest,
)

ANSWER_WITHIN_S = 90.0
PROBE_WITHIN_S = 15.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER that closes with RST

Clock = Callable[[], float]


@dataclass
class Place:
    """Where requests go to."""

    name: str
    engine: str  # "raw", "plain" or "onnx"
    port: int
    ledger: Ledger
    clock: Clock

    @property
    def scripted(self) -> bool:
        """A script is served, and no model."""
        return self.engine != "onnx"


@dataclass
class Visit:
    """What one client asks in one go."""

    place: Place
    client: str
    random: Random
    pending: dict[int, Order] = field(default_factory=dict)
    heard_at: float = float("inf")
    """When the last answer came on the connection that is still open."""

    def order(self, do: str = "echo", *, good: bool = True, rows: int = 1, **more: Any) -> Order:
        """A request that is about to be sent."""
        place = self.place
        number = place.ledger.sent(place.name, self.client, place.clock(), good=good, runs=place.scripted)
        if place.scripted:
            order = script_order(number, self.random, do, **more)
        else:
            order = model_order(number, self.random, rows)
        self.pending[number] = order
        return order

    def other(self, target: str, check: Callable[[Answer], str]) -> Order:
        """A request that no scorer runs."""
        place = self.place
        probe = target not in ("/", "/livez", "/metrics")  # those are answered whatever the scorers do
        number = place.ledger.sent(place.name, self.client, place.clock(), runs=False, probe=probe)
        self.pending[number] = order = Order(number, b"", check)
        return order

    def judge(self, order: Order, answer: Answer) -> None:
        """Its answer has come."""
        del self.pending[order.number]
        wrong = order.judge(answer)
        ledger, now = self.place.ledger, self.place.clock()
        self.heard_at = now
        if wrong and answer.status != 200:
            ledger.violations.add("an error with the id of another request", f"request {order.number}: {wrong}")
        detail = wrong or answer.body[:200].decode("utf-8", "replace")
        ledger.answered(order.number, answer.status, not wrong, now, detail)

    def leave(self) -> None:
        """Nobody waits for what is pending."""
        for number in self.pending:
            self.place.ledger.left(number)
        self.pending.clear()

    def lose(self, why: str, *, harmed: bool = False) -> None:
        """The connection has gone."""
        now = self.place.clock()
        for number, order in self.pending.items():
            self.place.ledger.lost(number, now, why, harmed=harmed or order.streamed)
        self.pending.clear()

    def violated(self, kind: str, detail: str) -> None:
        """The server did what it must not do."""
        self.place.ledger.violations.add(kind, f"{self.client} of {self.place.name}: {detail}")

    async def idle(self, reader: Reader, mean_s: float) -> None:
        """Pause between two requests; Cut when the connection is closed meanwhile, which takes a fault that does so."""
        await pause(self, mean_s)
        if reader.at_eof():
            self.place.ledger.closed(self.place.name, self.heard_at, self.place.clock(), self.client)
            raise Cut("closed between two requests")

    async def end(self, reader: Reader) -> None:
        """After the last answer, which closes the connection, nothing may follow."""
        rest = await read_rest(reader)
        if rest:
            self.violated("bytes after the last answer", repr(rest[:200]))


async def ask(visit: Visit, reader: Reader, writer: Writer, order: Order, data: bytes = b"") -> Answer:
    """Send a request whole and judge its answer."""
    await send(writer, data or order.post)
    answer = await read_answer(reader)
    visit.judge(order, answer)
    return answer


async def send(writer: Writer, data: bytes) -> None:
    if writer.is_closing():
        return  # who reads finds out why
    writer.write(data)
    try:
        await writer.drain()
    except OSError as error:
        # The server may have said why before it closed: who reads finds that, or the end.
        if not isinstance(error, ConnectionError):
            raise Cut(str(error)) from None


# The kinds


async def keep_alive(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        for _ in range(visit.random.randrange(10, 60)):
            slow = visit.random.random() < 0.1
            order = visit.order("sleep", s=0.02) if slow else visit.order()
            if (await ask(visit, reader, writer, order)).closes:
                return await visit.end(reader)
            await visit.idle(reader, 0.02)
        order = visit.order()
        last = encode("POST", "/score", order.body, [*order.headers, "Connection: close"])
        await ask(visit, reader, writer, order, last)
        return await visit.end(reader)


async def new_connection_each(visit: Visit) -> None:
    for _ in range(10):
        async with connect(visit.place.port) as (reader, writer):
            order = visit.order()
            data = encode("POST", "/score", order.body, [*order.headers, "Connection: close"])
            await ask(visit, reader, writer, order, data)
            await visit.end(reader)
        await pause(visit, 0.03)


async def pipelined(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        for _ in range(4):
            orders = [visit.order() for _ in range(visit.random.randrange(2, 32))]
            data = b"".join(order.post for order in orders)
            cut = visit.random.randrange(1, len(data))
            await send(writer, data[:cut])
            await asyncio.sleep(0)
            await send(writer, data[cut:])
            for order in orders:
                answer = await read_answer(reader)
                visit.judge(order, answer)
                if answer.closes:
                    return visit.lose("an answer closed the connection before the others", harmed=answer.status == 503)
            await visit.idle(reader, 0.3)
    return None


async def chunked(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        for _ in range(8):
            order = visit.order(pad="é" * visit.random.choice((0, 10, 5000, 60000)))
            for piece in encode_chunked("/score", order.body, visit.random, order.headers):
                await send(writer, piece)
                await asyncio.sleep(0.002)
            answer = await read_answer(reader)
            visit.judge(order, answer)
            if answer.closes:
                return
            await visit.idle(reader, 0.1)


async def large_bodies(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        for _ in range(3):
            size = visit.random.choice((100_000, 1_000_000, 4_000_000))
            if (await ask(visit, reader, writer, visit.order(pad="x" * size, rows=size // 1000))).closes:
                return
            await visit.idle(reader, 0.5)


async def slow_readers(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        small_window(writer)
        order = visit.order("reply", count=visit.random.choice((1000, 200_000, 400_000)), rows=3000)
        await send(writer, order.post)
        visit.judge(order, await read_answer(reader, bytes_per_s=1_000_000))


async def streams(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        for _ in range(3):
            order = visit.order("stream", count=visit.random.randrange(1, 40), s=visit.random.choice((0.0, 0.01)))
            await send(writer, order.post)
            if visit.random.random() < 0.3:
                status, _ = await read_head(reader)
                if status == 200:
                    await read_chunk(reader)
                visit.leave()
                return
            answer = await read_answer(reader)
            visit.judge(order, answer)
            if answer.closes:
                return


async def early_leavers(visit: Visit) -> None:
    random = visit.random
    for _ in range(5):
        async with connect(visit.place.port) as (_, writer):
            order = visit.order(random.choice(("echo", "sleep")), s=0.05, pad="x" * random.choice((0, 100_000)))
            data = order.post
            await send(writer, data[: random.choice((1, 30, len(data) // 2, len(data) - 1, len(data), len(data)))])
            await asyncio.sleep(random.choice((0, 0.001, 0.02)))
            visit.leave()
            if random.random() < 0.5:
                with suppress(OSError):  # it is closed already
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await pause(visit, 0.1)


async def other_routes(visit: Visit) -> None:
    async with connect(visit.place.port) as (reader, writer):
        for method, target, expected in visit.random.sample(OTHER_ROUTES, len(OTHER_ROUTES)):
            order = visit.other(target, contains(expected))
            began = visit.place.clock()
            answer = await ask(visit, reader, writer, order, encode(method, target))
            if (took_s := visit.place.clock() - began) > PROBE_WITHIN_S:
                visit.violated("a probe waited", f"{target} took {took_s:.1f} s")
            if answer.closes:
                return
            await visit.idle(reader, 0.05)
        if visit.place.engine == "raw":
            for method in ("GET", "OPTIONS"):
                order = visit.order()
                if (await ask(visit, reader, writer, order, order.get(method))).closes:
                    return


OTHER_ROUTES = [
    ("GET", "/", b"Healthy"),
    ("GET", "/livez", b""),
    ("GET", "/readyz", b""),
    ("GET", "/startupz", b""),
    ("GET", "/readyz?verbose", b"scorer"),
    ("GET", "/metrics", b"scoring_connections"),
    ("GET", "/swagger.json", b"swagger"),
]


def contains(expected: bytes) -> Callable[[Answer], str]:
    return lambda answer: "" if expected in answer.body else f"{answer.body[:200]!r} does not hold {expected!r}"


async def bad_requests(visit: Visit) -> None:
    for data, statuses in visit.random.sample(BAD_REQUESTS, 4):
        place = visit.place
        async with connect(place.port) as (reader, writer):
            number = place.ledger.sent(place.name, visit.client, place.clock(), good=False, runs=False)
            visit.pending[number] = Order(number, b"", contains(b""))
            await send(writer, data)
            answer = await read_answer(reader)
            del visit.pending[number]
            place.ledger.answered(number, answer.status, False, place.clock(), f"to {data[:60]!r}")
            if answer.status not in statuses and answer.status != 503:
                visit.violated("a bad request got an unexpected status", f"{answer.status} to {data[:100]!r}")
        await pause(visit, 0.1)


BAD_REQUESTS: Sequence[tuple[bytes, tuple[int, ...]]] = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400,)),
    (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
    (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", (400,)),
    (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", (400,)),
    (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", (400, 413)),
    (b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", (400, 501)),
    (b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400,)),
    (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (414,)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n", (431,)),
    (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", (400, 505)),
    (b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", (404,)),
    (b"DELETE /score HTTP/1.1\r\nHost: a\r\n\r\n", (405,)),
]


KINDS: dict[str, Callable[[Visit], Awaitable[None]]] = {
    kind.__name__: kind
    for kind in (
        keep_alive,
        new_connection_each,
        pipelined,
        chunked,
        large_bodies,
        slow_readers,
        streams,
        early_leavers,
        other_routes,
        bad_requests,
    )
}
SCRIPTS_ONLY = {"streams"}


async def keep_visiting(place: Place, kind: str, random: Random, stopping: asyncio.Event) -> None:
    """Be a client of that kind until told to stop."""
    while not stopping.is_set():
        visit = Visit(place, kind, random)
        await attempt(visit, KINDS[kind])
        await pause(visit, 0.2)


async def attempt(visit: Visit, kind: Callable[[Visit], Awaitable[None]]) -> None:
    """One visit, whose requests are all settled at its end."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await kind(visit)
    except Cut as cut:
        visit.lose(str(cut))
    except NotHTTP as error:
        visit.violated("not HTTP", str(error))
        visit.lose(str(error))
    except TimeoutError:
        visit.violated("no answer", f"{len(visit.pending)} requests within {ANSWER_WITHIN_S:g} s")
        visit.lose("no answer")
    except Exception as error:
        visit.violated("a fault of the client itself", repr(error))
        visit.lose("a fault of the client itself")
    else:
        if visit.pending:
            visit.lose("the client forgot it")


async def pause(visit: Visit, mean_s: float) -> None:
    await asyncio.sleep(min(visit.random.expovariate(1 / mean_s), 10 * mean_s))


def small_window(writer: Writer) -> None:
    """Let little be under way, so that the server has to wait for its reader."""
    with suppress(OSError):  # it is closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)


# What faults are made of


async def one_order(place: Place, client: str, random: Random, do: str, **more: Any) -> None:
    """One request that does harm: nobody expects a right answer."""

    async def kind(visit: Visit) -> None:
        async with connect(place.port) as (reader, writer):
            await ask(visit, reader, writer, visit.order(do, good=False, **more))

    await attempt(Visit(place, client, random), kind)


async def burst(place: Place, random: Random, count: int) -> None:
    """So many requests at once, each on its connection."""

    async def kind(visit: Visit) -> None:
        async with connect(place.port) as (reader, writer):
            await ask(visit, reader, writer, visit.order())

    await asyncio.gather(*(attempt(Visit(place, "burst", Random(random.random())), kind) for _ in range(count)))


async def silent_connections(place: Place, count: int, hold_s: float) -> None:
    """Open so many connections, say nothing, and reset them."""
    sockets = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sockets.append(client)
            try:
                await asyncio.wait_for(loop.sock_connect(client, ("127.0.0.1", place.port)), 2.0)
            except OSError:
                pass  # nobody listens, or the line before the port is full: that many it takes
        await asyncio.sleep(hold_s)
    finally:
        for client in sockets:
            client.close()


async def drip(place: Place, limit_s: float) -> str:
    """Send a head byte by byte; what is wrong if the server lets it go on for longer than `limit_s`."""
    try:
        async with connect(place.port) as (reader, writer):
            began = place.clock()
            ended = asyncio.ensure_future(read_rest(reader))
            for byte in itertools.chain(b"POST /score HTTP/1.1\r\nHost: a\r\nx: ", itertools.repeat(97)):
                if ended.done() or place.clock() - began > limit_s:
                    break
                await send(writer, bytes([byte]))
                await asyncio.wait([ended], timeout=0.1)
            if ended.done():
                return ""
            ended.cancel()
            return f"a head was let drip for {limit_s:g} s"
    except Cut:
        return ""
