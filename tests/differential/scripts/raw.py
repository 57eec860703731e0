"""@rawhttp with every form of answer. The query says which: /score?do=text."""

import asyncio
import json

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def pieces(*values):
    for value in values:
        yield value


def fails_at_once():
    raise ValueError("at once")
    yield b"never"


def fails_later():
    yield b"first piece, "
    yield b"second piece"
    raise ValueError("later")


def fails_after_one():
    yield "one"
    raise SystemExit(1)


class Pieces:
    def __iter__(self):
        return iter([b"a", b"b"])


DO = {
    "text": lambda: AMLResponse("text", 200),
    "empty": lambda: AMLResponse("", 200),
    "unicode": lambda: AMLResponse("\u00e9\u4e2d", 200),
    "bytes": lambda: AMLResponse(b"\x00\xff", 200, {"Content-Type": "application/octet-stream"}),
    "bytearray": lambda: AMLResponse(bytearray(b"ab"), 200),
    "none": lambda: AMLResponse(None, 200),
    "none-500": lambda: AMLResponse(None, 500),
    "json": lambda: AMLResponse({"a": [1, "\u00e9"]}, 201, json_str=True),
    "json-string": lambda: AMLResponse("s", 200, {}, True),
    "json-none": lambda: AMLResponse(None, 200, json_str=True),
    "json-content-type": lambda: AMLResponse([1], 200, {"Content-Type": "application/problem+json"}, json_str=True),
    "json-bad": lambda: AMLResponse(object(), 200, json_str=True),
    "dict-not-json": lambda: AMLResponse({"key1": 1, "key2": 2}, 200),
    "list": lambda: AMLResponse(["a", "b"], 200),
    "list-of-int": lambda: AMLResponse([1, 2], 200),
    "int": lambda: AMLResponse(5, 200),
    "object": lambda: AMLResponse(object(), 200),
    "content-type-lower": lambda: AMLResponse("x", 200, {"content-type": "text/csv"}),
    "charset": lambda: AMLResponse("x", 200, {"Content-Type": "text/plain; charset=latin-1"}),
    "headers": lambda: AMLResponse("x", 200, {"X-One": "1", "x-two": "a, b,c", "X-Empty": ""}),
    "header-date": lambda: AMLResponse("x", 200, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "header-latin": lambda: AMLResponse("x", 200, {"X-Name": "caf\u00e9"}),
    "header-wide": lambda: AMLResponse("x", 200, {"X-Name": "\u4e2d"}),
    "header-newline": lambda: AMLResponse("x", 200, {"X-Name": "a\r\nX-Evil: 1"}),
    "header-name-newline": lambda: AMLResponse("x", 200, {"X-Na\r\nme": "a"}),
    "header-name-space": lambda: AMLResponse("x", 200, {"X Name": "a"}),
    "header-int": lambda: AMLResponse("x", 200, {"X-Name": 5}),
    "header-length": lambda: AMLResponse("x", 200, {"Content-Length": "1"}),
    "header-length-wrong": lambda: AMLResponse("x", 200, {"Content-Length": "5"}),
    "header-request-id": lambda: AMLResponse("x", 200, {"x-request-id": "mine", "x-ms-request-id": "mine"}),
    "header-client-id": lambda: AMLResponse("x", 200, {"x-ms-client-request-id": "mine"}),
    "header-version": lambda: AMLResponse("x", 200, {"x-ms-server-version": "mine"}),
    "header-exec": lambda: AMLResponse("x", 200, {"x-ms-run-fn-exec-ms": "mine"}),
    "header-failed": lambda: AMLResponse("x", 200, {"x-ms-run-function-failed": "maybe"}),
    "header-failed-500": lambda: AMLResponse("x", 500, {"x-ms-run-function-failed": "maybe"}),
    "header-cookies": lambda: AMLResponse("x", 200, {"Set-Cookie": "a=1; Path=/,b=2"}),
    "header-allow-origin": lambda: AMLResponse("x", 200, {"Access-Control-Allow-Origin": "*"}),
    "failed": lambda: AMLResponse("x", 200, run_function_failed=True),
    "failed-text": lambda: AMLResponse("x", 200, run_function_failed="nearly"),
    "status-202": lambda: AMLResponse("x", 202),
    "status-204": lambda: AMLResponse("x", 204),
    "status-304": lambda: AMLResponse("x", 304),
    "status-400": lambda: AMLResponse({"error": "bad"}, 400, json_str=True),
    "status-404": lambda: AMLResponse("no", 404),
    "status-418": lambda: AMLResponse("teapot", 418),
    "status-499": lambda: AMLResponse("x", 499),
    "status-500": lambda: AMLResponse("x", 500),
    "status-503": lambda: AMLResponse("x", 503, {"Retry-After": "5"}),
    "status-599": lambda: AMLResponse("x", 599),
    "status-600": lambda: AMLResponse("x", 600),
    "status-text": lambda: AMLResponse("x", "201 Made"),
    "status-text-bad": lambda: AMLResponse("x", "made"),
    "status-none": lambda: AMLResponse("x", None),
    "no-status": lambda: AMLResponse("x"),
    "stream": lambda: AMLResponse(pieces(b"one,", "two,", b"three"), 200),
    "stream-json": lambda: AMLResponse(pieces('{"a": 1}\n'), 200, {"Content-Type": "application/x-ndjson"}),
    "stream-empty": lambda: AMLResponse(pieces(), 200),
    "stream-empty-pieces": lambda: AMLResponse(pieces(b"", b"a", b"", b"b"), 200),
    "stream-500": lambda: AMLResponse(pieces("late"), 500),
    "stream-204": lambda: AMLResponse(pieces("late"), 204),
    "stream-length": lambda: AMLResponse(pieces("12", "345"), 200, {"Content-Length": "5"}),
    "stream-fails-at-once": lambda: AMLResponse(fails_at_once(), 200),
    "stream-fails-later": lambda: AMLResponse(fails_later(), 200),
    "stream-fails-exit": lambda: AMLResponse(fails_after_one(), 200),
    "stream-bad-piece": lambda: AMLResponse(pieces(b"a", 5), 200),
    "iterable": lambda: AMLResponse(Pieces(), 200),
    "map": lambda: AMLResponse(map(str, [1, 2]), 200),
    "plain-dict": lambda: {"a": 1},
    "plain-none": lambda: None,
    "plain-str": lambda: "s",
    "plain-bytes": lambda: b"b",
    "plain-tuple": lambda: ("x", 404),
    "data": lambda: with_data(),
    "set-headers": lambda: with_headers(),
    "attributes": lambda: attributes(),
    "subclass": lambda: isinstance(AMLResponse("x", 200), AMLResponse) and AMLRequest is not None,
}


def with_data():
    response = AMLResponse("before", 200)
    response.data = b"after"
    response.status_code = 203
    response.content_type = "text/plain"
    return response


def with_headers():
    response = AMLResponse("x", 200)
    response.headers["X-Set"] = "1"
    response.headers.add("X-Added", "2")
    response.headers.add("X-Added", "3")
    response.headers.pop("nothing", None)
    return response


def attributes():
    response = AMLResponse({"a": 1}, 201, {"X-One": "1"}, json_str=True)
    return [response.status_code, response.get_data(as_text=True), response.headers["x-one"], response.is_json]


@rawhttp
def run(request):
    if request.args.get("do") == "raise":
        raise ValueError("x")
    return DO[request.args["do"]]()
