"""scorer/script: any request as run() sees it, and any result of run().

- Whatever head and body come, a request object can be made and read; only JSON may be refused, by BadRequestError.
- WSGI and our own object say the same of it.
- A result is written as json.dumps writes it, or refused by the exceptions that the engine answers with 500.
"""

import json
import math
from typing import Any

from scoring_runtime.scorer.script.encode import encode
from scoring_runtime.scorer.script.request import BadRequestError, Head, Request, query_values, wsgi_environ

from .draw import Draw

PLAIN = (
    *("data", "is_json", "form", "files", "values", "cookies", "host", "host_url", "base_url", "full_path", "url"),
    *("is_secure", "content_type", "content_length", "mimetype", "mimetype_params", "args", "path", "stream"),
)

TOKENS = (
    *(b"/score?a=1&b=[1]", b"http://here/score", b"\n:remote-addr: 127.0.0.1", b"\n:scheme: http", b"\nContent-Type: "),
    *(
        b"application/json",
        b"multipart/form-data; boundary=b",
        b"application/x-www-form-urlencoded",
        b"\nCookie: a=b; c",
    ),
    *(b"\nX-Forwarded-Proto: https", b"\nHost: here:80", b"[[[[", b'{"a": 1}', b"\xfe\xff", b"\0{\0}", b"%2F%ff", b"#"),
    *(
        b"--b\r\nContent-Disposition: form-data; name=f\r\n\r\nx\r\n--b--",
        b"NaN",
        b"\xef\xbb\xbf",
        b"; charset*0*=x''%41",
    ),
)


def seed(head: bytes, body: bytes = b"") -> bytes:
    """An input for `check`."""
    return bytes([len(head)]) + head + body


SEEDS = (
    seed(
        b"/score?a=1&b=[2]&a=x\n:remote-addr: 127.0.0.1\n:scheme: http\nHost: here:80\nContent-Type: application/json",
        b"{}",
    ),
    seed(b"http://here/score#x\nX-Forwarded-Proto: https\nCookie: a=b; c=d\nContent-Length: 3", b"abc"),
    seed(b"/score\nContent-Type: application/x-www-form-urlencoded", b"a=1&b=%ff&a=2"),
    seed(
        b"/\nContent-Type: multipart/form-data; boundary=b",
        b"--b\r\nContent-Disposition: form-data; name=f\r\n\r\nx\r\n--b--",
    ),
    seed(b"/score?x=" + b"[" * 200 + b"\nContent-Type: a/b+json", b"[" * 600),
    seed(b"\nno colon\n: no name\nContent-Type:\nContent-Length: x"),
)


def check(data: bytes) -> None:
    draw = Draw(data)
    raw_head = draw.piece().translate(None, b"\r\0")  # the front's parser lets neither into a head
    body = draw.rest()
    head = Head(raw_head)
    values = query_values(head)
    json.dumps(values)
    items = head.header_items()
    assert all("_" not in name for name in items)
    check_request(Request("POST", head, body), head, body)
    check_result(values)
    check_result(any_value(Draw(data)))


def check_request(request: Request, head: Head, body: bytes) -> None:
    for name in PLAIN:
        getattr(request, name)
    for force in (False, True):
        try:
            document = request.get_json(force=force)
        except BadRequestError:
            assert request.get_json(force=force, silent=True) is None
        else:
            assert force or request.is_json
            assert json.dumps(document) == json.dumps(json.loads(body))
    assert request.get_data() == body
    environ = wsgi_environ("POST", head, body)
    assert environ["QUERY_STRING"].encode("latin-1") == request.query_string
    assert environ["wsgi.url_scheme"] == request.scheme
    assert all(isinstance(value, str) for name, value in environ.items() if not name.startswith("wsgi."))


def check_result(value: Any) -> None:
    try:
        expected = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        expected = None
    try:
        written = encode(value)
    except (TypeError, ValueError, RecursionError):
        assert expected is None
        return
    if expected is not None:
        assert written == expected.encode("ascii")
    json.loads(written)
    assert encode([1, math.pi]) == b"[1, %a]" % math.pi, "what one result leaves behind shows in the next"


def any_value(draw: Draw, depth: int = 0) -> Any:
    """Any value of the kinds that results are made of."""
    kind = draw.below(16)
    if kind == 0 or depth > 20:
        return None
    if kind == 1:
        return draw.text()
    if kind == 2:
        return draw.number(9) - (1 << 70)
    if kind == 3:
        return float.fromhex(f"0x{draw.number(6):x}p{draw.byte() - 128}")
    if kind == 4:
        return (float("nan"), float("inf"), True, "\ud800")[draw.below(4)]
    if kind == 5:
        return draw.piece()
    size = draw.below(5)
    if kind in (6, 7):
        return [any_value(draw, depth + 1) for _ in range(size)]
    if kind == 8:
        return tuple(any_value(draw, depth + 1) for _ in range(size))
    if kind in (9, 10):
        return {draw.text(): any_value(draw, depth + 1) for _ in range(size)}
    if kind == 11:
        return {draw.byte() if draw.below(2) else None: any_value(draw, depth + 1) for _ in range(size)}
    if kind == 12:
        return {draw.text() for _ in range(size)}
    if kind == 13:
        return {b"key" if draw.below(2) else (1, 2): any_value(draw, depth + 1)}
    if kind == 14:
        return range(size)
    ring: list[Any] = [any_value(draw, depth + 1)]
    ring.append(ring)
    return ring
