"""front: any header lines as ids and origins, any target as a path, any reply head of a scorer.

- Nothing raises.
- What is answered is header lines, each ended once: nothing that came in ends a line or begins another one.
- Ids are given once, and repeat what the client sent or are new.
"""

import re

from scoring_runtime.front import messages, routes
from scoring_runtime.front.contract import Contract
from scoring_runtime.front.exchange import RequestHead, head_lines
from scoring_runtime.openapi import Service, UnknownVersionError, documents, select
from scoring_runtime.telemetry.requests import RequestLog, describe

from .draw import Draw

ORIGINS = ("", "*", "https://a.example", "https://a.example, https://.*\\.b\\.example, https://c.example")
NAMES = (
    *(b"x-request-id", b"X-Ms-Request-Id", b"x-ms-client-request-id", b"traceid", b"Origin", b"referer", b"User-Agent"),
    *(b"Access-Control-Request-Method", b"Access-Control-Request-Headers", b"x-other"),
)
LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t -~\x80-\xff]*")

TOKENS = (
    *(b"/score", b"http://", b"https://h/score", b"//", b"%2f", b"%0d%0a", b"?", b"#", b"/v2/models/", b"x" * 101),
    *(
        b"content-type: a/b\n",
        b"x-request-id: 1\n",
        b"Content-Length: 1\n",
        b"a:b\rc: d\n",
        b"https://x.b.example",
        b"POST",
    ),
)


def seed(options: int, target: bytes, *headers: tuple[int, bytes], reply: bytes = b"") -> bytes:
    """An input for `check`."""
    lines = b"".join(bytes([name, len(value)]) + value for name, value in headers)
    return bytes([options, len(target)]) + target + bytes([len(headers)]) + lines + reply


SEEDS = (
    seed(0, b"/score", (0, b"id"), (3, b"trace"), reply=b"content-type: a/b\nx-a: b\nset-cookie: c"),
    seed(3, b"//score?x#y", (1, b"a"), (2, b"b"), (4, b"https://x.b.example"), reply=b"x-request-id: mine\nTraceId: 1"),
    seed(2, b"http://here/v2/models/%2f", (0, b"x" * 101), (4, b"https://a.example"), (7, b"post"), (8, b"a, b,,c")),
    seed(1, b"https://here", (1, b"x" * 101), (4, b""), reply=b"transfer-encoding: chunked\nbroken\nx: \ry"),
    seed(7, b"/%E4%BD%A0", (5, b'"quoted\\"'), (6, b"curl/8"), reply=b"access-control-allow-origin: *"),
)

_contracts = [Contract({}, origins) for origins in ORIGINS]


def check(data: bytes) -> None:
    draw = Draw(data)
    options = draw.byte()
    target = visible(draw.piece())
    headers = [(NAMES[draw.below(len(NAMES))], value_of(draw.piece())) for _ in range(draw.below(6))]
    reply_head = draw.rest()
    method = (b"POST", b"GET", b"OPTIONS", b"HEAD")[options >> 2 & 3]
    check_path(target)
    check_contract(_contracts[options & 3], method, headers, reply_head)
    check_log(method, target, headers)
    routes.find(RequestHead(method, target, headers, False, True))
    check_documents(target.decode("latin-1"))


def visible(data: bytes) -> bytes:
    """Bytes as the parser lets them into a target."""
    return data.translate(None, bytes(range(33)) + b"\x7f")


def value_of(data: bytes) -> bytes:
    """Bytes as the parser lets them into a field."""
    return data.translate(None, bytes({*range(32), 127} - {9})).strip(b" \t")


def check_path(target: bytes) -> None:
    path = messages.path(target)
    assert not path.startswith(b"//")
    routes.unknown_method(target)


def check_contract(contract: Contract, method: bytes, headers: list[tuple[bytes, bytes]], reply_head: bytes) -> None:
    content_type, own = head_lines(reply_head)
    assert content_type == value_of(content_type)
    identity = contract.identify(headers)
    lines = contract.complete(own, identity, method, headers, found=True)
    assert not lines or lines.endswith(b"\r\n")
    split = lines.split(b"\r\n")[:-1]
    for line in split:
        assert LINE.fullmatch(line), line
    ids = [line.partition(b": ")[2] for line in split if line.lower().startswith(b"x-request-id:")]
    given = b",".join(value for name, value in headers if name == b"x-request-id")
    if identity.given != b"":  # a client whose id is empty, or refused, is given none: a script may say its own
        assert len(ids) == 1
        assert ids == [given] or not given
    assert all(name.lower() not in (b"content-length", b"transfer-encoding") for name in own.split(b": ")[:1])


def check_log(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    log = RequestLog(lambda _: None, clock=lambda: 1e9)
    fields = {name.lower(): value for name, value in headers}
    text = describe(method, target, False, fields.get(b"referer", b""), fields.get(b"user-agent", b""))
    log.scored(text, 200, 0.001, 2)
    log.answered(text, b"::1", 200, 2)
    written = b"".join(log._lines)
    assert written.count(b"\n") == (1 if text.is_probe else 2)
    assert written.endswith(b"\n")
    assert b"\r" not in written


def check_documents(text: str) -> None:
    service = Service(text, text, text)
    taken = documents(service, {"input": text, "versions": [text, "2.0"]}, {})
    try:
        select(taken, text)
    except UnknownVersionError as error:
        str(error).encode()
    assert all(path.startswith("/") for path in taken["2"]["paths"])
