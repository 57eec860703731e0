"""Requests that test the HTTP surface rather than a script: routes, ids, queries, bodies, CORS, and HTTP itself."""

from .wire import Request, request, words

# Routes and methods (contract 2.1)

_PATHS = words("""/ // /? /?x=1 /score /score? /score/ //score ///score /%2fscore /score//x /score/x /SCORE /sc%6fre /score%20
    /score%00 /score;x=1 /./score /a/../score /score#x /nope /nope?x=1 /%ff /%e4%b8%ad /swagger.json /swagger.json/
    //swagger.json /swagger.json?version=2 /swagger.json?version=2.0 /swagger.json?version=3 /swagger.json?version=3.0
    /swagger.json?version=3.1 /swagger.json?version=4 /swagger.json?version= /swagger.json?version
    /swagger.json?version=3&version=2 /swagger.json?Version=9 /swagger.json?version=%22 /swagger.json?version=%3c%C3%A9
    http://score.example/score http://other.example/ https://score.example/nope /favicon.ico /robots.txt""")

ROUTES = (
    {f"GET {path}": request("GET", path) for path in _PATHS}
    | {
        f"POST {path}": request("POST", path, "x")
        for path in ("/", "//score", "/nope", "/swagger.json", "/sc%6fre?a=1")
    }
    | {f"HEAD {path}": request("HEAD", path) for path in ("/", "/score", "/nope", "/swagger.json")}
    | {f"OPTIONS {path}": request("OPTIONS", path) for path in ("/", "/score", "/nope", "/swagger.json", "*")}
    | {
        f"{method} {path}": request(method, path)
        for method in ("PUT", "DELETE", "PATCH", "BREW", "TRACE", "PROPFIND")
        for path in ("/", "/score", "/nope", "/swagger.json")
    }
)

# Request ids and the headers that belong to them (contract 2.3 and 2.4)

_LONG = "x" * 101
_LIMIT = "y" * 100


def _ids(body: str = "x", method: str = "POST", target: str = "/score", **ids: str) -> Request:
    names = {"X": "x-request-id", "M": "x-ms-request-id", "C": "x-ms-client-request-id"}
    return request(method, target, body, [f"{names[key]}: {value}" for key, value in ids.items()])


IDS = {
    "ids none": _ids(),
    "ids X": _ids(X="A"),
    "ids M": _ids(M="B"),
    "ids C": _ids(C="C"),
    "ids X M": _ids(X="A", M="B"),
    "ids X C": _ids(X="A", C="C"),
    "ids M C": _ids(M="B", C="C"),
    "ids X M C": _ids(X="A", M="B", C="C"),
    "ids X empty": _ids(X=""),
    "ids M empty": _ids(M=""),
    "ids C empty": _ids(C=""),
    "ids X empty, C": _ids(X="", C="C"),
    "ids all empty": _ids(X="", M="", C=""),
    "ids X limit": _ids(X=_LIMIT),
    "ids X long": _ids(X=_LONG),
    "ids M long": _ids(M=_LONG),
    "ids C long": _ids(C=_LONG),
    "ids X limit, M long": _ids(X=_LIMIT, M=_LONG),
    "ids M fine, C long": _ids(M="B", C=_LONG),
    "ids all long": _ids(X=_LONG, M=_LONG, C=_LONG),
    "ids X latin": _ids(X="caf\xe9"),
    "ids X spaces": _ids(X="a b\tc"),
    "ids X uuid": _ids(X="0fe5b0b2-9a2b-4b2e-8a53-3f5b8a3d6b11"),
    "ids X not a uuid": _ids(X='<script>"'),
    "ids upper names": request(body="x", headers=["X-REQUEST-ID: A", "X-MS-CLIENT-REQUEST-ID: C"]),
    "ids underscores": request(body="x", headers=["x_request_id: A"]),
    "ids twice": request(body="x", headers=["x-request-id: A-1", "x-request-id: A-2"]),
    "ids twice C": request(body="x", headers=["x-ms-client-request-id: 1", "x-ms-client-request-id: 2"]),
    "ids twice long": request(body="x", headers=[f"x-request-id: {'a' * 60}"] * 2),
    "ids GET": _ids("", "GET", "/score?a=1", X="A", M="B"),
    "ids health": _ids("", "GET", "/", X="A", M="B"),
    "ids health none": _ids("", "GET", "/"),
    "ids health long": _ids("", "GET", "/", X=_LONG),
    "ids health HEAD": _ids("", "HEAD", "/", X="A"),
    "ids health OPTIONS": _ids("", "OPTIONS", "/", X="A"),
    "ids swagger": _ids("", "GET", "/swagger.json?version=9", X="A", C="C"),
    "ids swagger long": _ids("", "GET", "/swagger.json", M=_LONG),
    "ids 404": _ids("", "GET", "/nope", X="A", C="C"),
    "ids 404 long": _ids("", "GET", "/nope", X=_LONG),
    "ids 405": _ids("", "PUT", "/score", X="A", C="C"),
    "ids 405 HEAD": _ids("", "HEAD", "/score", X="A"),
    "ids OPTIONS": _ids("", "OPTIONS", "/score", X="A"),
    "ids failed": _ids("!value-error", X="A", M="B"),
    "ids internal": _ids("!object", X="A", M="B"),
    "ids exit": _ids("!system-exit", X="A"),
    "ids bad body": request(body=b"\xff", headers=["x-request-id: A"]),
    "trace TraceId": request(body="x", headers=["TraceId: T"]),
    "trace lower": request(body="x", headers=["traceid: T"]),
    "trace trace-id": request(body="x", headers=["trace-id: T"]),
    "trace empty": request(body="x", headers=["TraceId:"]),
    "trace twice": request(body="x", headers=["TraceId: 1", "TraceId: 2"]),
    "trace health": request("GET", "/", headers=["TraceId: T"]),
    "trace 404": request("GET", "/nope", headers=["TraceId: T"]),
    "trace 405": request("PUT", "/score", headers=["TraceId: T"]),
    "trace 431": request(body="x", headers=["TraceId: T", f"x-request-id: {_LONG}"]),
    "trace failed": request(body="!value-error", headers=["TraceId: T"]),
    "traceparent": request(body="x", headers=["traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
}

# GET /score (contract 2.2)

_QUERIES = words("""a=1&b=[1,2]&c=a&d=null a=1&a=2 a=x&b=1&a=3&a a= a a&b= =1 & && a=%5B1%5D a=1+2 a=1%2b2 a=%ff%fe %ff=1 a=%C3%A9
    a=%e9 a=%zz a=% a=%2 a=%u00e9 a=1e3 a=1E400 a=NaN a=-Infinity a=true a=True a=%22text%22 a='x' a={%22b%22:{}} a=[1
    a=0123 a=12345678901234567890123 a=1.0 a=-0 a=%20%201%20 a=\u00e9 a=1;b=2 a==b a=1&A=2 a[]=1&a[]=2 a.b=1 a=%00
    a=%0d%0a a=1#b=2 ?a=1 a=?b a=%F0%9F%98%80 a=%ed%a0%80 a=%22%5cud800%22 a=%EF%BB%BF1 !calls""")

QUERIES = {f"query {query}": request("GET", f"/score?{query}") for query in _QUERIES} | {
    "query long": request("GET", "/score?a=" + "x" * 3000),
    "query deep": request("GET", "/score?a=" + "[" * 500 + "]" * 500),
    "query many": request("GET", "/score?" + "&".join(f"k{i}={i}" for i in range(300))),
    "query with body": request("GET", "/score?a=1", "body", ["Content-Type: application/json"]),
    "query on POST": request("POST", "/score?a=1", "body"),
}

# POST /score, undecorated (contract 4.3)

_MULTIPART = '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'

BODIES = {
    f"body as {kind or 'nothing'}": request(body='{"a": 1}', content_type=kind)
    for kind in (
        None,
        "",
        "application/json",
        "application/json; charset=utf-16",
        "text/plain",
        "text/plain; charset=latin-1",
        "application/octet-stream",
        "application/xml",
        "nonsense",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-8",
        "multipart/form-data",
        "multipart/form-data; boundary=b",
        "multipart/mixed; boundary=b",
    )
} | {
    "body empty": request(),
    "body not JSON": request(body="not {json", content_type="application/json"),
    "body blank": request(body=" \n "),
    "body UTF-8": request(body="é中😀"),
    "body BOM": request(body=b"\xef\xbb\xbfx"),
    "body UTF-16": request(body="x".encode("utf-16")),
    "body latin": request(body=b"caf\xe9"),
    "body not UTF-8": request(body=b"ab\xff\xfecd"),
    "body cut UTF-8": request(body=b"\xe4\xb8"),
    "body surrogate": request(body=b"\xed\xa0\x80"),
    "body overlong": request(body=b"\xc0\xaf"),
    "body NUL": request(body=b"a\x00b"),
    "body CRLF": request(body=b"a\r\nb\nc\rd"),
    "body large": request(body=b"x" * 3_000_000),
    "body form": request(body="a=1&b=2", content_type="application/x-www-form-urlencoded"),
    "body form large": request(body=b"a=" + b"1" * 700_000, content_type="application/x-www-form-urlencoded"),
    "body form not UTF-8": request(body=b"a=\xff", content_type="application/x-www-form-urlencoded"),
    "body multipart": request(body=_MULTIPART, content_type="multipart/form-data; boundary=b"),
    "body multipart large": request(
        body=_MULTIPART.replace("\r\n1\r\n", "\r\n" + "1" * 700_000 + "\r\n"),
        content_type="multipart/form-data; boundary=b",
    ),
    "body multipart no boundary": request(body=_MULTIPART, content_type="multipart/form-data"),
    "body gzip": request(body=b"\x1f\x8b", headers=["Content-Encoding: gzip"]),
    "body OPTIONS": request("OPTIONS", "/score", "x"),
    "accept": request(body="x", headers=["Accept: text/html", "Accept-Encoding: gzip", "Range: bytes=0-1"]),
    "conditional": request(body="x", headers=["If-None-Match: *", "If-Modified-Since: Wed, 21 Oct 2026 07:28:00 GMT"]),
    "method override": request(body="x", headers=["X-HTTP-Method-Override: PUT"]),
    "authorization": request(body="x", headers=["Authorization: Bearer x"]),
    "origin": request(body="x", headers=["Origin: https://a.example"]),
}

# CORS (contract 6)

_ORIGINS = {
    "none": None,
    "a": "https://a.example",
    "b": "https://b.example",
    "upper": "HTTPS://A.EXAMPLE",
    "other": "https://other.test",
    "null": "null",
    "longer": "https://a.example.evil.test",
    "port": "https://a.example:8443",
}
_PREFLIGHT = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-one, Content-Type")

CORS = (
    {
        f"{method} from {name}": request(method, "/score", body, [f"Origin: {origin}"] if origin else [])
        for name, origin in _ORIGINS.items()
        for method, body in (("POST", "x"), ("OPTIONS", ""))
    }
    | {
        f"preflight from {name}": request(
            "OPTIONS", "/score", headers=[*([f"Origin: {origin}"] if origin else []), *_PREFLIGHT]
        )
        for name, origin in _ORIGINS.items()
    }
    | {
        "preflight PUT": request(
            "OPTIONS", "/score", headers=["Origin: https://a.example", "Access-Control-Request-Method: PUT"]
        ),
        "preflight lower": request(
            "OPTIONS", "/score", headers=["Origin: https://a.example", "Access-Control-Request-Method: post"]
        ),
        "preflight without headers": request(
            "OPTIONS", "/score", headers=["Origin: https://a.example", "Access-Control-Request-Method: GET"]
        ),
        "preflight on POST": request(body="x", headers=["Origin: https://a.example", *_PREFLIGHT]),
        "preflight health": request("OPTIONS", "/", headers=["Origin: https://a.example", *_PREFLIGHT]),
        "preflight swagger": request("OPTIONS", "/swagger.json", headers=["Origin: https://a.example", *_PREFLIGHT]),
        "health": request("GET", "/", headers=["Origin: https://a.example"]),
        "swagger 404": request("GET", "/swagger.json?version=9", headers=["Origin: https://a.example"]),
        "GET": request("GET", "/score?a=1", headers=["Origin: https://a.example"]),
        "HEAD": request("HEAD", "/score", headers=["Origin: https://a.example"]),
        "404": request("GET", "/nope", headers=["Origin: https://a.example"]),
        "405": request("PUT", "/score", headers=["Origin: https://a.example"]),
        "431": request(body="x", headers=["Origin: https://a.example", f"x-request-id: {_LONG}"]),
        "failed": request(body="!value-error", headers=["Origin: https://a.example"]),
        "bad body": request(body=b"\xff", headers=["Origin: https://a.example"]),
        "two origins": request(body="x", headers=["Origin: https://a.example", "Origin: https://b.example"]),
        "empty origin": request(body="x", headers=["Origin:"]),
    }
)

# HTTP itself (contract 3 and 11)


def _bytes(*lines: str, body: bytes = b"") -> Request:
    return Request("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _post(*headers: str, body: bytes = b"") -> Request:
    return _bytes("POST /score HTTP/1.1", "Host: h", *headers, body=body)


def _chunked(body: bytes, *headers: str) -> Request:
    return _post("Transfer-Encoding: chunked", *headers, body=body)


TRANSPORT = {
    "chunked": _chunked(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
    "chunked empty": _chunked(b"0\r\n\r\n"),
    "chunked extension": _chunked(b"3;a=b\r\nabc\r\n0\r\n\r\n"),
    "chunked trailers": _chunked(b"3\r\nabc\r\n0\r\nX-Late: 1\r\n\r\n", "Trailer: X-Late"),
    "chunked upper": _post("Transfer-Encoding: Chunked", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
    "chunked GET": _bytes(
        "GET /score?a=1 HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"
    ),
    "chunked bad size": _chunked(b"zz\r\nabc\r\n0\r\n\r\n"),
    "chunked negative size": _chunked(b"-3\r\nabc\r\n0\r\n\r\n"),
    "chunked no end": _chunked(b"3\r\nabcdef\r\n0\r\n\r\n"),
    "chunked cut": Request(_chunked(b"5\r\nabc").data, closes_early=True),
    "chunked twice": _post("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "gzip coding": _post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "unknown coding": _post("Transfer-Encoding: nonsense", body=b"x"),
    "identity coding": _post("Transfer-Encoding: identity", "Content-Length: 1", body=b"x"),
    "both lengths": _post("Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "no length": _post(),
    "length twice": _post("Content-Length: 1", "Content-Length: 1", body=b"x"),
    "lengths differ": _post("Content-Length: 1", "Content-Length: 2", body=b"xy"),
    "length list": _post("Content-Length: 1, 1", body=b"x"),
    "length signed": _post("Content-Length: +1", body=b"x"),
    "length negative": _post("Content-Length: -1", body=b"x"),
    "length no number": _post("Content-Length: x", body=b"x"),
    "length empty": _post("Content-Length:", body=b""),
    "length zeros": _post("Content-Length: 0001", body=b"x"),
    "length hex": _post("Content-Length: 0x1", body=b"x"),
    "short body": Request(_post("Content-Length: 10", body=b"short").data, closes_early=True),
    "extra bytes": _post("Content-Length: 1", body=b"xyz"),
    "expect": _post("Expect: 100-continue", "Content-Length: 1", body=b"x"),
    "expect upper": _post("Expect: 100-Continue", "Content-Length: 1", body=b"x"),
    "expect GET": _bytes("GET /score?a=1 HTTP/1.1", "Host: h", "Expect: 100-continue"),
    "expect unknown": _post("Expect: something", "Content-Length: 1", body=b"x"),
    "HTTP/1.0": request(body="x", version="1.0"),
    "HTTP/1.0 GET": _bytes("GET / HTTP/1.0"),
    "HTTP/1.0 keep-alive": request(body="x", headers=["Connection: keep-alive"], version="1.0"),
    "HTTP/1.0 chunked": _bytes("POST /score HTTP/1.0", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n"),
    "HTTP/2.0": _bytes("GET / HTTP/2.0", "Host: h"),
    "HTTP/1.2": _bytes("GET / HTTP/1.2", "Host: h"),
    "HTTP/0.9": _bytes("GET /"),
    "no such protocol": _bytes("GET / FTP/1.1"),
    "connection close": request(body="x", headers=["Connection: close"]),
    "connection keep-alive": request(body="x", headers=["Connection: keep-alive"]),
    "upgrade": request(body="x", headers=["Connection: upgrade", "Upgrade: websocket"]),
    "upgrade with body": request(body="x" * 10, headers=["Connection: Upgrade", "Upgrade: h2c"]),
    "upgrade h2c": request("GET", "/", headers=["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"]),
    "no host": _bytes("POST /score HTTP/1.1", "Content-Length: 1", body=b"x"),
    "two hosts": _bytes("POST /score HTTP/1.1", "Host: a", "Host: b", "Content-Length: 1", body=b"x"),
    "empty host": _bytes("POST /score HTTP/1.1", "Host:", "Content-Length: 1", body=b"x"),
    "odd host": _bytes("POST /score HTTP/1.1", "Host: a b/c?", "Content-Length: 1", body=b"x"),
    "lower method": _bytes("post /score HTTP/1.1", "Host: h", "Content-Length: 1", body=b"x"),
    "odd method": _bytes("PO(ST /score HTTP/1.1", "Host: h"),
    "long method": _bytes("BREWBREWBREWBREWBREWBREW /score HTTP/1.1", "Host: h"),
    "no path": _bytes("GET  HTTP/1.1", "Host: h"),
    "no slash": _bytes("GET score HTTP/1.1", "Host: h"),
    "two spaces": _bytes("GET  / HTTP/1.1", "Host: h"),
    "space in path": _bytes("GET /a b HTTP/1.1", "Host: h"),
    "NUL in path": _bytes("GET /\0 HTTP/1.1", "Host: h"),
    "raw bytes in path": _bytes("GET /\xe4\xb8 HTTP/1.1", "Host: h"),
    "raw bytes in query": _bytes("GET /score?a=\xe9 HTTP/1.1", "Host: h"),
    "raw UTF-8 in query": _bytes("GET /score?a=\xc3\xa9 HTTP/1.1", "Host: h"),
    "obs-fold": _post("X-A: 1", " folded", "Content-Length: 1", body=b"x"),
    "space before colon": _post("X-A : 1", "Content-Length: 1", body=b"x"),
    "no colon": _post("X-A", "Content-Length: 1", body=b"x"),
    "empty name": _post(": 1", "Content-Length: 1", body=b"x"),
    "odd name": _post("X(A): 1", "Content-Length: 1", body=b"x"),
    "NUL in value": _post("X-A: a\0b", "Content-Length: 1", body=b"x"),
    "control in value": _post("X-A: a\x01b", "Content-Length: 1", body=b"x"),
    "CR in value": _post("X-A: a\rb", "Content-Length: 1", body=b"x"),
    "bare LF": Request(b"POST /score HTTP/1.1\nHost: h\nContent-Length: 1\n\nx"),
    "leading CRLF": Request(b"\r\n" + request(body="x").data),
    "long target": _bytes("GET /score?a=" + "x" * 4060 + " HTTP/1.1", "Host: h"),
    "longer target": _bytes("GET /score?a=" + "x" * 5000 + " HTTP/1.1", "Host: h"),
    "longest target": _bytes("GET /score?a=" + "x" * 9000 + " HTTP/1.1", "Host: h"),
    "long field": _post("X-A: " + "x" * 8000, "Content-Length: 1", body=b"x"),
    "longer field": _post("X-A: " + "x" * 9000, "Content-Length: 1", body=b"x"),
    "many fields": _post(*(f"X-{i}: 1" for i in range(98)), "Content-Length: 1", body=b"x"),
    "too many fields": _post(*(f"X-{i}: 1" for i in range(120)), "Content-Length: 1", body=b"x"),
    "not HTTP": Request(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", closes_early=True),
    "nothing": Request(b"", closes_early=True),
    "half a head": Request(b"POST /score HTT", closes_early=True),
    "pipelined": Request(request(body="x").data + request(body="y").data),
}
