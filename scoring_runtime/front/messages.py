"""Requests as they came in and responses as they go out. Prebuilt where it is the same every time."""

import functools
import json
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from ..errors import MethodNotAllowed, Overloaded, RequestError, Unauthorized
from ..settings import Settings

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"

STATUS_LINES: dict[int, bytes] = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

SHORT_LENGTHS = 4096
LENGTH_ENDS = tuple(b"%d\r\n\r\n" % size for size in range(SHORT_LENGTHS))
"""The end of a head whose last line is Content-Length, by length: formatting the number costs 0.2 us."""

_WITHOUT_BODY = frozenset((204, 304))


def status_line(status: int) -> bytes:
    """The status line, for numbers that have no name as well."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


MAX_SHORT_RUN_US = 8192
RUN_ENDS = tuple(
    b"\r\nx-ms-run-fn-exec-ms: %d.%03d\r\nContent-Length: " % divmod(run_us, 1000) for run_us in range(MAX_SHORT_RUN_US)
)
"""What follows the ids in a head of the contract's, by run time; it ends like `Stamp.json_200`."""


class Stamp:
    """The header lines that every response of one second shares. `refresh` is to be called once a second.

    fixed_lines: those that are the same for ever. version_line: the contract's, for the heads that carry ids.
    """

    def __init__(self, fixed_lines: bytes, version_line: bytes = b"") -> None:
        self._fixed_lines = fixed_lines
        self._version_line = version_line
        self.lines = b""
        self.json_200 = b""
        self.contract_200 = b""
        self.refresh()

    def refresh(self) -> None:
        """Take the present time of day."""
        self.lines = b"%bDate: %b\r\n" % (self._fixed_lines, formatdate(usegmt=True).encode())
        start = STATUS_LINES[200] + self.lines + b"Content-Type: application/json\r\n"
        self.json_200 = start + b"Content-Length: "
        self.contract_200 = start + self._version_line + b"x-ms-run-function-failed: False\r\nx-request-id: "


_SECURITY_LINES = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
_HTTPS_LINE = b"Strict-Transport-Security: max-age=31536000\r\n"
_SECURITY_NAMES = frozenset(
    line.partition(b":")[0].lower() for line in (_SECURITY_LINES + _HTTPS_LINE).split(b"\r\n") if line
)


def fixed_lines(settings: Settings) -> bytes:
    """The header lines of every response, as the settings wish."""
    lines = b"Server: scoring-runtime\r\n" if settings.server_identity else b""
    if settings.security_headers:
        lines += _SECURITY_LINES + (_HTTPS_LINE if settings.tls_cert else b"")
    return lines


def without_security_lines(lines: bytes) -> bytes:
    """A response's own lines, without those that the server gives itself."""
    kept = (line for line in lines.splitlines(keepends=True) if line.partition(b":")[0].lower() not in _SECURITY_NAMES)
    return b"".join(kept)


def run_line(run_us: int) -> bytes:
    """How long run() took, for the client."""
    return b"x-ms-run-fn-exec-ms: %d.%03d\r\n" % divmod(run_us, 1000)


def encode_head(
    stamp: Stamp, status: int, content_type: bytes, content_length: int | None, extra_lines: bytes, connection: bytes
) -> bytes:
    """A response's head, up to and with the empty line.

    `content_length` None: the body comes in chunks, or ends with the connection. `extra_lines` are whole header lines, each ended by CRLF; `connection` is the value of that header, or empty.
    """
    pieces = [status_line(status), stamp.lines]
    if content_type:
        pieces.append(b"Content-Type: %b\r\n" % content_type)
    if status not in _WITHOUT_BODY and content_length is not None:
        pieces.append(b"Content-Length: %d\r\n" % content_length)
    if extra_lines:
        pieces.append(extra_lines)
    if connection:
        pieces.append(b"Connection: %b\r\n" % connection)
    pieces.append(b"\r\n")
    return b"".join(pieces)


def has_body(status: int) -> bool:
    """Whether a response of this status carries a body at all."""
    return status not in _WITHOUT_BODY


def error_body(error: RequestError, field: str = "message") -> bytes:
    """What the client reads about an error, in a JSON object of one field."""
    return _error_body(error.message, field)


@functools.lru_cache(256)  # under overload the same few again and again: refusing must be cheap
def _error_body(message: str, field: str) -> bytes:
    return json.dumps({field: message}).encode()


def error_lines(error: RequestError) -> bytes:
    """The header lines that an error brings along."""
    if isinstance(error, Overloaded):
        return b"Retry-After: %d\r\n" % error.retry_after_s
    if isinstance(error, MethodNotAllowed):
        return b"Allow: %b\r\n" % error.allow.encode()
    if isinstance(error, Unauthorized):
        return b"WWW-Authenticate: Bearer\r\n"
    return b""


def path(target: bytes) -> bytes:
    """The path of a request target: no query, no authority, decoded, leading slashes collapsed."""
    if target.startswith((b"http://", b"https://")):
        _, _, target = target.partition(b"://")
        _, slash, rest = target.partition(b"/")
        target = slash + rest or b"/"
    decoded = unquote_to_bytes(target.partition(b"#")[0].partition(b"?")[0])
    return b"/" + decoded.lstrip(b"/") if decoded.startswith(b"//") else decoded
