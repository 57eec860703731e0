"""One request and its response, from the last byte in until the first byte out."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..dispatch.queue import Ticket
from ..errors import InternalError, RequestError
from ..pool.arena import Block
from ..pool.process import Reply
from ..scorer import frames
from ..telemetry.requests import HeadText
from . import messages
from .contract import Identity

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server
    from .streaming import Stream

WRITE_TOGETHER_BELOW_BYTES = 65536
"""A head and a body that are smaller together are copied into one write."""

Handler = Callable[["Server", "Exchange"], None]


class RequestHead:
    """What the parser found before the body. Shared by all requests whose head has the very same bytes."""

    __slots__ = (
        "admitted",
        "content_length",
        "error_field",
        "found",
        "frame_head",
        "handler",
        "headers",
        "http_10",
        "identity",
        "keep_alive",
        "log_text",
        "method",
        "plain_post",
        "target",
        "wanted_lines",
    )

    def __init__(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], http_10: bool, keep_alive: bool
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.http_10 = http_10
        self.keep_alive = keep_alive
        self.content_length = 0
        self.admitted = True  # False: no key came with it, and only what is anybody's may be answered
        self.plain_post = method == b"POST" and keep_alive and not http_10
        self.handler: Handler = find_handler
        self.error_field = "message"  # under which a client looks for what is wrong
        self.frame_head: bytes | None = None  # what of it goes to a scorer, once that is known
        self.found = False  # a route, and a method of it
        self.identity = NO_IDENTITY
        self.log_text: HeadText | None = None  # until it is needed
        self.wanted_lines: bytes | None = None  # until it is needed

    def header(self, name: bytes) -> bytes:
        """The first header of that name (lower case), or nothing."""
        for have, value in self.headers:
            if have.lower() == name:
                return value
        return b""


def find_handler(server: "Server", exchange: "Exchange") -> None:
    """The handler of a head that is new: finds the one of its route, for all requests with this head, and calls it."""
    handler = exchange.request.handler = server.find_handler(exchange.request)
    handler(server, exchange)


NO_IDENTITY = Identity([])
NO_HEAD = RequestHead(b"", b"", [], False, False)
"""Of a request that cannot be read."""


class Exchange(Ticket):
    """It is its own ticket in the waiting line: one object for each request."""

    route = frames.ROUTE_SCORE
    method = frames.METHODS["POST"]
    response: bytes | list[Any] | None = None
    keep_alive = True
    logged = False  # its route is one that leaves a line of the server's own
    stream: "Stream | None" = None
    flags = 0  # of the scorer's reply, if it had to go the long way
    began_ns = 0  # wall time at its last byte in, if telemetry is to hear of it

    def __init__(self, connection: "Connection", request: RequestHead, body: bytes | Block) -> None:
        self.connection = connection
        self.request = request
        self.body = body

    def settle(self, answer: Any) -> bool:
        """A scorer's reply (a tuple as frames.Reply), or the error in its place."""
        if self.settled:
            return False
        self.settled = True
        if isinstance(answer, RequestError):
            self.fail(answer)
            return True
        _, status, flags, run_us, head, body = answer
        if not 200 <= status <= 999:
            self.fail(InternalError(f"The scorer answered with {status}, which is the status of no response."))
            return True
        self.connection.server.metrics.score_status[status] += 1
        self.flags = flags
        content_type, extra_lines = head_lines(head)
        if not head and not messages.has_body(status):
            content_type = b""
        self.respond(status, body, content_type, extra_lines + self.flag_lines(flags, run_us))
        return True

    def fail(self, error: RequestError) -> None:
        """Answer with an error of the server's own; a response that has begun can only be broken off."""
        server = self.connection.server
        server.metrics.failed(error)
        server.rejections.refused(error, server.now)
        if self.stream is not None:
            self.settled = True
            self.connection.server.tell(self, self.stream.status, self.stream.head, None, broken=True)
            self.connection.transport.abort()
            return
        lines = messages.error_lines(error) + self.flag_lines(frames.FLAG_RUN_FAILED if error.run_failed else 0, 0)
        self.respond(error.status, messages.error_body(error, self.request.error_field), messages.JSON, lines)

    def respond(self, status: int, body: Any, content_type: bytes = messages.JSON, extra_lines: bytes = b"") -> None:
        """Answer. `body` is anything with the buffer interface."""
        self.settled = True
        request = self.request
        connection = self.connection
        size = len(body)
        head = self.encode_head(status, content_type, size, extra_lines)
        if connection.server.request_log is not None:
            connection.server.log_answer(self, status, size, size)
        if connection.server.insights is not None:
            connection.server.tell(self, status, head, body)
        if request.method == b"HEAD" or not messages.has_body(status):
            connection.answer(self, head)
        elif size < WRITE_TOGETHER_BELOW_BYTES:
            connection.answer(self, b"".join((head, body)))
        else:
            connection.answer(self, [head, body])

    def encode_head(self, status: int, content_type: bytes, content_length: int | None, extra_lines: bytes) -> bytes:
        """The head of the response, with what the contract adds to it; settles whether the connection stays."""
        request = self.request
        server = self.connection.server
        last = server.closing and self.connection.is_last(self)
        self.keep_alive = self.keep_alive and request.keep_alive and not last
        link = b"close" if not self.keep_alive else b"keep-alive" if request.http_10 else b""
        if extra_lines and server.settings.security_headers:
            extra_lines = messages.without_security_lines(extra_lines)
        if server.contract is not None:
            extra_lines = server.contract.complete(
                extra_lines, request.identity, request.method, request.headers, request.found
            )
        return messages.encode_head(server.stamp, status, content_type, content_length, extra_lines, link)

    def flag_lines(self, flags: int, run_us: int) -> bytes:
        """What a scorer's flags become where the contract holds."""
        if self.connection.server.contract is None or flags & frames.FLAG_NO_FAILED_HEADER:
            failed = b""
        else:
            failed = b"x-ms-run-function-failed: %b\r\n" % (b"True" if flags & frames.FLAG_RUN_FAILED else b"False")
        return failed + messages.run_line(run_us) if flags & frames.FLAG_RUN_RETURNED else failed


def settle_all(settled: Sequence[tuple[Exchange, Reply]]) -> None:
    """Settle requests with the replies to them.

    What nearly all replies are goes out with a head that is prebuilt: 0.5 us for each of them in place of 3.
    """
    server = settled[0][0].connection.server
    contract, request_log, stamp = server.contract, server.request_log, server.stamp
    short_count = 0
    for exchange, reply in settled:
        _, status, flags, run_us, head, body = reply
        size = len(body)
        if (
            status != 200
            or head
            or size >= messages.SHORT_LENGTHS
            or not exchange.request.plain_post
            or exchange.settled
            or server.closing
        ):
            exchange.settle(reply)
            continue
        if contract is None:
            response = b"".join((stamp.json_200, messages.LENGTH_ENDS[size], body))
        elif flags == frames.FLAG_RUN_RETURNED and run_us < messages.MAX_SHORT_RUN_US:
            request_id = contract.ids.next()
            pieces = (
                stamp.contract_200,
                request_id,
                b"\r\nx-ms-request-id: ",
                request_id,
                messages.RUN_ENDS[run_us],
                messages.LENGTH_ENDS[size],
                body,
            )
            response = b"".join(pieces)
        else:
            exchange.settle(reply)
            continue
        exchange.settled = True
        short_count += 1
        exchange.connection.answer(exchange, response)
        if request_log is not None:
            server.log_answer(exchange, status, size, size)
    server.metrics.score_status[200] += short_count


def head_lines(head: bytes) -> tuple[bytes, bytes]:
    """The content type and the other header lines of a scorer's reply head; lines that are none are left out.

    The scorer holds user code: a name or value that could end a line does not pass.
    """
    if not head:
        return messages.JSON, b""
    content_type = b""
    lines = []
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if not colon or not _is_token(name) or value.translate(None, _CONTROL) != value:
            continue
        lowered = name.lower()
        if lowered in _FRONT_ONLY:
            continue
        if lowered == b"content-type" and not content_type:
            content_type = value.strip()
        else:
            lines.append(b"%b: %b\r\n" % (name, value.strip()))
    return content_type, b"".join(lines)


_FRONT_ONLY = frozenset(
    (
        *(b"content-length", b"transfer-encoding", b"connection", b"date", b"server", b"keep-alive"),
        *(b"proxy-connection", b"te", b"trailer", b"upgrade"),
    )
)
"""Headers that say how the message travels: the front's alone."""

_CONTROL = bytes((*range(9), *range(10, 32), 127))
"""No part of a value (RFC 9110 section 5.5), but for the tab: strict clients refuse a whole response for one of them."""

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _is_token(name: bytes) -> bool:
    """RFC 9110 section 5.6.2."""
    return bool(name) and not name.translate(None, _TOKEN)
