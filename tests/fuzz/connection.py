"""front/connection.py: any bytes, cut anywhere, into a real connection of a real server.

- Nothing raises, and what is sent back is HTTP.
- Every request that was begun is settled, answered at most once, in order, and only a closing connection leaves any out.
- How the stream is cut, and which heads the server has met before, changes nothing.
- What is kept stays within the limits.
- A strict reader (h11) finds the same requests. Where one of the two refuses, it is in order when it is ours; where it is
  h11's, the reason stands in `ALLOWED`.
"""

import re
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, NamedTuple, cast

import h11

from scoring_runtime.front.connection import Connection
from scoring_runtime.front.control import ControlPlane, Snapshot
from scoring_runtime.front.exchange import Exchange

from ..front.conftest import Client, Front, Response
from .draw import Draw, cut

SMALL, SCRIPT, AT_ONCE, BACKWARDS = 1, 2, 4, 8
SMALL_LIMITS = {"max_body_bytes": 200, "max_head_bytes": 256, "max_target_bytes": 64, "max_head_fields": 5}

ALLOWED: dict[str, str] = {
    "closed by HTTP/1.0": "h11 knows no keep-alive in HTTP/1.0",
    "Missing mandatory Host: header": "health checks are written by hand, and nothing here depends on the host",
    r"illegal request line: bytearray\(b'\S+ +\S+ +HTTP/1\.[01]'\)": "RFC 9112 section 3: spaces may be read as one",
    "no request line received": "RFC 9112 section 2.2: empty lines before a request line are ignored",
}
"""What h11 refuses and we accept: what is found in its message, and why we do."""

TOKENS = (
    *(b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"/score", b"/livez", b"/metrics", b"/swagger.json?version=3", b"/v2/models/x", b"http://here/score", b"*"),
    *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9\r\n", b"\r\n\r\n", b"\r\n", b"\n", b"\r", b"\0", b"\t", b"\xff"),
    *(b"Host: here\r\n", b"Content-Length: 5\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n"),
    *(b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"x-request-id: 1\r\n"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX-Late: 1\r\n\r\n", b"ffffffffffffffff\r\n", b"1;x=y\r\n"),
)


def seed(stream: bytes, options: int = 0, cuts: tuple[int, ...] = ()) -> bytes:
    """An input for `check`."""
    places = b"".join(at.to_bytes(2, "little") for at in cuts)
    return bytes([options, len(cuts)]) + places + stream


_POST = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc"
_CHUNKED = b"POST /score HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Late: 1\r\n\r\n"
_EMPTY = b"POST /score HTTP/1.1\r\nHost: here\r\n\r\n"
_GET = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
SEEDS = (
    seed(_POST * 3),
    seed(_POST * 3, AT_ONCE, (len(_POST), 2 * len(_POST))),
    seed(_CHUNKED + _POST, BACKWARDS, (70, 80, 95)),
    seed(_POST + _GET + _CHUNKED, SCRIPT, (5, 50, 100)),
    seed(_POST * 20, BACKWARDS),
    seed(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\nHEAD /swagger.json?version=3 HTTP/1.1\r\nHost: here\r\n\r\n"),
    seed(b"OPTIONS /v2/models/x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" + _POST),
    seed(b"POST /score HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx" + _POST),
    seed(b"POST /score HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", cuts=(70,)),
    seed(
        b"POST /score HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx" + _GET
    ),
    seed(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n" + b"x" * 300, SMALL),
    seed(b"GET /" + b"t" * 80 + b" HTTP/1.1\r\nHost: x\r\n\r\n", SMALL, (40, 60)),
    seed(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Y: z\r\n" * 10 + b"\r\n", SMALL, (30, 50)),
    seed(b"CONNECT here:443 HTTP/1.1\r\nHost: here\r\n\r\n" + _GET),
    seed(b"CONNECT here:443 HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(_GET) + _GET),
    seed(_POST + _POST[:-2] + _GET, AT_ONCE, (len(_POST), 2 * len(_POST) - 2)),  # a known head, a part of its body
    seed(_GET + _EMPTY + _GET, AT_ONCE, (len(_GET + _EMPTY),)),  # two messages at once, the first answered already
    seed(_CHUNKED.replace(b"3\r\nabc", b"c8\r\n%b\r\n3\r\nabc" % (b"x" * 200)), SMALL),
    seed(b"FOO /score HTTP/1.1\r\nHost: here\r\n\r\n"),
    seed(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    seed(b"\r\n\r\n" + _POST),
)


class Told(NamedTuple):
    """What one conversation came to: the requests that were read, and the answers."""

    requests: list[tuple[bytes, bytes, bytes]]
    answers: list[Response]
    waits: bool


class Line(list[Exchange]):
    """A connection's exchanges, and all that there ever were, each with its body."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.begun: list[tuple[Exchange, bytes]] = []
        self.refusals: list[Exchange] = []  # which answer what is no request
        self._connection = connection

    def append(self, exchange: Exchange) -> None:
        self.begun.append((exchange, bytes(exchange.body)))
        if self._connection.refusal is not None:
            self.refusals.append(exchange)
        super().append(exchange)


class InlineControl(ControlPlane):
    """The control plane without its thread."""

    def call(self, snapshot: Snapshot, exchange: Exchange) -> Any:
        done: Future[Any] = Future()
        done.set_result(self._call(snapshot, exchange.request.method, exchange.request.target))
        return done


def check(data: bytes) -> None:
    draw = Draw(data)
    options = draw.byte() % 16
    cuts = draw.cuts()
    stream = draw.rest()
    try:
        _check(stream, cuts, options)
    except BaseException:
        _front.cache_clear()  # the next input finds servers as they were before this one
        raise


def _check(stream: bytes, cuts: list[int], options: int) -> None:
    front = _front(options & SMALL, options & SCRIPT)
    front.server.known_heads.clear()
    pieces = cut(stream, cuts)
    whole = converse(front, [stream], options)
    front.server.known_heads.clear()
    forgetful = converse(front, pieces, options, forgets=True)
    learning = converse(front, pieces, options)
    knowing = converse(front, pieces, options)
    assert forgetful == learning == knowing, "a known head means something else than it did"
    assert len(front.server.known_heads) <= 512
    if options & SMALL:
        return
    assert_alike(whole, forgetful)
    assert_agrees(whole, *read_strictly(stream))


@lru_cache
def _front(small: int, script: int) -> Front:
    limits: dict[str, Any] = SMALL_LIMITS if small else {}
    front = Front(2, hello={"engine": "script"} if script else None, log_level="warning", **limits)
    front.server.control = InlineControl()
    return front


def converse(front: Front, pieces: list[bytes], options: int, *, forgets: bool = False) -> Told:
    """A new client sends pieces; scorers answer each request with its number; then time passes until it is over."""
    assert not front.server.connections
    client = front.connect()
    line = client.connection.exchanges = Line(client.connection)
    for piece in pieces:
        if forgets:
            front.server.known_heads.clear()
        client.send(piece)
        if options & SMALL:
            assert_within_limits(client)
        if options & AT_ONCE:
            answer(front, line, options)
    answer(front, line, options)
    if options & SMALL:
        assert all(len(body) <= SMALL_LIMITS["max_body_bytes"] for _, body in line.begun)
    waits = client.open
    answers = [_normal(each) for each in read(client, line)]
    front.pass_time(1000.0)
    front.pass_time(1000.0)
    answer(front, line, options)
    read(client, line)
    assert client.wire.lost
    assert not front.server.connections
    assert all(exchange.settled for exchange, _ in line.begun)
    assert front.server.scoring.queue.count == front.server.scoring.queue.size_bytes == 0
    assert len(front.server.pool.idle) == 2
    requests = [(one.request.method, one.request.target, body) for one, body in line.begun if one not in line.refusals]
    return Told(requests, answers, waits)


def answer(front: Front, line: Line, options: int) -> None:
    """The scorers answer everything that they have."""
    while front.taken:
        exchange = front.taken[-1 if options & BACKWARDS else 0]
        number = next(index for index, (one, _) in enumerate(line.begun) if one is exchange)
        front.reply(exchange, b"%d" % number)


def read(client: Client, line: Line) -> list[Response]:
    """The answers that the client got, each checked to be that of its request."""
    methods = [exchange.request.method.decode() or "POST" for exchange, _ in line.begun]
    answers = client.responses(*methods)
    final = [each for each in answers if each.status != 100]
    assert len(final) <= len(line.begun), "more answers than requests"
    for number, (each, (exchange, _)) in enumerate(zip(final, line.begun, strict=False)):
        assert each.status < 500 or each.status in (501, 505), each
        if each.status == 200 and exchange.request.method == b"POST":
            assert each.body == b"%d" % number, "an answer to another request"
    if len(final) < len(line.begun) and not client.wire.aborted:
        assert final, "closed without an answer"
        assert final[-1].headers.get("connection") == "close", "a request without an answer on an open connection"
    return answers


def assert_within_limits(client: Client) -> None:
    """What the connection keeps of a request that comes in."""
    connection = client.connection
    assert sum(map(len, connection.body)) <= SMALL_LIMITS["max_body_bytes"]
    assert connection.fed_bytes <= SMALL_LIMITS["max_head_bytes"] + SMALL_LIMITS["max_target_bytes"] or not client.open
    if client.open:
        assert len(connection.target) <= SMALL_LIMITS["max_target_bytes"]
        assert len(connection.headers) <= SMALL_LIMITS["max_head_fields"]


_OWN_TO_EACH = frozenset(("date", "x-request-id", "x-ms-request-id", "x-ms-run-fn-exec-ms"))


def _normal(response: Response) -> Response:
    """Without what differs from one moment to the next."""
    headers = {name: value for name, value in response.headers.items() if name not in _OWN_TO_EACH}
    if response.body.startswith(b"# HELP"):
        return Response(response.status, {**headers, "content-length": "?"}, b"metrics")
    if headers.get("content-type", "").startswith("text/plain; version"):  # HEAD /metrics
        return Response(response.status, {**headers, "content-length": "?"}, b"")
    return Response(response.status, headers, response.body)


def assert_alike(whole: Told, pieces: Told) -> None:
    """The same requests and answers. What is refused at the end may be refused with other words: see `_explain`."""
    assert whole.requests == pieces.requests
    assert whole.waits == pieces.waits
    if whole.answers != pieces.answers:
        assert whole.answers[:-1] == pieces.answers[:-1]
        for told in (whole, pieces):
            assert told.answers[-1].status in (400, 404, 405, 505), told.answers[-1]
            assert told.answers[-1].headers["connection"] == "close"


def read_strictly(stream: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], str]:
    """What h11 finds in the stream: the requests, and why there are no more."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    found: list[tuple[bytes, bytes, bytes]] = []
    if not stream:
        return found, "waits"
    reader.receive_data(stream)
    method = target = body = b""
    version = ""
    while True:
        try:
            event = cast(Any, reader.next_event())
        except h11.RemoteProtocolError as error:
            return found, str(error)
        if event is h11.NEED_DATA:
            return found, "waits"
        if isinstance(event, h11.Request):
            method, target, body = event.method, event.target, b""
            version = event.http_version.decode()
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((bytes(method), bytes(target), body))
            reader.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            reader.send(h11.EndOfMessage())
            if reader.our_state is h11.MUST_CLOSE:
                return found, f"closed by HTTP/{version}"
            reader.start_next_cycle()


def assert_agrees(told: Told, found: list[tuple[bytes, bytes, bytes]], end: str) -> None:
    """What both read is the same."""
    for ours, theirs in zip(told.requests, found, strict=False):
        assert ours == theirs, "two readers, two requests"
    if len(told.requests) < len(found):
        assert not told.waits, "a request that waits for more, and is complete"
    elif len(told.requests) > len(found) and not any(re.search(pattern, end) for pattern in ALLOWED):
        raise AssertionError(f"accepted {told.requests[len(found)]}, which h11 does not: {end}")
