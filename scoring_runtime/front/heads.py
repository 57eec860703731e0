"""What a request's header fields say of how it is read, and whether two readers could understand them differently. Pure."""

from ..errors import BadRequest, CodingNotImplemented, ExpectationFailed
from .exchange import RequestHead

_ONCE = frozenset((b"host", b"content-type", b"transfer-encoding"))
"""Fields that say different things to different readers when they stand twice. Content-Length the parser refuses."""

_MISSPELT = frozenset((b"content_length", b"transfer_encoding"))
"""To a reader that knows them by the names of CGI's variables, these are the real ones."""

_CHECKED = _ONCE | _MISSPELT | {b"content-length", b"expect", b"upgrade"}


def read(head: RequestHead) -> tuple[bool, bool, int, bool]:
    """What a head says; RequestError where it says two things, or what this server cannot do.

    plain: nothing but a Content-Length, if that, says how the message is read. bodiless: there is no body. body_bytes: its
    length as announced, 0 for a body in chunks. expects_continue: the client waits to be told to go on.
    """
    plain, chunked, body_bytes, expects_continue = True, False, 0, False
    seen = []
    for name, value in head.headers:
        known = name.lower()
        if known not in _CHECKED:
            continue
        if known == b"content-length":
            body_bytes = int(value)  # the parser has checked that it is one number
        elif known in _ONCE:
            if known in seen:
                raise BadRequest(f"The request has two {known.decode()} header fields.")
            seen.append(known)
            if known == b"transfer-encoding":
                _check_coding(head, value)
                plain, chunked = False, True
        elif known == b"expect":
            expected = value.decode("latin-1")
            if expected.lower() != "100-continue":
                raise ExpectationFailed(f"The expectation {expected!r} cannot be met. Use 100-continue.")
            plain, expects_continue = False, not head.http_10
        elif known == b"upgrade":
            plain = False
        else:
            right = known.decode().replace("_", "-")
            raise BadRequest(f"The header field {known.decode()} is not {right}, but some would read it so.")
    return plain, not chunked and not body_bytes, body_bytes, expects_continue


def _check_coding(head: RequestHead, coding: bytes) -> None:
    if head.http_10:
        raise BadRequest("HTTP/1.0 has no transfer codings. Send a Content-Length.")
    if coding.lower() != b"chunked":
        raise CodingNotImplemented(f"Transfer coding {coding.decode('latin-1')!r} is not supported. Use chunked.")


def encode_without_upgrade(method: bytes, target: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head that a request would have, did it not offer another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    lines.extend(b"%b: %b" % header for header in headers if header[0].lower() != b"upgrade")
    return b"\r\n".join((*lines, b"", b""))
