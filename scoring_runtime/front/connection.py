"""One HTTP/1.1 connection: bytes in, exchanges out, answers back in order.

Limits hold while bytes come in, not after; `phases` has what it waits for, and how long.
"""

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, cast

import httptools

from ..errors import RequestError, VersionNotSupported
from ..pool.arena import Block
from . import heads, keys, large_body, messages, phases, refusals, routes
from .exchange import NO_HEAD, Exchange, RequestHead
from .keys import KeyFile
from .phases import BODY, BUSY, HEAD, IDLE, LINGER, NEVER, Phase

if TYPE_CHECKING:
    from .server import Server
    from .streaming import Stream

MAX_PIPELINED = 16
"""Requests of one connection that are worked on at a time; those behind them wait in the connection."""

CHUNK_OVERHEAD = 8
"""Bytes that come with each byte of a body in chunks: a chunk of a single byte takes 5."""

MAX_PIECE_BYTES = 8192

MAX_KNOWN_HEADS = 512
MAX_KNOWN_HEAD_BYTES = 4096


class Connection(asyncio.Protocol):
    """The protocol object of one client connection.

    There are thousands, mostly idle: the slots, lists in place of deques, and no parser before it is needed take what one
    costs, with the transport, from 4.3 to 2.0 kB.
    """

    __slots__ = (
        "announced_bytes", "body", "body_bytes", "exchanges", "expects_continue", "fed_bytes", "head", "head_bytes",
        "headers", "held", "large_body", "large_reader",
        "messages", "overhead_bytes", "parser", "peer", "phase", "phase_began", "plain_head", "reading", "refusal",
        "server", "settings", "target", "transport", "unread", "write_backlog_bytes", "write_stalled_at", "writing",
    )  # fmt: skip

    def __init__(self, server: "Server") -> None:
        # The server's, for the life of the connection
        self.server = server
        self.settings = server.settings

        # The connection's
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.peer = ""
        self.parser = cast(httptools.HttpRequestParser, None)  # until one is needed: most heads are known
        self.phase = IDLE
        self.phase_began = server.now
        self.exchanges: list[Exchange] = []  # in the order of their requests; the first is answered first
        self.held: list[Exchange] = []  # the last of them, not begun yet
        self.reading = True
        self.unread = b""  # received, but behind what is held
        self.writing = False
        self.write_stalled_at = NEVER
        self.write_backlog_bytes = 0
        self.large_reader: large_body.LargeBody | None = None  # once there was a large body

        # The request's that is coming in
        self.messages = 0  # that the parser has begun
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_bytes = 0
        self.fed_bytes = 0  # since the message, its body, or the last piece of it began
        self.overhead_bytes = 0  # beside the body, since it began
        self.head = NO_HEAD
        self.plain_head = False
        self.expects_continue = False  # the client holds its body back until it is told to send it
        self.announced_bytes = 0  # of the body, if that was said
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.large_body: large_body.LargeBody | None = None  # in the place of `body`
        self.refusal: RequestError | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        refusal = self.server.connection_opened(self)
        if refusal is not None:
            self.refuse(refusal)

    def data_received(self, data: bytes) -> None:
        # A client that keeps its connection sends the same head again and again. Between messages, bytes that were
        # parsed before mean what they meant before: 0.4 us instead of the parser's 3.5 us of callbacks.
        phase = self.phase
        if phase is IDLE:
            end = data.find(b"\r\n\r\n")
            server = self.server
            head = server.known_heads.get(data[:end])
            if end > 0 and head is not None and len(data) - end - 4 == head.content_length:
                self.phase = BUSY
                exchange = Exchange(self, head, data[end + 4 :])
                self.exchanges.append(exchange)
                if len(server.connections) > 1:
                    head.handler(server, exchange)
                else:  # nobody else could ask: to wait for the loop's next turn would cost 8 us
                    server.scoring.begin_turn()
                    try:
                        head.handler(server, exchange)
                    finally:
                        server.scoring.turn()
                return
            self._feed(data, between=True)
            if self.phase is not HEAD and self.plain_head:
                self._learn(data, end)
        elif phase is not LINGER:
            messages_before, body_bytes = self.messages, self.body_bytes
            self._feed(data)
            if self.phase is phase and self.messages == messages_before and phase is not BUSY:
                self._count(len(data), self.body_bytes - body_bytes)

    def _count(self, fed_bytes: int, body_bytes: int) -> None:
        """Bound what comes beside the body of one message.

        The parser keeps an unfinished field, of a trailer too, to itself: count what it was fed since the body last grew.
        And each chunk may have an extension, which is for nobody: count what is no body at all.
        """
        if not body_bytes:
            self.fed_bytes += fed_bytes
        self.overhead_bytes += fed_bytes - body_bytes
        limit_bytes = self.settings.max_head_bytes + self.settings.max_target_bytes
        if self.fed_bytes > limit_bytes or self.overhead_bytes > limit_bytes + CHUNK_OVERHEAD * self.body_bytes:
            self.refuse(refusals.head_too_large(self.settings, len(self.headers)))

    def _feed(self, data: bytes, *, between: bool = False) -> None:
        """Let the parser read. `between`: no message has begun before `data`."""
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
        messages_before = self.messages
        try:
            if len(data) > MAX_PIECE_BYTES:
                self._feed_pieces(data, 0)
            else:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as upgrade:
                    self._ignore_upgrade()
                    self._feed_pieces(data, upgrade.args[0])
            if self.large_body is not None:
                self.large_body.receive()
        except httptools.HttpParserError as error:
            if self.refusal is None and isinstance(error, httptools.HttpParserCallbackError):
                raise  # a bug of ours: the loop's exception handler has the traceback
            begun_here = between and self.messages <= messages_before + 1
            self.refuse(self.refusal or refusals.no_http(str(error), data if begun_here else b""))

    def _feed_pieces(self, data: bytes, begin: int) -> None:
        """Read from `begin` on, piece by piece, and no further than there are requests that must wait.

        A request that waits as bytes takes a twentieth of the memory. A body of a known length comes in one piece.
        """
        view = memoryview(data)
        while begin < len(data) and self._may_read():
            end = begin + max(MAX_PIECE_BYTES, self.announced_bytes - self.body_bytes)
            try:
                self.parser.feed_data(view[begin:end])
                begin = end
            except httptools.HttpParserUpgrade as upgrade:
                begin += upgrade.args[0]
                self._ignore_upgrade()
            if self.large_body is not None:
                begin += self.large_body.put(view[begin:])
        self.unread = data[begin:]

    def large_body_complete(self, block: Block) -> None:
        """The body has come. The parser has not seen it, and waits for it: what follows is for another one."""
        self.parser = httptools.HttpRequestParser(self) if self.head.keep_alive else _NO_PARSER
        self._complete(block)

    def _read_on(self) -> None:
        """Go on with what has been received already."""
        if self.unread and self._may_read() and not self.transport.is_closing():
            data, self.unread = self.unread, b""
            self.data_received(data)
            self._update_reading()

    def _learn(self, data: bytes, end: int) -> None:
        """`data` was exactly one message: remember what its head means."""
        if len(self.exchanges) != 1 or not 0 < end <= MAX_KNOWN_HEAD_BYTES:
            return
        exchange = self.exchanges[0]
        if exchange.body != data[end + 4 :]:
            return
        known_heads = self.server.known_heads
        if len(known_heads) >= MAX_KNOWN_HEADS:
            known_heads.clear()
        exchange.request.content_length = len(exchange.body)
        known_heads[data[:end]] = exchange.request

    def eof_received(self) -> bool:
        return False  # close: a client that can send no more is taken to have gone

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connection_closed(self)
        self._abandon()
        if self.large_body is not None:
            self.large_body.end()
        self.large_reader = None  # it holds this connection
        self.body = []
        self.unread = b""

    def pause_writing(self) -> None:
        self.write_stalled_at = self.server.now
        self.write_backlog_bytes = self.transport.get_write_buffer_size()
        self._update_reading()

    def resume_writing(self) -> None:
        self.write_stalled_at = NEVER
        self._update_reading()
        self._write_due()

    # The parser's side

    def on_message_begin(self) -> None:
        if self.phase is LINGER:
            return
        self._enter(HEAD)
        self.messages += 1
        self.target = b""
        self.headers = []
        self.head_bytes = 0
        self.fed_bytes = self.overhead_bytes = 0
        self.head = NO_HEAD
        self.plain_head = False
        self.announced_bytes = 0
        self.body = []
        self.body_bytes = 0

    def on_url(self, piece: bytes) -> None:
        self.target += piece
        if len(self.target) > self.settings.max_target_bytes:
            self._stop(refusals.target_too_long(self.settings))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is HEAD:  # what comes after a body in chunks is no header: RFC 9110 section 6.5.1
            self.headers.append((name, value))
        self.head_bytes += len(name) + len(value) + 4
        if self.head_bytes > self.settings.max_head_bytes or len(self.headers) > self.settings.max_head_fields:
            self._stop(refusals.head_too_large(self.settings, len(self.headers)))

    def on_headers_complete(self) -> None:
        parser = self.parser
        try:
            version = parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise VersionNotSupported(f"HTTP/{version} is not supported. Use HTTP/1.1.")
            method = parser.get_method()
            if method == b"CONNECT":  # what follows would be another protocol's, to another reader
                raise routes.unknown_method(self.target)
            head = RequestHead(method, self.target, self.headers, version == "1.0", parser.should_keep_alive())
            plain, bodiless, body_bytes, expects_continue = heads.read(head)
            self.head = head
            if self.server.key_file is not None:
                self._admit(head, self.server.key_file, bodiless)
            if body_bytes > self.settings.max_body_bytes:
                raise refusals.body_too_large(self.settings)
        except RequestError as refusal:
            self._stop(refusal)
        self.plain_head = plain
        self.announced_bytes = body_bytes
        if body_bytes >= large_body.LEAST_BYTES and self.server.arena is not None:
            self.large_body = large_body.place(self, self.server.arena, body_bytes)
        self._enter(BODY)
        self.fed_bytes = self.overhead_bytes = 0
        self.expects_continue = expects_continue and not parser.should_upgrade()
        if self.expects_continue and not self.exchanges:
            self._continue()

    def _continue(self) -> None:
        """The answers before it are written: a client that holds its body back may send it (RFC 9110 section 10.1.1)."""
        if self.expects_continue and self.phase is BODY and not self.transport.is_closing():
            self.expects_continue = False
            self._enter(BODY)  # its time begins now
            self.transport.write(messages.CONTINUE)

    def _admit(self, head: RequestHead, key_file: KeyFile, bodiless: bool) -> None:
        """Look for an API key, and take it from the head: nobody behind this line is shown it."""
        head.admitted = keys.admits(key_file.digests, head.headers)
        head.headers = keys.without_key(head.headers)
        if not head.admitted and not (bodiless and routes.admits_anyone(head)):
            raise keys.refusal()

    def on_body(self, piece: bytes) -> None:
        self.expects_continue = False
        self.body.append(piece)
        self.body_bytes += len(piece)
        self.fed_bytes = 0
        if self.body_bytes > self.settings.max_body_bytes:
            self._stop(refusals.body_too_large(self.settings))

    def on_message_complete(self) -> None:
        if self.phase is LINGER or self.parser.should_upgrade():
            return
        body, self.body = self.body, []
        self._complete(b"" if not body else body[0] if len(body) == 1 else b"".join(body))

    def _complete(self, body: bytes | Block) -> None:
        """A request is here as a whole."""
        self.phase = BUSY
        head, self.head, self.headers = self.head, NO_HEAD, []
        exchange = Exchange(self, head, body)
        self.exchanges.append(exchange)
        if len(self.exchanges) > MAX_PIPELINED:
            self.held.append(exchange)
            self._update_reading()
        else:
            self.server.begin(exchange)

    # The exchanges' side

    def answer(self, exchange: Exchange, response: bytes | list[Any]) -> None:
        """An exchange has its response: write it when it is its turn. Pieces in a list are written as they are."""
        exchanges = self.exchanges
        if len(exchanges) == 1 and exchange.keep_alive and type(response) is bytes:  # no pipelining: nearly always
            exchanges.pop(0)
            self.transport.write(response)
            if self.phase is BUSY:
                self.phase = IDLE
                self.phase_began = self.server.now
            else:
                self._continue()
        else:
            exchange.response = response
            self._write_due()

    def stream(self, exchange: Exchange, stream: "Stream", data: bytes) -> None:
        """A piece of a response: written if it is its turn, held otherwise."""
        if not self.exchanges or self.exchanges[0] is not exchange:
            stream.held.append(data)
            return
        self.transport.write(data)
        if stream.ended:
            self._write_due()

    @property
    def under_way(self) -> bool:
        """Whether a request is coming in, or waits for its answer, or its client has yet to read that."""
        return bool(self.exchanges) or self.phase in (HEAD, BODY) or self.transport.get_write_buffer_size() > 0

    def is_last(self, exchange: Exchange) -> bool:
        """Whether no other request of this connection waits for its answer behind this one."""
        return not self.exchanges or self.exchanges[-1] is exchange

    def keeps_up(self, exchange: Exchange) -> bool:
        """Whether the client reads what it is sent, and `exchange` is the one it is being sent."""
        return self.write_stalled_at == NEVER and bool(self.exchanges) and self.exchanges[0] is exchange

    def _write_due(self) -> None:
        """Write the responses that are there, in the order of the requests."""
        if self.writing:  # called by a request that this very loop began: the loop will come to it
            return
        self.writing = True
        exchanges = self.exchanges
        while exchanges and self.write_stalled_at == NEVER and self._write_first(exchanges[0]):
            if not exchanges.pop(0).keep_alive:
                self._finish()
                break
            if self.held:
                begun = self.held.pop(0)
                self._update_reading()
                self.server.begin(begun)
        self.writing = False
        if self.phase is BUSY and not exchanges:
            self._enter(IDLE)
            if self.server.closing:  # an answer that had begun before could not say that it is the last
                self.transport.close()
        elif not exchanges:
            self._continue()

    def _write_first(self, exchange: Exchange) -> bool:
        """Write what there is of a response; True when that was all of it."""
        stream = exchange.stream
        if stream is not None:
            held, stream.held = stream.held, []
            self.transport.writelines(held)
            if not stream.ended:
                stream.pull()
            return stream.ended
        response = exchange.response
        if type(response) is bytes:
            self.transport.write(response)
        elif response is not None:
            self.transport.writelines(cast(list[Any], response))
        return response is not None

    def close_when_idle(self) -> None:
        """The server drains: close now if nothing is under way, otherwise after the next answer."""
        if not self.exchanges and self.phase in (IDLE, LINGER):
            self.transport.close()

    def check_deadline(self, now: float) -> None:
        """Called by the server's sweep."""
        phases.check(self, now)

    # Inside

    def _stop(self, refusal: RequestError) -> NoReturn:
        """Leave the parser: what follows is not read. httptools hands the exception back from feed_data."""
        self.refusal = refusal
        raise refusal

    def refuse(self, refusal: RequestError) -> None:
        """Answer with an error, in order, and let nothing follow."""
        if self.transport.is_closing():
            return
        self.refusal = refusal
        self._enter(LINGER)
        if self.large_body is not None:
            self.large_body.end()
        self.body = []
        head = self.head
        if head is not NO_HEAD:  # it could be read: the answer and the log say whose refusal it is
            self.server.find_handler(head)
            head.keep_alive = False
        exchange = Exchange(self, head, b"")
        self.exchanges.append(exchange)
        exchange.fail(refusal)

    def _finish(self) -> None:
        """The last answer is written: close, but let a client that is still sending read it first."""
        self._abandon()
        if self.refusal is None:
            self.transport.close()
            return
        self._enter(LINGER)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _abandon(self) -> None:
        """Nobody will read the answers that are not written yet."""
        for exchange in self.exchanges:
            self.server.cancel(exchange)
            if exchange.stream is not None:
                exchange.stream.cancel()
        self.exchanges.clear()
        self.held.clear()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.phase_began = self.server.now

    def _may_read(self) -> bool:
        """Only while answers flow, and no more requests wait than are worked on."""
        return self.write_stalled_at == NEVER and not self.held

    def _update_reading(self) -> None:
        wanted = self._may_read()
        if wanted and self.unread:
            self.server.loop.call_soon(self._read_on)
        elif wanted != self.reading and not self.transport.is_closing():
            self.reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _ignore_upgrade(self) -> None:
        """An upgrade is an offer: HTTP/1.1 goes on.

        The parser takes all that follows the head, the request's body too, for the other protocol. So the head is read
        once more by a new one, without the offer.
        """
        parser, self.parser = self.parser, httptools.HttpRequestParser(self)
        version = parser.get_http_version().encode()
        self.parser.feed_data(heads.encode_without_upgrade(parser.get_method(), self.target, version, self.headers))


class _NoParser:
    """In the place of a parser behind the last message of a connection."""

    def feed_data(self, data: Any) -> None:
        raise httptools.HttpParserError("Data after `Connection: close`")


_NO_PARSER = cast(httptools.HttpRequestParser, _NoParser())
