"""The header contract of Azure ML's inference server: request ids, version, CORS. Pure.

It holds for the script engine, whose users have clients built on it. Sections are those of the contract: 2.3 ids,
2.4 other headers, 6 CORS.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence

Headers = Sequence[tuple[bytes, bytes]]

DEPRECATED_ID = (
    b"x-ms-request-id header has been deprecated and will be removed from future versions of the server. "
    b"Please use x-ms-client-request-id."
)
MAX_ID_CHARS = 100
SERVER_VERSION = "1.5.1"
"""The version of azmlinfsrv whose contract this is: clients read it from x-ms-server-version."""


class Ids:
    """Request ids in the form of random UUIDs, at 0.2 us each in place of 1.9.

    A random stem of 74 bits, renewed every `RENEW_AFTER` ids, and a count in the last group.
    """

    RENEW_AFTER = 1 << 20

    def __init__(self) -> None:
        self._stem = b""
        self._count = self.RENEW_AFTER

    def next(self) -> bytes:
        """An id that nobody else has."""
        self._count += 1
        if self._count >= self.RENEW_AFTER:
            self._renew()
        return b"%b%012x" % (self._stem, self._first + self._count)

    def _renew(self) -> None:
        text = os.urandom(16).hex()
        variant = "89ab"[int(text[16], 16) % 4]
        self._stem = f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-".encode()
        self._first = int(text[20:32], 16) & ~(self.RENEW_AFTER - 1)
        self._count = 0


class Identity:
    """What one request head says about ids, and what every answer to it repeats."""

    __slots__ = ("deprecated", "given", "lines", "plain", "refusal")

    def __init__(self, headers: Headers) -> None:
        request_id, ms_id, client_id = (_joined(headers, name) for name in _ID_HEADERS)
        self.deprecated = bool(ms_id)
        self.refusal = ""
        self.given = request_id
        trace = _joined(headers, b"traceid")
        lines = b"" if trace is None else b"TraceId: %b\r\n" % trace
        if request_id is not None and len(request_id) > MAX_ID_CHARS:
            self.refusal = f"x-request-id must not exceed {MAX_ID_CHARS} characters"
            self.given = b""
            self.lines: Callable[[bytes], bytes] = lambda _: lines
            self.plain = False
            return
        if ms_id and not client_id:
            client_id = ms_id
        if not ms_id:
            ms_id = client_id
        own = b"x-request-id: %b\r\n"
        if max(len(ms_id or b""), len(client_id or b"")) > MAX_ID_CHARS:
            self.refusal = f"x-ms-request-id and x-ms-client-request-id must not exceed {MAX_ID_CHARS} characters"
            ms_id = client_id = None
        else:
            own += b"x-ms-request-id: %b\r\n" if ms_id is None or not ms_id else b""
        fixed = lines
        if ms_id:
            fixed += b"x-ms-request-id: %b\r\n" % ms_id
        if client_id:
            fixed += b"x-ms-client-request-id: %b\r\n" % client_id
        ids = own.count(b"%b")
        self.lines = lambda request_id: own % ((request_id,) * ids) + fixed if request_id else fixed
        self.plain = request_id is None and not fixed and not self.refusal


_ID_HEADERS = (b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id")


def _joined(headers: Headers, name: bytes) -> bytes | None:
    """The values of a header, joined as WSGI does; None when it is absent."""
    values = [value for have, value in headers if len(have) == len(name) and have.lower() == name]
    return b",".join(values) if values else None


class Contract:
    """The contract of one server: what every response has to carry, beside its own headers."""

    def __init__(self, environ: Mapping[str, str], cors_origins: str, *, tells_version: bool = True) -> None:
        self.ids = Ids()
        self.version_line = version_line(environ) if tells_version else b""
        self.cors = Cors(cors_origins) if cors_origins else None

    def identify(self, headers: Headers) -> Identity:
        """What a request head says about ids; to be kept with the head."""
        return Identity(headers)

    def complete(self, own: bytes, identity: Identity, method: bytes, headers: Headers, found: bool) -> bytes:
        """A response's header lines, completed. `found`: the request reached a route and a method of it.

        Ids are the server's to give: those among the response's `own` lines are replaced. Where a script has said which
        origin it allows, nothing is added to that.
        """
        request_id = self.ids.next() if identity.given is None else identity.given
        lines = identity.lines(request_id)
        replaced = {line.partition(b":")[0].lower() for line in lines.split(b"\r\n") if line} - {b"traceid"}
        kept = [line for line in own.splitlines(keepends=True) if line.partition(b":")[0].lower() not in replaced]
        if self.cors is not None and found and not any(_allows_origin(line) for line in kept):
            lines += self.cors.lines(method, headers)
        return b"".join((*kept, self.version_line, lines))


def _allows_origin(line: bytes) -> bool:
    return line.lower().startswith(b"access-control-allow-origin:")


def version_line(environ: Mapping[str, str]) -> bytes:
    """The x-ms-server-version line, as the environment wishes; empty when it is switched off."""
    switch = environ.get("SERVER_VERSION_LOG_RESPONSE_ENABLED")
    if switch is None or switch.lower() == "true":
        version = f"azmlinfsrv/{SERVER_VERSION}"
    else:
        version = environ.get("HTTP_X_MS_SERVER_VERSION", "")
    return f"x-ms-server-version: {version}\r\n".encode("latin-1") if version else b""


class Cors:
    """Cross-origin headers for a list of origins; entries with characters of regular expressions are such."""

    METHODS = (b"GET", b"POST")

    def __init__(self, origins: str) -> None:
        listed = [origin.strip() for origin in origins.split(",") if origin.strip()]
        self._any = "*" in listed
        self._plain = sorted(origin for origin in listed if not _looks_like_regex(origin))
        patterns = [origin for origin in listed if _looks_like_regex(origin) and origin != "*"]
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]
        self._varies = len(listed) > 1 or bool(patterns)

    def lines(self, method: bytes, headers: Headers) -> bytes:
        """The header lines for a request."""
        origin = _joined(headers, b"origin")
        allowed, vary = self._allowed(origin)
        if allowed is None:
            return b""
        lines = b"Access-Control-Allow-Origin: %b\r\n" % allowed
        asked = (_joined(headers, b"access-control-request-method") or b"").upper()
        if method == b"OPTIONS" and asked in self.METHODS:
            wanted = _joined(headers, b"access-control-request-headers")
            if wanted:
                lines += b"Access-Control-Allow-Headers: %b\r\n" % b", ".join(
                    sorted(part.strip() for part in wanted.split(b",") if part.strip())
                )
            lines += b"Access-Control-Allow-Methods: GET, POST\r\n"
        return lines + b"Vary: Origin\r\n" if vary else lines

    def _allowed(self, origin: bytes | None) -> tuple[bytes | None, bool]:
        if origin is None or not origin:
            if self._any:
                return b"*", False
            return (self._plain[0].encode("latin-1"), self._varies) if self._plain else (None, False)
        if self._any:
            return origin, True
        text = origin.decode("latin-1")
        if text.lower() in (plain.lower() for plain in self._plain) or any(p.match(text) for p in self._patterns):
            return origin, self._varies
        return None, False


def _looks_like_regex(origin: str) -> bool:
    return any(character in origin for character in "*\\]?$^[]()")
