"""A front without sockets, processes or time: real server and connections on a loop, transports and scorers that the
tests turn by hand.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, NamedTuple, cast

import pytest

from scoring_runtime.dispatch.queue import Ticket
from scoring_runtime.front.connection import Connection
from scoring_runtime.front.exchange import Exchange
from scoring_runtime.front.server import Server
from scoring_runtime.pool.arena import Arena
from scoring_runtime.pool.launch import LaunchPlan
from scoring_runtime.pool.process import Scorer
from scoring_runtime.settings import Settings

HEADER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t -~\x80-\xff]*")


class Response(NamedTuple):
    """What a client makes of the bytes that it reads."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_responses(data: bytes, methods: Iterable[str]) -> list[Response]:
    """Cut a stream into responses to requests of these methods; POST beyond them. Fails on anything that is no HTTP."""
    responses = []
    asked = deque(methods)
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"no end of the head: {head!r}"
        status_line, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [ -~]+", status_line)
        assert match, status_line
        status = int(match[1])
        headers: dict[str, str] = {}
        for line in lines:
            assert HEADER_LINE.fullmatch(line), line
            name, _, value = line.decode("latin-1").partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        if status == 100:
            assert not headers
            responses.append(Response(status, headers, b""))
            continue
        method = asked.popleft() if asked else "POST"
        assert ("content-length" in headers) != ("transfer-encoding" in headers or status in (204, 304)), head
        if method == "HEAD" or status in (204, 304):
            size = 0
        elif "transfer-encoding" in headers:
            body, data = read_chunks(data)
            responses.append(Response(status, headers, body))
            continue
        else:
            size = int(headers["content-length"])
        assert len(data) >= size, f"{size} bytes announced, {len(data)} sent"
        responses.append(Response(status, headers, data[:size]))
        data = data[size:]
    return responses


def read_chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, end, data = data.partition(b"\r\n")
        assert end
        assert re.fullmatch(rb"[0-9a-f]+", size)
        piece, data = data[: int(size, 16)], data[int(size, 16) :]
        assert data.startswith(b"\r\n")
        data = data[2:]
        if not piece:
            return body, data
        body += piece


class Loop:
    """As much of an event loop as the front uses between its start and its end."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.ready: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        """The time of the system, and what a test has let pass on top of it."""
        return monotonic() + self.passed_s

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.ready.append((callback, arguments))

    def call_later(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Time passes only when a test says so."""

    def run(self) -> None:
        """Until nothing is left to do."""
        while self.ready:
            callback, arguments = self.ready.popleft()
            callback(*arguments)


class Wire(asyncio.Transport):
    """The transport between one client and its connection."""

    def __init__(self, loop: Loop, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.loop = loop
        self.protocol = protocol
        self.sent = bytearray()  # to the client
        self.wrote = asyncio.Event()
        self.backlog_bytes = 0  # of what was sent, not read by the client yet
        self.arriving: deque[bytes] = deque()
        self.reading = True
        self.ended = False  # after what was sent
        self.closed = self.aborted = self.lost = False

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        if not self.closed:
            self.sent += data
            self.wrote.set()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.backlog_bytes

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        """What was written still goes out, as far as the client reads."""
        if not self.closed:
            self.closed = True
            if not self.backlog_bytes:
                self.loop.call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = True
        self.backlog_bytes = 0
        if self.closed and not self.lost:
            self.loop.call_soon(self._lose)
        self.close()

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True
        self.loop.call_soon(self.deliver)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert not self.reading, "uvloop goes on reading in the old way"
        self.protocol = protocol

    def deliver(self) -> None:
        while self.arriving and self.reading and not self.closed:
            data = self.arriving.popleft()
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = memoryview(cast(bytearray, self.protocol.get_buffer(65536)))
                count = min(len(buffer), len(data))
                buffer[:count] = data[:count]
                if data[count:]:
                    self.arriving.appendleft(data[count:])
                self.protocol.buffer_updated(count)
            else:
                cast(asyncio.Protocol, self.protocol).data_received(data)

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        self.protocol.connection_lost(None)


class Client:
    """One client and its connection."""

    def __init__(self, front: "Front") -> None:
        self.front = front
        self.connection = Connection(front.server)
        self.wire = Wire(front.loop, self.connection)
        self.connection.connection_made(self.wire)

    def send(self, *pieces: bytes) -> "Client":
        """Let pieces arrive one by one, and the front work after each."""
        for data in pieces:
            self.wire.arriving.append(data)
            self.wire.deliver()
            self.front.loop.run()
        return self

    def leave(self) -> None:
        """Close without a word."""
        self.wire.close()
        self.front.loop.run()

    def responses(self, *methods: str) -> list[Response]:
        """What it was sent, whole responses."""
        return read_responses(bytes(self.wire.sent), methods)

    def response(self, method: str = "POST") -> Response:
        """The only one."""
        (response,) = self.responses(method)
        return response

    @property
    def open(self) -> bool:
        """More can be sent and answered."""
        return not self.wire.closed and not self.wire.ended


class HandScorer:
    """In the place of a scorer process: keeps what it is sent until the test answers."""

    number = 1
    exit_text = "was killed by the test"
    timed_out = False

    def __init__(self) -> None:
        self.in_flight: dict[int, Ticket] = {}
        self.ahead: dict[int, Ticket] = {}
        self.streamed = False
        self.takes_ahead = self.stops = False  # as a script: one frame at a time, and to its end
        self.controls: list[tuple[str, int]] = []

    def send(self, tickets: list[Ticket], timeout_s: float) -> None:
        assert not self.in_flight, "busy"
        self.in_flight = dict(enumerate(tickets, 1))

    def send_ahead(self, tickets: list[Ticket], timeout_s: float) -> None:
        assert self.in_flight, "nothing to be ahead of"
        assert not self.ahead, "busy"
        self.ahead = dict(enumerate(tickets, 1001))
        self.takes_ahead = False

    def stop(self, frame: dict[int, Ticket]) -> bool:
        if self.stops:
            self.controls.append(("stop", next(iter(frame))))
        return self.stops

    def pull(self, number: int) -> None:
        self.controls.append(("pull", number))

    def cancel(self, number: int) -> None:
        self.controls.append(("cancel", number))


class Front:
    """A server, and everything that is around one."""

    def __init__(
        self,
        scorers: int = 1,
        environ: Any = None,
        hello: Any = None,
        key_file: Any = None,
        arena: Arena | None = None,
        **settings: Any,
    ) -> None:
        self.loop = Loop()
        self.boot_errors: list[Any] = []
        plan = LaunchPlan((), environ or {}, hello or {}, arena=arena)
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        settings.setdefault("scorers", max(1, scorers))
        self.server = Server(
            Settings(**settings),
            plan,
            loop,
            first_boot=False,
            on_boot_failed=self.boot_errors.append,
            key_file=key_file,
        )
        self.server.pool.info = {"headers": "none"}
        self.server.scoring.wanted_headers = "none"
        for power in range(8):
            self.server.scoring.cost.observe(1 << power, 0, 1e-6)  # frames may hold what there is
        self.scorers = [HandScorer() for _ in range(scorers)]
        self.server.pool.idle.extend(cast(list[Scorer], self.scorers))

    def connect(self) -> Client:
        """A new client."""
        return Client(self)

    def ask(self, *pieces: bytes) -> Client:
        """A new client that has sent this, and had what is there echoed."""
        client = self.connect().send(*pieces)
        self.echo()
        return client

    def pass_time(self, passed_s: float) -> None:
        """The clock moves, and the server looks at it."""
        self.loop.passed_s += passed_s
        self.server._tick()
        self.loop.run()

    @property
    def taken(self) -> list[Exchange]:
        """What the scorers have and have not answered."""
        return [cast(Exchange, ticket) for scorer in self.scorers for ticket in scorer.in_flight.values()]

    def reply(
        self, exchange: Exchange, body: bytes = b"{}", status: int = 200, head: bytes = b"", flags: int = 0
    ) -> None:
        """A scorer answers one request."""
        for scorer in self.scorers:
            for number, ticket in list(scorer.in_flight.items()):
                if ticket is exchange:
                    del scorer.in_flight[number]
                    reply = (number, status, flags, 0, head, body)
                    self.server.scoring.replied(cast(Scorer, scorer), [(exchange, reply)], 100)
                    if scorer.ahead:
                        self._advance(scorer)
                    elif not scorer.in_flight:
                        self._free(scorer)
        self.loop.run()

    def piece(self, exchange: Exchange, body: bytes, flags: int, status: int = 200, head: bytes = b"") -> HandScorer:
        """A scorer sends a piece of a reply."""
        for scorer in self.scorers:
            for number, ticket in list(scorer.in_flight.items()):
                if ticket is exchange:
                    self.server.scoring.streamed(cast(Scorer, scorer), exchange, (number, status, flags, 0, head, body))
                    self.loop.run()
                    return scorer
        raise AssertionError("no scorer has it")

    def echo(self) -> None:
        """The scorers answer everything with its own body."""
        while self.taken:
            for exchange in self.taken:
                self.reply(exchange, bytes(exchange.body))

    def lose(self, scorer: HandScorer, begun: int) -> None:
        """A scorer ends after it has begun so many of its requests."""
        tickets = [(ticket, number <= begun) for number, ticket in {**scorer.in_flight, **scorer.ahead}.items()]
        scorer.in_flight, scorer.ahead = {}, {}
        self.server.scoring.unsettled(cast(Scorer, scorer), tickets)
        self._free(scorer)
        self.loop.run()

    def _advance(self, scorer: HandScorer) -> None:
        if not scorer.in_flight:
            scorer.in_flight, scorer.ahead = scorer.ahead, {}
            scorer.takes_ahead = True
            self.server.scoring.pump_soon()

    def _free(self, scorer: HandScorer) -> None:
        self.server.pool.idle.append(cast(Scorer, scorer))
        self.server.scoring.pump_soon()


@pytest.fixture(scope="session")
def make_front() -> Callable[..., Front]:
    """Fronts with settings of their own."""
    return Front


@pytest.fixture
def front() -> Front:
    """A front with one scorer and the default settings."""
    return Front()
