"""What holds for every stream: however it is cut, it is answered alike, and garbage never raises.

This guards the shortcut for heads that are known: the same server sees the same heads again and again here.
"""

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring_runtime.front import connection


def message(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


def post(body: bytes, *lines: str, version: str = "1.1") -> bytes:
    head = "\n".join([f"POST /score HTTP/{version}", "Host: here", *lines, f"Content-Length: {len(body)}"])
    return message(head, body)


def chunked(body: bytes, *lines: str, trailer: bytes = b"") -> bytes:
    head = "\n".join(["POST /score HTTP/1.1", "Host: here", *lines, "Transfer-Encoding: chunked"])
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return message(head, chunks + b"0\r\n" + trailer + b"\r\n")


bodies = st.sampled_from([b"", b"1", b"2", b"[1]", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0\xff" * 20])
valid = st.one_of(
    bodies.map(post),
    bodies.map(post),
    bodies.map(chunked),
    st.builds(post, bodies, st.sampled_from(["X-Request-Id: 1", "Accept: */*", "content-type: application/json"])),
    st.builds(chunked, bodies, trailer=st.just(b"X-Late: yes\r\n")),
    st.builds(post, bodies, st.just("Connection: Upgrade, HTTP2-Settings"), st.just("Upgrade: h2c")),
    st.builds(chunked, bodies, st.just("Connection: upgrade"), st.just("Upgrade: websocket")),
    st.builds(post, bodies, st.just("Connection: keep-alive"), version=st.just("1.0")),
    st.sampled_from(
        [
            message("GET / HTTP/1.1"),
            message("GET /livez?x HTTP/1.1\nHost: here"),
            message("GET /nowhere HTTP/1.1\nHost: here"),
            message("PUT /score HTTP/1.1\nHost: here\nContent-Length: 3", b"abc"),
            message("POST /score HTTP/1.1\nHost: here"),
            message("POST http://here/score HTTP/1.1\nHost: here\nContent-Length: 1", b"x"),
            message("OPTIONS /livez HTTP/1.1\nHost: here"),
            b"\r\n" + post(b"after an empty line"),
            b"\r\n\r\n" + post(b"1"),
        ]
    ),
)
last = st.sampled_from(
    [
        b"",
        post(b"last", version="1.0"),
        post(b"last", "Connection: close"),
        post(b"last", "Connection: close") + post(b"too late"),
        b"nonsense\r\n\r\n" + post(b"too late"),
        message("POST /score HTTP/1.1\nTransfer-Encoding: gzip") + b"0\r\n\r\n",
        message("POST /score HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked", b"x"),
        message("GET / HTTP/2.0"),
        b"POST /score HTTP/1.1\r\nContent-Le",
        post(b"12345")[:-1],
    ]
)


def cut(messages: list[bytes], cuts: list[int], whole: list[bool]) -> list[bytes]:
    """The stream in pieces: some that end where messages do, some that end anywhere."""
    stream = b"".join(messages)
    edges = {0, len(stream), *(at % (len(stream) + 1) for at in cuts)}
    end = 0
    for one, at_its_end in zip(messages, whole, strict=False):
        end += len(one)
        if at_its_end:
            edges.add(end)
    ordered = sorted(edges)
    return [stream[begin:end] for begin, end in itertools.pairwise(ordered)]


@settings(max_examples=250, deadline=None)
@given(
    messages=st.lists(valid, min_size=1, max_size=12),
    ending=last,
    ways=st.lists(
        st.tuples(
            st.lists(st.integers(0, 3000), max_size=8),
            st.lists(st.booleans(), min_size=13, max_size=13),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_stream_is_answered_alike_however_it_is_cut(make_front, messages, ending, ways):
    expected = converse(make_front(), [b"".join([*messages, ending])], False)
    front = make_front()
    for cuts, whole, answers_at_once in ways:
        assert converse(front, cut([*messages, ending], cuts, whole), answers_at_once) == expected


@settings(max_examples=100, deadline=None)
@given(messages=st.lists(valid, min_size=1, max_size=60), ending=last, piece_bytes=st.integers(1, 500))
def test_much_at_once_is_answered_alike_in_pieces_of_any_size(make_front, messages, ending, piece_bytes):
    stream = b"".join([*messages, ending])
    expected = converse(make_front(), [stream], False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "MAX_PIECE_BYTES", piece_bytes)
        assert converse(make_front(), [stream], False) == expected


def converse(front: Any, pieces: list[bytes], answers_at_once: bool) -> tuple[list[bytes], bool]:
    """What a new client is sent, and whether it may go on."""
    client = front.connect()
    for piece in pieces:
        client.send(piece)
        if answers_at_once:
            front.echo()
    front.echo()
    return without_date(client.wire.sent), client.open


def without_date(data: bytes | bytearray) -> list[bytes]:
    return [line for line in bytes(data).split(b"\r\n") if not line.startswith(b"Date: ")]


expecting = st.just(post(b"123", "Expect: 100-continue"))


@settings(max_examples=200, deadline=None)
@given(
    few=st.lists(st.one_of(valid, expecting), min_size=1, max_size=4),
    order=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["alone", "with the next", "reconnect"])), max_size=20),
)
@example(
    few=[message("GET / HTTP/1.1"), message("POST /score HTTP/1.1")],
    order=[(0, "with the next"), (1, "alone"), (0, "alone")],
)
def test_a_known_head_means_what_it_meant_before(make_front, few, order):
    """The same requests from a server that knows the heads and from one that never does."""
    knowing, forgetful = make_front(), make_front()
    one, other = knowing.connect(), forgetful.connect()
    data = b""
    for index, how in order:
        data += few[index % len(few)]
        if how == "with the next":
            continue
        if how == "reconnect":
            one, other = knowing.connect(), forgetful.connect()
        answers = []
        for front, client in ((knowing, one), (forgetful, other)):
            if front is forgetful:
                front.server.known_heads.clear()
            before = len(client.wire.sent)
            client.send(data)
            front.echo()
            answers.append(without_date(client.wire.sent[before:]))
        assert answers[0] == answers[1]
        assert answers[0]
        data = b""


def test_known_heads_are_really_taken(make_front):
    front = make_front()
    client = front.ask(post(b"1"), post(b"2"))
    assert len(front.server.known_heads) == 1
    client.connection.parser = None  # it is not needed any more
    client.send(post(b"3"))
    front.echo()
    assert client.connection.parser is None
    assert [response.body for response in client.responses()] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("length_off", range(-6, 7))
def test_a_known_head_that_comes_cut_is_not_taken_for_a_whole_one(make_front, length_off):
    """Cut after its first CR, a head whose Content-Length was its own size was once a request by itself."""
    front = make_front()
    start = b"POST /score HTTP/1.1\r\nHost: here\r\nX-Pad: "
    size = len(start) + 120 + len(b"\r\nContent-Length: 000")
    head = start + b"p" * 120 + b"\r\nContent-Length: %03d" % (size + length_off)
    body = b"b" * (size + length_off)
    whole = head + b"\r\n\r\n" + body
    front.ask(whole)
    assert front.server.known_heads
    for cut in range(1, len(head) + 5):
        client = front.connect()
        client.send(whole[:cut])
        client.send(whole[cut:])
        front.echo()
        assert [response.body for response in client.responses()] == [body]


def test_known_heads_do_not_grow_without_bound(make_front):
    front = make_front()
    for number in range(2000):
        front.ask(post(b"x", f"X-Number: {number}"))
    assert len(front.server.known_heads) <= 512


snippets = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            *(b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/score", b"/", b"*"),
            *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/1.1\r\n\r\n", b" HTTP/9.9\r\n", b"\r\n", b"\n", b"\r"),
            *(b"Host: x\r\n", b"Content-Length: 5\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"),
            *(b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n"),
            *(
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"ffffffffffffffff\r\n",
                b"1;x=y\r\n",
                b"X-" + b"y" * 50,
                b"\0",
                b"\xff",
            ),
        ]
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.lists(snippets, max_size=8).map(b"".join),
            valid,
            st.builds(
                lambda data, at, byte: data[: at % len(data)] + byte + data[at % len(data) :],
                valid,
                st.integers(0, 300),
                st.binary(max_size=2),
            ),
        ),
        max_size=6,
    )
)
@example(pieces=[b"CONNECT here:443 HTTP/1.1\r\nHost: here\r\n\r\n\x16\x03\x01"])
@example(
    pieces=[b"CONNECT here:443 HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
)
@example(pieces=[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_garbage_never_raises_and_never_stays_unanswered_in_a_way_that_is_no_http(make_front, pieces):
    front = make_front(max_body_bytes=1000, max_head_bytes=500, max_target_bytes=100, max_head_fields=10)
    client = front.connect()
    for piece in pieces:
        client.send(piece)
        front.echo()
    front.pass_time(1000.0)
    front.pass_time(1000.0)
    assert client.wire.lost
    assert not front.server.connections
    assert b"HTTP/1.1 500" not in client.wire.sent


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(valid, max_size=4)), max_size=6), st.integers(0, 100))
def test_every_request_of_every_client_is_answered_once(make_front, clients, order):
    """Scorers answer in any order; clients leave; nobody gets an answer that is another's."""
    front = make_front(scorers=2)
    connected = []
    for number, (leaves, messages) in enumerate(clients):
        client = front.connect().send(*messages)
        own_requests = [post(b"client %d request %d" % (number, index)) for index in range(order % 5)]
        client.send(b"".join(own_requests))
        connected.append((client, leaves, len(messages), len(own_requests), number))
    for client, leaves, *_ in connected:
        if leaves:
            client.leave()
    while front.taken:
        exchange = front.taken[order % len(front.taken)]
        front.reply(exchange, bytes(exchange.body))
    for client, leaves, others, own, number in connected:
        if not leaves:
            got = client.responses()
            assert len(got) == others + own
            assert [response.body for response in got[others:]] == [
                b"client %d request %d" % (number, index) for index in range(own)
            ]
    assert front.server.scoring.queue.count == 0
