"""One request and its response, from the last byte in until the first byte out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..dispatch.queue import Ticket
from ..errors import RequestError
from ..scorer import frames
from . import messages

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

WRITE_TOGETHER_BELOW_BYTES = 65536
"""A head and a body that are smaller together are copied into one write."""

Handler = Callable[["Server", "Exchange"], None]


class RequestHead:
    """What the parser found before the body. Shared by all requests whose head has the very same bytes."""

    __slots__ = ("content_length", "handler", "headers", "http_10", "keep_alive", "method", "plain_post", "target")

    def __init__(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], http_10: bool, keep_alive: bool
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.http_10 = http_10
        self.keep_alive = keep_alive
        self.content_length = 0
        self.plain_post = method == b"POST" and keep_alive and not http_10
        self.handler: Handler = find_handler

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name (lower case), or None."""
        for have, value in self.headers:
            if have.lower() == name:
                return value
        return None


def find_handler(server: "Server", exchange: "Exchange") -> None:
    """The handler of a head that is new: finds the one of its route, for all requests with this head, and calls it."""
    handler = exchange.request.handler = server.find_handler(exchange.request.method, exchange.request.target)
    handler(server, exchange)


NO_HEAD = RequestHead(b"", b"", [], False, False)
"""Of a request that cannot be read."""


class Exchange(Ticket):
    """It is its own ticket in the waiting line: one object for each request."""

    route = frames.ROUTE_SCORE
    method = frames.METHODS["POST"]
    response: bytes | list[Any] | None = None
    keep_alive = True

    def __init__(self, connection: "Connection", request: RequestHead, body: bytes) -> None:
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
        _, status, _, _, head, body = answer
        connection = self.connection
        server = connection.server
        server.metrics.score_status[status] += 1
        if status == 200 and not head and self.request.plain_post and not server.closing:
            size = len(body)
            if size < messages.SHORT_LENGTHS:
                connection.answer(self, b"".join((server.stamp.json_200, messages.LENGTH_ENDS[size], body)))
            else:
                connection.answer(self, [b"%b%d\r\n\r\n" % (server.stamp.json_200, size), body])
        else:
            content_type, extra_lines = head_lines(head)
            self.respond(status, body, content_type, extra_lines)
        return True

    def fail(self, error: RequestError) -> None:
        """Answer with an error of the server's own."""
        self.connection.server.metrics.failed(error)
        self.respond(error.status, messages.error_body(error), messages.JSON, messages.error_lines(error))

    def respond(self, status: int, body: Any, content_type: bytes = messages.JSON, extra_lines: bytes = b"") -> None:
        """Answer. `body` is anything with the buffer interface."""
        self.settled = True
        request = self.request
        connection = self.connection
        self.keep_alive = request.keep_alive and not connection.server.closing
        link = b"close" if not self.keep_alive else b"keep-alive" if request.http_10 else b""
        head = messages.encode_head(connection.server.stamp, status, content_type, len(body), extra_lines, link)
        if request.method == b"HEAD" or not messages.has_body(status):
            connection.answer(self, head)
        elif len(body) < WRITE_TOGETHER_BELOW_BYTES:
            connection.answer(self, b"".join((head, body)))
        else:
            connection.answer(self, [head, body])


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
        if not colon or not _is_token(name) or b"\r" in value or b"\0" in value:
            continue
        lowered = name.lower()
        if lowered in _FRONT_ONLY:
            continue
        if lowered == b"content-type" and not content_type:
            content_type = value.strip()
        else:
            lines.append(b"%b: %b\r\n" % (name, value.strip()))
    return content_type, b"".join(lines)


_FRONT_ONLY = frozenset((b"content-length", b"transfer-encoding", b"connection", b"date", b"server", b"keep-alive"))
"""Headers that say how the message travels: the front's alone."""

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _is_token(name: bytes) -> bool:
    """RFC 9110 section 5.6.2."""
    return bool(name) and not name.translate(None, _TOKEN)
