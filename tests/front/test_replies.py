"""What a scorer says, and what of it reaches the wire. A scorer runs user code: it is not trusted to speak HTTP."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring_runtime.scorer.frames import (
    FLAG_ABORT,
    FLAG_MORE,
    FLAG_NO_FAILED_HEADER,
    FLAG_RUN_FAILED,
    FLAG_RUN_RETURNED,
)

POST = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\nx"
POST_10 = b"POST /score HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx"
HEAD = b"HEAD /score HTTP/1.1\r\nHost: here\r\n\r\n"
GET_ROOT = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
FRONT_ONLY = ["content-length", "transfer-encoding", "connection", "date", "server", "keep-alive"]


def answer(front: Any, **reply: Any) -> Any:
    client = front.connect().send(POST)
    front.reply(front.taken[0], **reply)
    return client


# Heads


def test_the_headers_of_a_reply_are_those_of_the_response(front):
    client = answer(front, body=b"a,b", status=201, head=b"content-type: text/csv\nX-Mine: 1 2\nx-empty:")
    response = client.response()
    assert (response.status, response.body) == (201, b"a,b")
    assert response.headers["content-type"] == "text/csv"
    assert (response.headers["x-mine"], response.headers["x-empty"]) == ("1 2", "")
    assert client.open


@pytest.mark.parametrize(
    "line",
    [
        b"X-Bad: 1\rX-Injected: 2",
        b"X-Bad: 1\0",
        b"X-Bad: 1\x0e2",
        b"X-Bad: \x7f",
        b"X-Bad: \x1b[31mred",
        b"X Bad: 1",
        b"X-Bad : 1",
        b" X-Bad: 1",
        b": no name",
        b"no colon",
        b"",
        b"X-B\xc3\xa4d: 1",
        b"X-Bad\r: 1",
        b"HTTP/1.1 200 OK",
    ],
)
def test_a_line_that_is_no_header_never_reaches_the_wire(front, line):
    client = answer(front, head=b"X-Good: 1\n" + line + b"\nX-Also-Good: 2")
    names = set(client.response().headers)
    assert {"x-good", "x-also-good"} <= names
    assert not {"x-bad", "x-injected"} & names
    assert client.send(GET_ROOT).responses()[-1].body == b"Healthy"


@pytest.mark.parametrize("name", FRONT_ONLY)
def test_how_the_message_travels_is_not_for_a_scorer_to_say(front, name):
    client = answer(front, body=b"four", head=f"{name.title()}: 99999".encode())
    response = client.response()
    assert response.body == b"four"
    assert response.headers.get(name) != "99999"
    assert client.open


def test_content_types_of_a_script_are_sent_as_it_gave_them(front):
    client = answer(front, head=b"content-type: application/json\nContent-Type: application/problem+json")
    assert client.wire.sent.lower().count(b"content-type:") == 2


heads = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.builds(
            lambda name, middle, value: name + middle + value,
            st.sampled_from(
                [b"X-A", b"Content-Type", b"Content-Length", b"Transfer-Encoding", b"Set-Cookie", b"\r\nX"]
            ),
            st.sampled_from([b":", b": ", b" :", b":\r\n", b"\r\n\r\n", b":\0", b":\n"]),
            st.binary(max_size=10),
        ),
        max_size=4,
    ).map(b"\n".join),
)


@settings(max_examples=300, deadline=None)
@given(head=heads, body=st.binary(max_size=20), status=st.sampled_from([200, 201, 204, 304, 400, 418, 500, 599]))
@example(head=b"X: a\r\n\r\nHTTP/1.1 200 OK", body=b"", status=200)
def test_whatever_a_scorer_says_a_client_reads_one_whole_response(make_front, head, body, status):
    front = make_front()
    client = answer(front, head=head, body=body, status=status)
    sent_head, _, sent_body = bytes(client.wire.sent).partition(b"\r\n\r\n")
    length = re.findall(rb"(?im)^content-length: (\d+)\r?$", sent_head)
    assert sent_head.startswith(b"HTTP/1.1 %d " % status)
    assert not re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", sent_head)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", sent_head)
    assert b"ransfer-Encoding" not in sent_head
    if status in (204, 304):
        assert (length, sent_body) == ([], b"")
    else:
        assert (length, sent_body) == ([b"%d" % len(body)], body)
    before = len(client.wire.sent)
    assert client.send(GET_ROOT).wire.sent[before:].endswith(b"\r\n\r\nHealthy")


# Statuses


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, 65535])
def test_a_status_that_no_response_can_have_is_the_scorers_error(front, status):
    client = answer(front, status=status, body=b"odd")
    assert client.response().status == 500
    assert client.open
    assert answer(front, body=b"fine").response().body == b"fine"


def test_a_stream_with_such_a_status_is_one_too(front):
    client = front.connect().send(POST)
    (exchange,) = front.taken
    scorer = front.piece(exchange, b"one", FLAG_MORE, status=101)
    front.piece(exchange, b"", 0)
    assert client.response().status == 500
    assert scorer.controls == [("cancel", 1)]
    assert client.open


@pytest.mark.parametrize("status", [299, 600, 999])
def test_a_status_without_a_name_is_passed_on(front, status):
    assert answer(front, status=status).response().status == status


# Pieces


def pieces(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[2]


def test_pieces_go_out_as_they_come_and_the_next_is_pulled(front):
    client = front.connect().send(POST)
    (exchange,) = front.taken
    scorer = front.piece(exchange, b"one", FLAG_MORE, status=201, head=b"content-type: text/plain")
    assert pieces(client.wire.sent) == b"3\r\none\r\n"
    assert scorer.controls == [("pull", 1)]
    front.piece(exchange, b"two", FLAG_MORE)
    front.piece(exchange, b"", 0)
    response = client.response()
    assert (response.status, response.headers["content-type"], response.body) == (201, "text/plain", b"onetwo")
    assert scorer.controls == [("pull", 1), ("pull", 1)]
    assert client.send(GET_ROOT).responses()[-1].body == b"Healthy"


def test_http_10_gets_pieces_until_the_connection_ends(front):
    client = front.connect().send(POST_10)
    (exchange,) = front.taken
    front.piece(exchange, b"one", FLAG_MORE)
    front.piece(exchange, b"two", FLAG_MORE)
    front.piece(exchange, b"", 0)
    assert b"ransfer-Encoding" not in client.wire.sent
    assert b"Connection: close" in client.wire.sent
    assert pieces(client.wire.sent) == b"onetwo"
    assert client.wire.lost


def test_head_gets_no_pieces_and_the_scorer_is_told_to_stop(front):
    front.server.pool.info = {"methods": ["GET", "HEAD", "POST"]}
    client = front.connect().send(HEAD)
    (exchange,) = front.taken
    scorer = front.piece(exchange, b"one", FLAG_MORE)
    front.piece(exchange, b"", 0)
    assert scorer.controls == [("cancel", 1)]
    assert client.response("HEAD").body == b""
    assert client.send(GET_ROOT).responses("HEAD", "GET")[-1].body == b"Healthy"


def test_pieces_wait_for_the_answers_before_them(front):
    client = front.connect().send(POST + POST + GET_ROOT)
    first, second = front.taken
    scorer = front.piece(second, b"one", FLAG_MORE)
    assert client.wire.sent == b""
    assert scorer.controls == []
    front.reply(first, b"first")
    assert scorer.controls == [("pull", 2)]
    front.piece(second, b"two", FLAG_MORE)
    front.piece(second, b"", 0)
    assert [response.body for response in client.responses()] == [b"first", b"onetwo", b"Healthy"]


def test_a_client_that_does_not_read_holds_the_pieces_up(front):
    client = front.connect().send(POST)
    (exchange,) = front.taken
    client.connection.pause_writing()
    scorer = front.piece(exchange, b"one", FLAG_MORE)
    assert scorer.controls == []
    client.connection.resume_writing()
    assert scorer.controls == [("pull", 1)]


def test_a_client_that_leaves_between_pieces_cancels_the_rest(front):
    client = front.connect().send(POST)
    (exchange,) = front.taken
    client.connection.pause_writing()
    scorer = front.piece(exchange, b"one", FLAG_MORE)
    client.leave()
    assert scorer.controls == [("cancel", 1)]


def test_a_client_that_leaves_while_a_piece_is_made_cancels_the_rest(front):
    client = front.connect().send(POST)
    (exchange,) = front.taken
    scorer = front.piece(exchange, b"one", FLAG_MORE)
    client.leave()
    front.piece(exchange, b"two", FLAG_MORE)
    assert scorer.controls == [("pull", 1), ("cancel", 1)]
    front.piece(exchange, b"", 0)
    assert scorer.controls == [("pull", 1), ("cancel", 1)]


@pytest.mark.parametrize("data", [POST, POST_10])
def test_a_reply_that_breaks_off_is_never_taken_for_the_whole(front, data):
    client = front.connect().send(data)
    (exchange,) = front.taken
    front.piece(exchange, b"one", FLAG_MORE)
    front.piece(exchange, b"", FLAG_ABORT)
    assert client.wire.aborted
    assert not client.wire.sent.endswith(b"0\r\n\r\n")


def test_a_scorer_that_dies_between_pieces_breaks_the_reply_off(front):
    client = front.connect().send(POST)
    (exchange,) = front.taken
    scorer = front.piece(exchange, b"one", FLAG_MORE)
    front.lose(scorer, begun=1)
    assert client.wire.aborted
    assert front.taken == []


# Where the contract for scripts holds

SCRIPT = {"engine": "script", "target": "/somewhere/score.py"}


@pytest.mark.parametrize(
    ("flags", "failed"),
    [
        (FLAG_RUN_RETURNED, "False"),
        (0, "False"),
        (FLAG_RUN_FAILED, "True"),
        (FLAG_RUN_RETURNED | FLAG_NO_FAILED_HEADER, None),
    ],
)
@pytest.mark.parametrize("data", [POST, POST_10])
def test_flags_become_headers(make_front, flags, failed, data):
    front = make_front(hello=SCRIPT, log_level="error")
    client = front.connect().send(data)
    front.reply(front.taken[0], b"1", flags=flags)
    headers = client.response().headers
    assert headers.get("x-ms-run-function-failed") == failed
    assert ("x-ms-run-fn-exec-ms" in headers) is bool(flags & FLAG_RUN_RETURNED)
    assert headers["x-request-id"]


def test_a_known_head_with_an_id_has_that_id_repeated_each_time(make_front):
    front = make_front(hello=SCRIPT, log_level="error")
    data = POST.replace(b"Host: here", b"X-Request-Id: mine")
    client = front.ask(data, data, POST, POST)
    ids = [response.headers["x-request-id"] for response in client.responses()]
    assert ids[:2] == ["mine", "mine"]
    assert len(set(ids)) == 3


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["X-Request-Id", "x-ms-request-id", "x-ms-client-request-id", "TraceId", "Origin"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=255, blacklist_categories=["Cc"]), max_size=110),
        ),
        max_size=5,
    )
)
def test_whatever_ids_a_client_sends_it_reads_one_whole_response(make_front, headers):
    front = make_front(hello=SCRIPT, log_level="error", cors_origins="https://a.example, https://.*")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
    client = front.ask(POST.replace(b"Host: here\r\n", lines))
    assert client.response().status in (200, 431)
    client.send(GET_ROOT)
    assert client.responses()[-1].body == b"Healthy"


# The control plane


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/metrics", 200),
        (b"/v2", 200),
        (b"/v2/models/none", 404),
        (b"/v2/models/a/b/c", 404),
        (b"/v2/models/%ff%00", 404),
        (b"/v2/models/\xff", 400),
        (b"http://[/metrics", 200),
        (b"http://here:99999999/metrics", 200),
        (b"//metrics", 200),
        (b"/metrics?%ff=[", 200),
        (b"/metrics?\xff", 400),
        (b"/metrics#fragment", 200),
    ],
)
def test_the_control_plane_answers_whatever_the_target(make_front, target, status):
    async def converse() -> Any:
        front = make_front()
        client = front.connect().send(b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % target)
        await asyncio.wait_for(client.wire.wrote.wait(), 10)
        front.server.control.close()
        return client.response()

    assert asyncio.run(converse()).status == status
