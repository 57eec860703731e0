"""API keys: the file, the check, and what goes in and out while keys are needed."""

import gc
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.errors import ConfigurationError
from scoring_runtime.front import keys
from scoring_runtime.front.connection import Connection
from scoring_runtime.front.keys import KeyFile

KEY = "a-key-of-one"
OTHER = "the-key-of-another"


def line(key: str, name: str = "one") -> str:
    return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("# who may call\n\n" + line(KEY))
    return path


@pytest.fixture
def guarded(make_front, path):
    return make_front(key_file=KeyFile(str(path)))


def request(target: str = "/score", *lines: str, method: str = "POST", body: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: here", *lines, *length, "", ""]).encode() + body


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


# The file


def test_comments_and_blank_lines_and_margins_are_no_keys(path):
    path.write_text(f"\n  # x\n  {line(KEY).strip()}  \n\t\n{line(OTHER, 'two')}")
    assert len(KeyFile(str(path)).digests) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("# x\n\none\n", "line 3"),
        (line(KEY) + "two sha256:12\n", "line 2"),
        (line(KEY) + line(OTHER), "line 2: there are two keys named one"),
        (line(KEY).replace("sha256", "md5"), "line 1"),
        ("plain-text-secret\n", "line 1"),
    ],
)
def test_a_wrong_file_is_told_by_its_line_and_shows_nothing_of_it(path, text, complaint):
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as error:
        KeyFile(str(path))
    assert str(path) in error.value.message
    assert "secret" not in error.value.message


def test_a_file_that_is_none_is_told(path, tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        KeyFile(str(tmp_path / "missing"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        KeyFile(str(path))
    path.write_text("#" * (keys.MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        KeyFile(str(path))


def test_a_new_key_is_what_its_line_says():
    key, text = keys.make("me")
    assert keys.admits(keys.parse(text, "file"), [(b"Authorization", b"Bearer " + key.encode())])
    assert len(key) >= 43
    assert keys.make("me")[0] != key
    with pytest.raises(ConfigurationError, match="is no name"):
        keys.make("two words")


# The check


@pytest.mark.parametrize("value", [b"Bearer a-key-of-one", b"bearer a-key-of-one", b"BEARER   a-key-of-one\t"])
def test_a_key_is_known_however_its_scheme_is_written(value):
    assert keys.admits(keys.parse(line(OTHER, "two") + line(KEY), ""), [(b"X", b"y"), (b"aUTHORIZATION", value)])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"Authorization", b"")],
        [(b"Authorization", b"Bearer")],
        [(b"Authorization", b"Bearer ")],
        [(b"Authorization", b"a-key-of-one")],
        [(b"Authorization", b"Basic a-key-of-one")],
        [(b"Authorization", b"Bearer a-key-of-on")],
        [(b"Authorization", b"Bearer a-key-of-one2")],
        [(b"Authorization", b"Bearer a-key-of-one, Bearer a-key-of-one")],
        [(b"Authorization", b"Bearer a-key-of-one"), (b"authorization", b"Bearer a-key-of-one")],
        [(b"Proxy-Authorization", b"Bearer a-key-of-one")],
        [(b"X-Authorization", b"Bearer a-key-of-one")],
    ],
)
def test_anything_else_is_no_key(headers):
    assert not keys.admits(keys.parse(line(KEY), ""), headers)


@given(st.binary(max_size=60))
def test_no_other_bytes_are_a_key(value):
    assert keys.admits(keys.parse(line(KEY), ""), [(b"authorization", b"Bearer " + value)]) == (
        value.strip(b" \t") == KEY.encode()
    )


# Requests


def test_a_request_with_a_key_is_served_and_its_head_becomes_known(guarded):
    client = guarded.ask(request("/score", bearer(KEY), body=b"1"), request("/score", bearer(KEY), body=b"2"))
    assert [response.body for response in client.responses()] == [b"1", b"2"]
    assert len(guarded.server.known_heads) == 1


def test_a_key_is_shown_to_nobody_behind_the_check(guarded):
    guarded.server.scoring.wanted_headers = "all"
    guarded.connect().send(request("/score", bearer(KEY), "X-Other: yes", body=b"1"))
    (exchange,) = guarded.taken
    assert b"X-Other" in exchange.head
    assert b"uthorization" not in exchange.head
    assert KEY.encode() not in exchange.head


def test_without_a_key_file_authorization_is_the_scripts(front):
    front.server.scoring.wanted_headers = "all"
    front.connect().send(request("/score", bearer("for the script"), body=b"1"))
    assert b"Authorization: Bearer for the script" in front.taken[0].head


@pytest.mark.parametrize("lines", [(), (bearer("wrong"),), ("Authorization: Basic eDp5",), (bearer(KEY), bearer(KEY))])
@pytest.mark.parametrize(
    "target",
    [
        "/score",
        "/metrics",
        "/swagger.json",
        "/v2",
        "/v2/models/x",
        "/v2/models/x/infer",
        "/v2/x",
        "/nowhere",
        "/livez/x",
    ],
)
def test_without_a_key_all_paths_answer_the_same(guarded, target, lines):
    client = guarded.connect().send(request(target, *lines, method="GET"))
    response = client.response("GET")
    assert response.status == 401
    assert response.headers["www-authenticate"] == "Bearer"
    field = "error" if target.startswith("/v2") else "message"
    assert json.loads(response.body) == {field: keys.refusal().message}
    assert not client.open
    assert not guarded.server.known_heads


def test_a_body_without_a_key_is_refused_at_its_head_and_not_kept(guarded):
    client = guarded.connect().send(request(body=b"x" * 50_000)[:200])
    assert client.response().status == 401
    for _ in range(100):
        client.send(b"x" * 1000)
    assert client.connection.body == []
    assert client.connection.body_bytes == 0
    assert client.response().status == 401
    assert guarded.taken == []


def test_what_follows_an_unauthorised_request_is_not_read(guarded):
    client = guarded.connect().send(request(body=b"x") + request("/score", bearer(KEY), body=b"y"))
    assert client.response().status == 401
    assert guarded.taken == []


def test_a_client_that_would_wait_for_100_continue_hears_401_instead(guarded):
    client = guarded.connect().send(request("/score", "Expect: 100-continue", body=b"12345")[:-5])
    assert client.response().status == 401


def test_a_body_that_is_too_large_is_no_concern_of_who_has_no_key(make_front, path):
    front = make_front(key_file=KeyFile(str(path)), max_body_bytes=4)
    assert front.connect().send(request(body=b"12345")).response().status == 401
    assert front.connect().send(request("/score", bearer(KEY), body=b"12345")).response().status == 413


def test_an_offer_to_upgrade_is_no_way_past_the_check(guarded):
    lines = ("Connection: upgrade", "Upgrade: h2c")
    assert guarded.connect().send(request("/score", *lines, body=b"x")).response().status == 401
    assert guarded.ask(request("/score", bearer(KEY), *lines, body=b"x")).response().body == b"x"


@pytest.mark.parametrize(
    "target",
    ["/", "/livez", "/readyz", "/startupz", "//livez", "http://here/livez", "/v2/health/live", "/v2/health/ready"],
)
def test_probes_need_no_key(guarded, target):
    assert guarded.connect().send(request(target, method="GET")).response("GET").status in (200, 503)


def test_the_details_of_probes_need_one(guarded):
    pieces = [request("/readyz?verbose", *lines, method="GET") for lines in ((), (bearer(KEY),), (), (bearer(KEY),))]
    guarded.server.pool.describe = lambda: ["scorer 1: busy"]
    bodies = [response.body for response in guarded.connect().send(*pieces).responses("GET", "GET", "GET", "GET")]
    assert [b"scorer 1" in body for body in bodies] == [False, True, False, True]


@pytest.mark.parametrize("length", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("method", "target"), [("GET", "/livez"), ("OPTIONS", "/score")])
def test_what_needs_no_key_brings_no_body(guarded, method, target, length):
    assert guarded.connect().send(request(target, length, method=method)).response(method).status == 401


def test_a_browser_may_ask_before_it_sends_a_key(make_front, path):
    front = make_front(key_file=KeyFile(str(path)), hello={"engine": "script"}, cors_origins="https://a.example")
    front.server.pool.info = {"headers": "all", "methods": ["GET", "POST", "OPTIONS"]}
    asks = ("Origin: https://a.example", "Access-Control-Request-Method: POST")
    client = front.connect().send(
        request("/score", *asks, "Access-Control-Request-Headers: authorization", method="OPTIONS")
    )
    response = client.response("OPTIONS")
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-headers"] == "authorization"
    assert front.taken == []  # the script's own OPTIONS is behind the check
    front.connect().send(request("/score", bearer(KEY), method="OPTIONS"))
    assert len(front.taken) == 1


def test_a_refusal_can_be_read_by_browsers_and_traced(make_front, path):
    front = make_front(key_file=KeyFile(str(path)), hello={"engine": "script"}, cors_origins="https://a.example")
    client = front.connect().send(
        request("/score", "Origin: https://a.example", "x-ms-client-request-id: 7", body=b"x")
    )
    response = client.response()
    assert response.status == 401
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["x-ms-client-request-id"] == "7"


# Changes


def test_a_key_that_was_taken_away_opens_nothing_more_even_on_an_open_connection(guarded, path):
    client = guarded.ask(request("/score", bearer(KEY), body=b"1"))
    path.write_text(line(OTHER))
    guarded.pass_time(1.1)
    client.send(request("/score", bearer(KEY), body=b"2"))
    guarded.echo()
    assert [response.status for response in client.responses()] == [200, 401]
    assert guarded.ask(request("/score", bearer(OTHER), body=b"3")).response().body == b"3"


def test_heads_stay_known_when_only_comments_change(guarded, path):
    guarded.ask(request("/score", bearer(KEY), body=b"1"))
    path.write_text("# another comment\n" + line(KEY))
    guarded.pass_time(1.1)
    assert guarded.server.known_heads


@pytest.mark.parametrize("spoil", ["empty", "broken", "gone"])
def test_a_spoilt_file_changes_nothing_and_is_told_once(guarded, path, caplog, monkeypatch, spoil):
    monkeypatch.setattr(keys.logger, "propagate", True)
    if spoil == "gone":
        path.unlink()
    else:
        path.write_text("" if spoil == "empty" else "one sha256:\n")
    for _ in range(5):
        guarded.pass_time(1.1)
    assert guarded.ask(request("/score", bearer(KEY), body=b"1")).response().status == 200
    complaints = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(complaints) == 1
    assert str(path) in complaints[0].getMessage()
    path.write_text(line(OTHER))
    guarded.pass_time(1.1)
    assert guarded.connect().send(request("/score", bearer(KEY), body=b"1")).response().status == 401
    path.unlink()
    guarded.pass_time(1.1)
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 2


def test_nothing_of_a_refused_client_is_kept(guarded):
    """One exception for all refusals kept the frames of each: a client without a key could fill the memory."""
    for _ in range(20):
        client = guarded.ask(request(body=b"x"))
        assert client.response().status == 401
        client.leave()
    del client
    gc.collect()
    assert sum(type(thing) is Connection and thing.server is guarded.server for thing in gc.get_objects()) <= 1
