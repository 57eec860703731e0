"""What run() may return besides plain values: AMLResponse, Flask's responses, and iterators inside them (contract §4.5).

Nothing here trusts the user's headers: a name or value that would break the reply apart is refused, and the headers that
say where a message ends are the front's alone.
"""

import json
import re
import sys
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

from . import encode
from .request import Headers, is_json

FAILED_HEADER = "x-ms-run-function-failed"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NOT_IN_VALUES = re.compile("[\0\r\n]")
_FRAMING = frozenset(
    ("content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "te", "trailer")
)


class ResponseError(Exception):
    """What run() returned cannot be sent."""


class Sendable(NamedTuple):
    """A response in the terms of a reply: `pieces` when it is sent as it comes, else `body`."""

    status: int
    head: bytes
    body: bytes
    pieces: Optional[Iterator[bytes]]


class AMLResponse:
    """A response with status and headers.

    `message` is sent as it is if it is text or bytes, piece by piece if it is an iterator or a file, as JSON if
    `json_str` is true, and `{}` if it is None. A value in `response_headers` that holds commas becomes several lines.
    """

    def __init__(
        self,
        message: Any,
        status_code: Any,
        response_headers: Optional[Dict[str, str]] = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        self.status_code = status_code
        self.headers = Headers()
        self.response: Any = message
        response_headers = response_headers or {}
        if message is None or json_str:
            self.response = b"{}" if message is None else encode.encode(message)
            self.headers.add("Content-Type", "application/json")
        else:
            if isinstance(message, str):
                self.response = message.encode("utf-8")
            if "Content-Type" not in response_headers:  # exactly so spelt: others are a second line
                self.headers.add("Content-Type", "text/html; charset=utf-8")
        self.headers.add(FAILED_HEADER, str(run_function_failed))
        for name, value in response_headers.items():
            for part in value.split(","):
                self.headers.add(name, part.strip())

    @property
    def is_streamed(self) -> bool:
        """Whether the length of the body is not known before it is sent."""
        return not hasattr(self.response, "__len__")

    def get_data(self, as_text: bool = False) -> Any:
        """The whole body; an iterator is used up for it and replaced by what it gave."""
        if not isinstance(self.response, bytes):
            self.response = _joined(self.response)
        return self.response.decode("utf-8") if as_text else self.response

    def set_data(self, value: Union[str, bytes]) -> None:
        self.response = value.encode("utf-8") if isinstance(value, str) else bytes(value)

    data = property(get_data, set_data)

    @property
    def is_json(self) -> bool:
        return is_json(self.mimetype)

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False) -> Any:
        """The body as JSON; None when the content type does not say so."""
        try:
            return json.loads(self.get_data(as_text=True)) if force or self.is_json else None
        except ValueError:
            if silent:
                return None
            raise

    @property
    def mimetype(self) -> str:
        return str(self.content_type or "").partition(";")[0].strip().lower()

    @property
    def content_type(self) -> Any:
        return self.headers.get("content-type")

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers.set("Content-Type", value)


def is_response(value: Any) -> bool:
    """Whether run() returned a response, and no plain value."""
    flask = sys.modules.get("flask")
    return isinstance(value, AMLResponse) or (flask is not None and isinstance(value, flask.Response))


def to_sendable(value: Any, environ: Optional[Dict[str, Any]]) -> Sendable:
    """A response as it goes out. ResponseError, TypeError when it cannot; whatever an iterator of the user raises."""
    pieces: Optional[Iterator[bytes]] = None
    body = b""
    if isinstance(value, AMLResponse):
        headers = Headers(value.headers)
        if value.is_streamed:
            pieces = _encoded(value.response, getattr(value.response, "close", None))
        else:
            body = value.get_data()
    else:
        headers = Headers(list(value.get_wsgi_headers(environ) if environ else value.headers))
        if value.is_streamed or value.direct_passthrough:
            pieces = _encoded(value.iter_encoded(), value.close)
        else:
            body = value.get_data()
            value.close()
    status = _status(value.status_code)
    if status >= 500:
        headers.set(FAILED_HEADER, "True")
    if status in (204, 304):  # they have no body
        body = b""
        if pieces is not None:
            pieces.close()  # type: ignore[attr-defined]
            pieces = None
    if status == 304:
        headers.remove("content-type")
    return Sendable(status, encode_head(headers.items()), body, pieces)


def encode_head(pairs: Iterable[Tuple[Any, Any]]) -> bytes:
    """Header lines of a reply; ResponseError when one of them is none."""
    lines: List[str] = []
    for name, value in pairs:
        if not isinstance(name, str) or not _NAME.match(name):
            raise ResponseError("%r is not the name of a header" % (name,))
        if not isinstance(value, str) or _NOT_IN_VALUES.search(value):
            raise ResponseError("the value of header %s must be text without line breaks, not %r" % (name, value))
        if name.lower() not in _FRAMING:
            lines.append(name + ": " + value)
    try:
        return "\n".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        at = error.object.count("\n", 0, error.start)
        raise ResponseError("header line %r is not latin-1 text" % lines[at]) from None


def _status(status: Any) -> int:
    try:
        number = int(status.split()[0]) if isinstance(status, str) else 200 if status is None else int(status)
    except (ValueError, TypeError, IndexError):
        number = 0
    if not 200 <= number <= 999:
        raise ResponseError("%r is not the status of a response" % (status,))
    return number


def _encoded(pieces: Any, close: Optional[Callable[[], None]]) -> Iterator[bytes]:
    """`pieces` as bytes, without empty ones; `close` is called at the end, however it comes."""
    try:
        for piece in pieces:
            data = _as_bytes(piece)
            if data:
                yield data
    finally:
        if close is not None:
            close()


def _joined(pieces: Any) -> bytes:
    if isinstance(pieces, (bytearray, memoryview)):
        return bytes(pieces)
    return b"".join(map(_as_bytes, pieces))


def _as_bytes(piece: Any) -> bytes:
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    raise TypeError("a body consists of text or bytes, not of %s" % type(piece).__name__)
