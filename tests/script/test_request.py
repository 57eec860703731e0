import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.scorer.script.request import BadRequestError, Head, Headers, Request, query_values, wsgi_environ

TOKENS = st.text("abcXYZ019-", min_size=1)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")).map(str.strip)


def values_of(query: str) -> dict[str, object]:
    return query_values(Head(f"/score?{query}".encode("latin-1")))


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {}),
        ("a=1&b=[1,2]&c=a&d=null", {"a": 1, "b": [1, 2], "c": "a", "d": None}),
        ("a=", {"a": ""}),
        ("a", {"a": ""}),
        ("a=1&A=2&a=x&a=2", {"a": [1, "x", 2], "A": 2}),
        ("a=1e3&b=true&c=%22q%22", {"a": 1000.0, "b": True, "c": "q"}),
        ("a=%ff%fe", {"a": "%FF%FE"}),
        ("a=b+c%2B", {"a": "b c+"}),
        ("a=" + "[" * 100000, {"a": "[" * 100000}),
    ],
)
def test_query_values(query: str, values: dict[str, object]) -> None:
    assert values_of(query) == values


@given(st.dictionaries(TOKENS, st.recursive(st.none() | st.booleans() | st.integers(), st.lists, max_leaves=5)))
def test_json_values_in_a_query_come_back(values: dict[str, object]) -> None:
    assert values_of("&".join(name + "=" + json.dumps(value) for name, value in values.items())) == values


@given(st.lists(st.tuples(TOKENS, VALUES)))
def test_header_lines_come_back(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(
        ["/score", ":remote-addr: 9.8.7.6", ":scheme: https", *(f"{name}: {value}" for name, value in lines)]
    )

    head = Head(text.encode("latin-1"))

    assert (head.target, head.remote_addr, head.scheme, head.lines) == ("/score", "9.8.7.6", "https", lines)


def test_headers_as_run_gets_them() -> None:
    head = Head(b"/score\ntest-header: a\nx-9lives: 1\nDNT: 1\nTEST-HEADER: b\nhidden_name: x\ncontent-type:\nempty:")

    assert head.header_items() == {"Test-Header": "a,b", "X-9Lives": "1", "Dnt": "1", "Empty": ""}


def make(head: bytes, body: bytes = b"", method: str = "POST") -> Request:
    return Request(method, Head(head), body)


def test_the_request_object_has_the_documented_attributes() -> None:
    request = make(
        b'/a%20b/score?x=1&x=2&y\n:remote-addr: 1.2.3.4\n:scheme: https\nhost: h:5001\ncookie: a=1; b="q"; c\n'
        b"content-type: application/json; charset=utf-8\ncontent-length: 9",
        b'{"a": 1}\n',
    )

    assert request.method == "POST"
    assert (request.path, request.full_path) == ("/a b/score", "/a b/score?x=1&x=2&y")
    assert (request.url, request.base_url) == ("https://h:5001/a b/score?x=1&x=2&y", "https://h:5001/a b/score")
    assert (request.args, request.args.getlist("x")) == ({"x": "1", "y": ""}, ["1", "2"])
    assert (request.headers["HOST"], request.headers.get("absent", "d"), "Cookie" in request.headers) == (
        "h:5001",
        "d",
        True,
    )
    assert request.json == request.get_json() == {"a": 1}
    assert request.data == request.get_data() == request.stream.read() == b'{"a": 1}\n'
    assert request.get_data(as_text=True) == '{"a": 1}\n'
    assert (request.content_type, request.mimetype) == ("application/json; charset=utf-8", "application/json")
    assert (request.content_length, request.remote_addr) == (9, "1.2.3.4")
    assert request.cookies == {"a": "1", "b": "q", "c": ""}
    assert request.form == request.files == {}
    assert request.is_secure


def test_an_absolute_target_does_not_override_the_host() -> None:
    assert make(b"http://other/score?a=1\nhost: here").url == "http://here/score?a=1"


def test_json_needs_its_content_type_unless_forced() -> None:
    request = make(b"/score\ncontent-type: text/plain", b"[1]")

    with pytest.raises(BadRequestError, match="text/plain"):
        _ = request.json
    assert request.get_json(silent=True) is None
    assert request.get_json(force=True) == [1]


def test_json_that_is_none() -> None:
    request = make(b"/score\ncontent-type: application/json", b"\xff{")

    with pytest.raises(BadRequestError, match="not JSON"):
        _ = request.json
    assert request.get_json(silent=True) is None


def test_forms() -> None:
    request = make(b"/score?q=0\ncontent-type: application/x-www-form-urlencoded", b"a=1&a=2&b=x")

    assert (request.form, request.form.getlist("a")) == ({"a": "1", "b": "x"}, ["1", "2"])
    assert (request.data, request.get_data()) == (b"", b"a=1&a=2&b=x")
    assert request.values == {"q": "0", "a": "1", "b": "x"}


def test_uploads() -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n\0\r\n1\r\n--B--'
    request = make(b"/score\ncontent-type: multipart/form-data; boundary=B", body)

    assert request.files["f"].read() == b"\0\r\n1"
    assert request.files["f"].filename == "x.png"
    assert request.form == {}


def test_headers_keep_order_and_repetition() -> None:
    headers = Headers({"A": "1"})
    headers.add("a", "2")
    headers["B"] = "3"

    assert headers.getlist("A") == ["1", "2"]
    headers.set("A", "4")
    assert headers.items() == list(headers) == [("B", "3"), ("A", "4")]
    del headers["b"]
    assert (len(headers), headers.keys(), headers.values(), "b" in headers) == (1, ["A"], ["4"], False)
    with pytest.raises(KeyError):
        _ = headers["B"]
    assert headers.get("a", type=int) == 4


def test_wsgi_environ() -> None:
    head = Head(b"/sc%C3%A9?a=%20\n:remote-addr: 1.1.1.1\n:scheme: http\nhost: h:81\ncontent-type: a/b\nx-y: 1\nx-y: 2")

    environ = wsgi_environ("PUT", head, memoryview(b"body"))

    assert environ["wsgi.input"].read() == b"body"
    for name, value in {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": "/sc\xc3\xa9",
        "QUERY_STRING": "a=%20",
        "SERVER_NAME": "h",
        "SERVER_PORT": "81",
        "REMOTE_ADDR": "1.1.1.1",
        "CONTENT_TYPE": "a/b",
        "HTTP_X_Y": "1,2",
        "HTTP_HOST": "h:81",
    }.items():
        assert environ[name] == value
