"""Streams that two readers could understand differently, each with what is to become of it."""

_HEAD = b"POST /score HTTP/1.1\r\nHost: here\r\n"
_CHUNKED = b"Transfer-Encoding: chunked"
_HELLO = b"5\r\nhello\r\n0\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return _HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return post(_CHUNKED, body=body)


def start(line: bytes, body: bytes = b"hello") -> bytes:
    return line + b"\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body) + body


REFUSED: dict[str, tuple[bytes, int]] = (
    {
        f"Content-Length {value!r}": (post(b"Content-Length:" + value, body=b"hello"), 400)
        for value in (
            b" 5, 5", b"5,5", b" +5", b" 0x5", b" -5", b" -0", b"", b" ", b" 5 5", b" 5.0", b" 5e0", b" 5;a", b' "5"', b" 1_0",
            b" \x0b5", b" 5\x0b", b" \xb25", b" 18446744073709551621", b" 99999999999999999999999999",
        )
    }
    | {
        "Content-Length larger than any body": (post(b"Content-Length: 9999999999", body=b"x"), 413),
        "Content-Length twice": (post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400),
        "Content-Length twice, different": (post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), 400),
        "Content-Length twice, in other letters": (post(b"Content-Length: 5", b"CONTENT-LENGTH: 0", body=b"hello"), 400),
        "Content_Length": (post(b"Content_Length: 5", body=b"hello"), 400),
        "Transfer-Encoding before Content-Length": (post(_CHUNKED, b"Content-Length: 5", body=_HELLO), 400),
        "Content-Length before Transfer-Encoding": (post(b"Content-Length: 5", _CHUNKED, body=_HELLO), 400),
        "Content-Length beside an unknown coding": (post(b"Content-Length: 5", b"Transfer-Encoding: x", body=_HELLO), 400),
        "Transfer-Encoding twice": (post(_CHUNKED, _CHUNKED, body=_HELLO), 400),
        "Transfer-Encoding twice, one identity": (post(b"Transfer-Encoding: identity", _CHUNKED, body=_HELLO), 501),
        "Transfer-Encoding in HTTP/1.0": (b"POST /score HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + _HELLO, 400),
        "Transfer_Encoding": (post(b"Transfer_Encoding: chunked", body=_HELLO), 400),
        "both lengths behind an offer to upgrade": (
            post(b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 5", _CHUNKED, body=_HELLO), 400,
        ),
    }
    | {
        f"Transfer-Encoding {value!r}": (post(b"Transfer-Encoding:" + value, body=_HELLO), status)
        for value, status in (
            (b" chunked, chunked", 400), (b" chunked,", 400), (b" chunked, identity", 400), (b"", 400),
            (b" \x0bchunked", 400), (b" chunked\x0b", 400), (b" chunked\0", 400), (b"\r\n chunked", 400),
            (b" identity", 501), (b" xchunked", 501), (b" ,chunked", 501), (b' "chunked"', 501), (b" chunked;q=1", 501),
            (b" identity, chunked", 501), (b" gzip, chunked", 501), (b" cow", 501),
        )
    }
    | {
        f"name {name!r}": (post(name + b": chunked", body=_HELLO), 400)
        for name in (
            b"Transfer-Encoding ", b"Transfer-Encoding\t", b"Transfer-Encoding\x0b", b" Transfer-Encoding", b"\tTransfer-Encoding",
            b"Transfer-Encoding\0", b"\0Transfer-Encoding", b"Transfer-Encoding\xa0", b"", b"X(A)", b"X\x80", b"X;", b"X,",
        )
    }
    | {
        "obs-fold": (post(b"X-A: 1", b" folded", b"Content-Length: 5", body=b"hello"), 400),
        "obs-fold that hides a length": (post(b"X-A: 1", b"\tContent-Length: 5", body=b"hello"), 400),
        "obs-fold before the first field": (b"POST /score HTTP/1.1\r\n X-A: 1\r\nHost: here\r\n\r\n", 400),
        "no colon": (post(b"X-A", b"Content-Length: 5", body=b"hello"), 400),
        "two Hosts": (post(b"Host: other"), 400),
        "two Content-Types": (post(b"Content-Type: a/b", b"Content-Type: c/d"), 400),
        "bare CR in a value": (post(b"X-A: a\rContent-Length: 5", body=b"hello"), 400),
        "bare CRs as line ends": (b"POST /score HTTP/1.1\rHost: here\r\r", 400),
        "two CRs before LF": (b"POST /score HTTP/1.1\r\r\nHost: here\r\n\r\n", 400),
        "bare LFs as line ends": (b"POST /score HTTP/1.1\nHost: here\nContent-Length: 5\n\nhello", 400),
        "bare LF behind the request line": (b"POST /score HTTP/1.1\nHost: here\r\n\r\n", 400),
        "bare LF behind a field": (post(b"X-A: 1\nContent-Length: 5", body=b"hello"), 400),
        "bare LF as the empty line": (b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\nhello", 400),
        "NUL in a value": (post(b"X-A: a\0b"), 400),
        "NUL in a name": (post(b"X\0A: b"), 400),
        "other control characters in a value": (post(b"X-A: a\x1b\x7f\x01b"), 400),
    }
    | {
        f"target {target!r}": (start(b"POST " + target + b" HTTP/1.1"), 400)
        for target in (
            b"", b"score", b"?a", b"http:/score", b"http:score", b"here:80", b"/a b", b"/\0", b"/\t", b"/\x0b", b"/\x1b", b"/\x7f",
            b"/score\r",
        )
    }
    | {
        f"method {method!r}": (start(method + b" /score HTTP/1.1"), 400)
        for method in (
            b"", b"post", b"Post", b"GE T", b"GET\t", b"POST\0", b"G\rET", b" POST", b"GET\x0b", b"PO(ST", b"POST" * 20, b"PRI",
        )
    }
    | {
        "CONNECT and a tunnel": (b"CONNECT here:443 HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        "CONNECT with a length": (start(b"CONNECT here:443 HTTP/1.1"), 404),
        "CONNECT to a path": (start(b"CONNECT /score HTTP/1.1"), 405),
        "HTTP/0.9": (b"GET /\r\n\r\n", 505),
        "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    }
    | {
        f"version {version!r}": (start(b"POST /score " + version), status)
        for version, status in (
            (b"HTTP/0.9", 505), (b"HTTP/1.2", 505), (b"HTTP/2.0", 505), (b"HTTP/2", 400), (b"HTTP/1.10", 400), (b"HTTP/01.1", 400),
            (b"http/1.1", 400), (b"HTTP/1,1", 400), (b"HTTP/1.1 ", 400), (b"HTTP/1.1\t", 400), (b"HTTP/1.1x", 400), (b"FTP/1.1", 400),
        )
    }
    | {
        f"chunks {body[:40]!r}": (chunks(body), 400)
        for body in (
            b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5,5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n",
            b"\r\n5\r\nhello\r\n0\r\n\r\n", b";a\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhelloworld\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\n",
            b"5;a\nhello\r\n0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5;\0\r\nhello\r\n0\r\n\r\n",
            b'5;a="b\r\n"\r\nhello\r\n0\r\n\r\n', b'5;a="\n"\r\nhello\r\n0\r\n\r\n',
            b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\n\r\n",
            b"5\r\nhello\r\n0\r\nX\r\n\r\n", b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
        )
    }
)  # fmt: skip
"""By class: the bytes, and the status of the only answer. Nothing of them may run, and the connection ends."""

TAKEN: dict[str, tuple[bytes, bytes]] = {
    "Content-Length with spaces around": (post(b"Content-Length: \t5 \t", body=b"hello"), b"hello"),
    "Content-Length with zeros before": (post(b"Content-Length: 0005", body=b"hello"), b"hello"),
    "Transfer-Encoding in other letters": (post(b"transfer-ENCODING:\tChunked", body=_HELLO), b"hello"),
    "a chunk extension": (chunks(b'5;a=b;c="d \\" e";f\r\nhello\r\n0;g\r\n\r\n'), b"hello"),
    "zeros before a chunk size": (chunks(b"0000000000000000000000005\r\nhello\r\n000\r\n\r\n"), b"hello"),
    "trailers": (chunks(b"5\r\nhello\r\n0\r\nX-Late: yes\r\nHost: other\r\n\r\n"), b"hello"),
    "a request in the body": (
        post(b"Content-Length: 39", body=b"POST /score HTTP/1.1\r\nHost: hidden\r\n\r\n1"),
        b"POST /score HTTP/1.1\r\nHost: hidden\r\n\r\n1",
    ),
    "a request in a chunk": (
        chunks(b"26\r\nPOST /score HTTP/1.1\r\nHost: hidden\r\n\r\n\r\n0\r\n\r\n"),
        b"POST /score HTTP/1.1\r\nHost: hidden\r\n\r\n",
    ),
    "empty lines before": (b"\r\n\r\n" + start(b"POST /score HTTP/1.1"), b"hello"),
    "absolute-form": (start(b"POST http://other/score HTTP/1.1"), b"hello"),
    "no Host": (b"POST /score HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "Connection names the length": (post(b"Connection: Content-Length", b"Content-Length: 5", body=b"hello"), b"hello"),
}
"""By class: the bytes, and the body that they carry. They mean one thing, and another request may follow."""

NEXT = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nnext"
