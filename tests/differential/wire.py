"""Raw HTTP: bytes out, one answer in, and what of an answer is compared."""

import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

TIMEOUT_S = 30.0

Header = tuple[str, str]


@dataclass(frozen=True)
class Request:
    """Bytes that a client sends over a connection of its own."""

    data: bytes
    closes_early: bool = False
    """The client shuts its side down after the last byte, as one that was killed does."""

    @property
    def is_head(self) -> bool:
        return self.data.startswith(b"HEAD ")

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode("latin-1")


def request(
    method: str = "POST",
    target: str = "/score",
    body: bytes | str = b"",
    headers: Iterable[str] = (),
    content_type: str | None = None,
    version: str = "1.1",
) -> Request:
    """An ordinary request. Text is sent as UTF-8 in the body and as Latin-1 in the head."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {target} HTTP/{version}", "Host: score.example", *headers]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if data or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(data)}")
    return Request("\r\n".join([*lines, "", ""]).encode("latin-1") + data)


def json_request(body: str | bytes, *headers: str, target: str = "/score") -> Request:
    return request(target=target, body=body, headers=headers, content_type="application/json")


def words(text: str) -> list[str]:
    """The names of many cases at once."""
    return text.split()


@dataclass
class Answer:
    """What came back. Status 0: nothing did."""

    status: int = 0
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    complete: bool = True
    interim: list[int] = field(default_factory=list)


def exchange(port: int, request: Request) -> Answer:
    """Send a request over a connection of its own, and close it as soon as the answer is there."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.sendall(request.data)
            if request.closes_early:
                connection.shutdown(socket.SHUT_WR)
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before the end: the answer is there all the same
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = parse(received, request.is_head, ended=False)
            if answer is not None:
                return answer
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = connection.recv(1 << 20)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return parse(received, request.is_head, ended=True) or Answer(complete=False)
            received += piece


def parse(data: bytes, is_head: bool, ended: bool) -> Answer | None:
    """The answer in `data`; None as long as more of it can come."""
    interim: list[int] = []
    while True:
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator:
            return None
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        if status >= 200:
            break
        interim.append(status)
        data = body
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    answer = Answer(status, headers, b"", True, interim)
    if is_head or status in (204, 304):
        return answer
    known = {name.lower(): value for name, value in headers}
    if known.get("transfer-encoding", "").lower() == "chunked":
        answer.body, answer.complete = _unchunk(body)
        return answer if answer.complete or ended else None
    if "content-length" in known:
        length = int(known["content-length"])
        answer.body, answer.complete = body[:length], len(body) >= length
        return answer if answer.complete or ended else None
    answer.body = body
    return answer if ended else None


def _unchunk(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        size_line, separator, rest = data.partition(b"\r\n")
        if not separator:
            return body, False
        size = int(size_line.partition(b";")[0], 16)
        if size == 0:
            return body, True
        if len(rest) < size + 2:
            return body + rest[:size], False
        body += rest[:size]
        data = rest[size + 2 :]


_DROPPED = frozenset(("date", "server", "connection", "keep-alive", "transfer-encoding", "content-length"))
_GENERATED = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SHAPES = {
    "x-ms-run-fn-exec-ms": re.compile(r"\d+\.\d{3}"),
    "x-ms-server-version": re.compile(r"azmlinfsrv/\d+\.\d+\.\d+\S*"),
}


def compared(answer: Answer, request: Request) -> dict[str, object]:
    """What of an answer is compared, by the names that differences are told by.

    A header is compared as the list of its values, in order, under `header <name>`. Left out are the header fields that
    say when, by whom and in which frame the answer was sent; ids that the server made up become GEN, times and versions
    that have the right form become OK.
    """
    facts: dict[str, object] = {"status": answer.status, "body": answer.body}
    if not answer.complete:
        facts["complete"] = False
    if answer.interim:
        facts["interim"] = answer.interim
    for name, value in answer.headers:
        lowered = name.lower()
        if lowered == "content-length" and not request.is_head and answer.status not in (204, 304):
            if answer.complete and int(value) != len(answer.body):
                facts["content-length"] = "is not the length of the body"
            continue
        if lowered in _DROPPED:
            continue
        values = facts.setdefault(f"header {lowered}", [])
        assert isinstance(values, list)
        values.append(_comparable(lowered, value, request))
    return facts


def _comparable(name: str, value: str, request: Request) -> str:
    shape = _SHAPES.get(name)
    if shape is not None and shape.fullmatch(value):
        return "OK"
    if _GENERATED.fullmatch(value) and value not in request.head:
        return "GEN"
    if name in ("allow", "vary"):
        return ", ".join(sorted(part.strip() for part in value.split(",")))
    return value


def differing(theirs: dict[str, object], ours: dict[str, object]) -> dict[str, tuple[object, object]]:
    """What is not the same: the incumbent's and ours, by name."""
    names = sorted(theirs.keys() | ours.keys())
    return {name: (theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)}
