"""What clients read about requests that cannot be read, or are over a limit; and which setting the log names. Pure."""

import re

from ..errors import (
    BadRequest,
    BodyTooLarge,
    HeadTooLarge,
    Overloaded,
    RequestError,
    RequestTimeout,
    TargetTooLong,
    VersionNotSupported,
)
from ..settings import Settings
from . import routes

_UNKNOWN_METHOD = re.compile(rb"[A-Z][A-Z#$._-]{2,19} (\S+) HTTP/1\.[01]\r\n")


def no_http(complaint: str, data: bytes) -> RequestError:
    """Bytes that are no request, in the parser's words. `data` begins with them, if that is known."""
    if "Invalid method" in complaint:
        known = _UNKNOWN_METHOD.match(data)
        if known is not None:  # a method that the parser does not know, not broken bytes
            return routes.unknown_method(known[1])
    if "Invalid HTTP version" in complaint:
        return VersionNotSupported("The HTTP version is not supported. Use HTTP/1.1.")
    return BadRequest(f"The request is not valid HTTP/1.1: {complaint}.")


def target_too_long(settings: Settings) -> TargetTooLong:
    """The target is over its limit."""
    return TargetTooLong(f"The request target is longer than {settings.max_target_bytes} bytes.", "max_target_bytes")


def head_too_large(settings: Settings, fields: int) -> HeadTooLarge:
    """The header fields are, of which there were `fields`."""
    return HeadTooLarge(
        f"The request has more than {settings.max_head_fields} header fields or "
        f"more than {settings.max_head_bytes} bytes of them, trailers and chunk extensions among them.",
        "max_head_fields" if fields > settings.max_head_fields else "max_head_bytes",
    )


def body_too_large(settings: Settings) -> BodyTooLarge:
    """The body is."""
    return BodyTooLarge(f"The request body is larger than {settings.max_body_bytes} bytes.", "max_body_bytes")


def head_too_late(settings: Settings) -> RequestTimeout:
    """The head is not there yet."""
    return RequestTimeout(f"The request head did not arrive within {settings.head_timeout_s:g} s.", "head_timeout_s")


def body_too_late(allowed_s: float) -> RequestTimeout:
    """The body is not."""
    return RequestTimeout(f"The request body did not arrive within {allowed_s:.0f} s.", "body_timeout_s")


def too_many_connections(limit: int) -> Overloaded:
    """This connection is one more than are taken."""
    return Overloaded(f"The server has {limit} connections open and takes no more.", 1, "max_connections")


def answer_not_read(settings: Settings, least_bytes_per_s: int) -> tuple[str, str]:
    """Why a connection is cut without an answer, for the log, and which setting says so."""
    text = f"Its client did not read its answer at {least_bytes_per_s} bytes/s for {settings.body_timeout_s:g} s."
    return text, "body_timeout_s"
