"""HTTP/1.1 as a client sees it: bytes in, bytes out."""

import json
from typing import Any

import pytest

from scoring_runtime.front.connection import MAX_PIPELINED
from scoring_runtime.front.phases import LINGER_S, Phase


def post(body: bytes = b"", *lines: str, **more: str) -> bytes:
    method, target, version = (
        more.get(name, usual) for name, usual in (("method", "POST"), ("target", "/score"), ("version", "1.1"))
    )
    head = [f"{method} {target} HTTP/{version}", "Host: here", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def get(target: str = "/", *lines: str, **more: str) -> bytes:
    return post(b"", *lines, method="GET", target=target, **more)


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    """A request whose body comes in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return post(b"", "Transfer-Encoding: chunked") + body + b"0\r\n" + trailer + b"\r\n"


def bodies(client: Any) -> list[bytes]:
    return [response.body for response in client.responses()]


def message(response: Any) -> str:
    assert response.headers["content-type"] == "application/json"
    return str(json.loads(response.body)["message"])


# One request


def test_a_request_is_answered_and_the_connection_stays(front):
    client = front.ask(post(b"[1]"))
    response = client.response()
    assert (response.status, response.body) == (200, b"[1]")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["server"] == "scoring-runtime"
    assert response.headers["date"].endswith(" GMT")
    assert "connection" not in response.headers
    assert client.open


def test_one_connection_carries_one_request_after_the_other(front):
    client = front.connect()
    for number in range(5):
        client.send(post(b"%d" % number))
        front.echo()
    assert bodies(client) == [b"0", b"1", b"2", b"3", b"4"]
    assert client.open


def test_a_request_without_a_body(front):
    assert front.ask(post()).response().body == b""


def test_a_large_answer_goes_out_whole(front):
    client = front.connect().send(post(b"x"))
    front.reply(front.taken[0], b"y" * 3_000_000)
    assert client.response().body == b"y" * 3_000_000


@pytest.mark.parametrize("size", [4095, 4096, 65535, 65536])
def test_answers_around_the_sizes_that_are_written_differently(front, size):
    client = front.connect().send(post(b"x") + post(b"x"))
    for exchange in front.taken:
        front.reply(exchange, b"y" * size)
    assert [len(body) for body in bodies(client)] == [size, size]


def test_a_request_in_single_bytes(front):
    data = post(b"hello") + chunked(b"wor", b"ld")
    client = front.ask(*(data[at : at + 1] for at in range(len(data))))
    assert bodies(client) == [b"hello", b"world"]


def test_the_request_reaches_the_scorer_with_what_it_asked_for(front):
    front.server.scoring.wanted_headers = ["x-wanted"]
    front.connect().send(post(b"[1]", "X-Wanted: yes", "X-Other: no", target="/score?a=b"))
    (exchange,) = front.taken
    assert (exchange.head, exchange.body) == (b"/score?a=b\nX-Wanted: yes", b"[1]")
    front.server.scoring.wanted_headers = "all"
    front.connect().send(post(b"[2]", "X-Other: no"))
    front.reply(exchange)
    assert front.taken[0].head == (
        b"/score\n:remote-addr: 192.0.2.7\n:scheme: http\nHost: here\nX-Other: no\nContent-Length: 3"
    )


# Many requests


def test_pipelined_requests_are_answered_in_order(front):
    client = front.connect().send(post(b"1") + post(b"2") + post(b"3"))
    first, second, third = front.taken
    front.reply(third, b"three")
    front.reply(second, b"two")
    assert client.wire.sent == b""
    front.reply(first, b"one")
    assert bodies(client) == [b"one", b"two", b"three"]
    assert client.connection.phase is Phase.IDLE


def test_answers_of_the_front_wait_for_those_of_scorers_before_them(front):
    client = front.connect().send(post(b"1") + get("/") + get("/nowhere") + post(b"2"))
    assert client.wire.sent == b""
    front.echo()
    assert [response.status for response in client.responses("POST", "GET", "GET", "POST")] == [200, 200, 404, 200]
    assert bodies(client)[:2] == [b"1", b"Healthy"]


def test_more_requests_than_are_worked_on_wait_in_the_connection(front):
    count = MAX_PIPELINED + 4
    client = front.connect().send(b"".join(post(b"%d" % number) for number in range(count)))
    assert len(front.taken) == MAX_PIPELINED
    assert not client.wire.reading
    front.reply(front.taken[0])
    assert len(front.taken) + front.server.scoring.queue.count == MAX_PIPELINED
    assert not client.wire.reading
    front.echo()
    assert len(client.responses()) == count
    assert bodies(client)[1:] == [b"%d" % number for number in range(1, count)]
    assert client.wire.reading
    assert client.connection.phase is Phase.IDLE


def test_much_that_is_pipelined_behind_slow_requests_waits_as_bytes(front):
    client = front.connect()
    stream = b"".join(post(b"%d" % number) for number in range(3000))
    client.send(stream[:150_000], stream[150_000:])
    assert len(client.connection.exchanges) < MAX_PIPELINED + 300
    assert client.connection.unread
    front.echo()
    assert bodies(client) == [b"%d" % number for number in range(3000)]
    assert client.wire.reading
    assert client.connection.unread == b""
    client.send(post(b"last"))
    front.echo()
    assert bodies(client)[-1] == b"last"


def test_bodies_large_and_small_in_one_read_arrive_whole(front):
    sizes = [1, 8000, 8192, 30_000, 0, 200_000, 5, 20_000]
    client = front.ask(b"".join(post(b"x" * size) + chunked(b"y" * size) for size in sizes if size))
    assert [len(body) for body in bodies(client)] == [size for size in sizes for _ in range(2) if size]


def test_a_head_that_waits_behind_slow_requests_is_not_late(make_front):
    front = make_front(head_timeout_s=15.0, max_queue_wait_ms=3_600_000)
    client = front.connect().send((post(b"x") * 2000)[:-30])
    assert client.connection.phase is Phase.HEAD
    for _ in range(20):
        front.pass_time(5.0)
    assert client.wire.sent == b""
    front.echo()
    assert len(bodies(client)) == 1999
    front.pass_time(16.0)
    assert client.responses()[-1].status == 408


def test_a_client_that_leaves_takes_what_was_not_read_along(front):
    client = front.connect().send(post(b"x") * 2000)
    client.leave()
    assert client.connection.unread == b""
    front.echo()
    assert not front.server.connections


def test_thousands_of_pipelined_requests_that_the_front_answers_itself(front):
    client = front.connect().send(post(b"slow") + get() * 5000)
    front.echo()
    assert bodies(client) == [b"slow"] + [b"Healthy"] * 5000
    assert client.wire.reading


def test_many_connections_share_frames_and_get_their_own_answers(front):
    clients = [front.connect() for _ in range(50)]
    for number, client in enumerate(clients):
        client.send(post(b"%d" % number))
    front.echo()
    assert [client.response().body for client in clients] == [b"%d" % number for number in range(50)]


def test_pipelined_answers_wait_for_a_client_that_does_not_read_and_come_whole_and_in_order(front):
    client = front.connect().send(b"".join(post(b"%d" % number) for number in range(6)))
    first, *others = front.taken
    front.reply(first, b"a" * 300_000)
    client.connection.pause_writing()
    written = len(client.wire.sent)
    for number, exchange in reversed(list(enumerate(others, 1))):
        front.reply(exchange, b"%d" % number * 100_000)
    assert len(client.wire.sent) == written, "answers are kept back while the client does not read"
    assert not client.wire.reading
    client.connection.resume_writing()
    front.loop.run()
    assert bodies(client) == [b"a" * 300_000, *(b"%d" % number * 100_000 for number in range(1, 6))]
    assert client.send(get()).responses("POST", "POST", "POST", "POST", "POST", "POST", "GET")[-1].body == b"Healthy"


def test_answers_are_kept_back_again_when_the_client_stops_again(front):
    client = front.connect().send(b"".join(post(b"%d" % number) for number in range(3)))
    client.connection.pause_writing()
    write = client.wire.write

    def write_and_stall(data: bytes) -> None:
        write(data)
        client.connection.pause_writing()

    client.wire.write = write_and_stall
    for exchange in front.taken:
        front.reply(exchange, bytes(exchange.body) * 10)
    for expected in ([b"0" * 10], [b"0" * 10, b"1" * 10], [b"0" * 10, b"1" * 10, b"2" * 10]):
        client.connection.resume_writing()
        assert bodies(client) == expected


def test_a_closing_connection_whose_client_never_reads_is_aborted(make_front):
    front = make_front(body_timeout_s=30.0)
    client = front.connect().send(post(b"x", "Connection: close"))
    client.wire.backlog_bytes = 1000
    front.reply(front.taken[0], b"y" * 1000)
    assert client.wire.closed
    front.pass_time(0.0)
    front.pass_time(29.0)
    assert not client.wire.lost
    front.pass_time(2.0)
    assert client.wire.aborted
    assert client.wire.lost
    assert front.server.connections == set()


def test_a_closing_connection_whose_client_reads_slowly_but_steadily_is_not_cut_off(make_front):
    """It once was, as soon as the timeout had passed: the client was left with a part of its answer."""
    front = make_front(body_timeout_s=10.0)
    client = front.connect().send(post(b"x", "Connection: close"))
    client.wire.backlog_bytes = 1_000_000
    front.reply(front.taken[0])
    front.pass_time(0.0)
    for _ in range(10):
        client.wire.backlog_bytes -= 50_000
        front.pass_time(10.5)
    assert not client.wire.aborted
    front.pass_time(10.5)
    assert client.wire.aborted


def test_a_connection_whose_answer_is_still_being_read_is_not_unused(make_front):
    front = make_front(body_timeout_s=10.0, keepalive_timeout_s=15.0)
    client = front.ask(post(b"x"))
    client.wire.backlog_bytes = 1_000_000
    client.connection.pause_writing()
    for _ in range(4):
        client.wire.backlog_bytes -= 50_000
        front.pass_time(10.5)
    assert client.open


# Bodies in chunks


def test_a_chunked_body_arrives_whole(front):
    client = front.ask(chunked(b"first ", b"second ", b"third"), post(b"next"))
    assert bodies(client) == [b"first second third", b"next"]


def test_a_trailer_is_no_header(front):
    front.server.scoring.wanted_headers = ["x-late", "host"]
    client = front.connect().send(chunked(b"body", trailer=b"X-Late: forged\r\n"))
    (exchange,) = front.taken
    assert exchange.head == b"/score\nHost: here"
    front.echo()
    assert client.response().body == b"body"


def test_chunk_extensions_are_ignored(front):
    data = post(b"", "Transfer-Encoding: chunked") + b'4;name="value"\r\nbody\r\n0\r\n\r\n'
    assert front.ask(data).response().body == b"body"


# Expect: 100-continue


def test_a_client_that_waits_to_be_told_is_told_to_continue(front):
    client = front.connect()
    head = post(b"12345", "Expect: 100-continue")
    client.send(head[:-5])
    assert [response.status for response in client.responses()] == [100]
    client.send(b"12345")
    front.echo()
    assert [(response.status, response.body) for response in client.responses()] == [(100, b""), (200, b"12345")]


def test_a_client_that_waits_behind_its_other_requests_is_told_to_continue_when_they_are_answered(front):
    client = front.connect()
    client.send(post(b"1") + post(b"2") + post(b"12345", "Expect: 100-continue")[:-5])
    first, second = front.taken
    front.reply(second, b"two")
    assert client.wire.sent == b""
    front.pass_time(front.server.settings.body_timeout_s + 1)  # it is not the client that lets us wait
    front.reply(first, b"one")
    assert [response.status for response in client.responses()] == [200, 200, 100]
    front.pass_time(front.server.settings.body_timeout_s - 1)
    client.send(b"12345")
    front.echo()
    assert [(response.status, response.body) for response in client.responses()] == [
        (200, b"one"),
        (200, b"two"),
        (100, b""),
        (200, b"12345"),
    ]
    assert client.send(get()).responses("POST", "POST", "POST", "GET")[-1].body == b"Healthy"


def test_a_client_that_waits_behind_one_request_is_told_to_continue(front):
    client = front.connect().send(post(b"1") + post(b"12345", "Expect: 100-continue")[:-5])
    front.echo()
    assert [response.status for response in client.responses()] == [200, 100]
    client.send(b"12345")
    front.echo()
    assert [response.status for response in client.responses()] == [200, 100, 200]


def test_a_client_that_was_told_to_continue_and_sends_nothing_is_refused(front):
    client = front.connect().send(post(b"1") + post(b"12345", "Expect: 100-continue")[:-5])
    front.echo()
    front.pass_time(front.server.settings.body_timeout_s + 1)
    assert [response.status for response in client.responses()] == [200, 100, 408]


def test_a_client_that_does_not_wait_to_be_told_is_not_told(front):
    client = front.connect().send(post(b"1") + post(b"12345", "Expect: 100-continue")[:-1])
    front.echo()
    client.send(b"5")
    front.echo()
    assert [(response.status, response.body) for response in client.responses()] == [(200, b"1"), (200, b"12345")]


def test_nobody_is_told_to_continue_on_a_connection_that_is_closed(front):
    client = front.connect().send(post(b"1") + post(b"12345", "Expect: 100-continue")[:-5])
    front.server.closing = True
    front.echo()
    assert client.responses()[0].body == b"1"
    client.leave()
    assert front.server.connections == set()


def test_a_body_that_is_too_large_is_refused_instead(make_front):
    front = make_front(max_body_bytes=4)
    client = front.ask(post(b"12345", "Expect: 100-continue")[:-5])
    assert client.response().status == 413


def test_http_10_is_not_told_to_continue(front):
    client = front.ask(post(b"12345", "Expect: 100-continue", version="1.0"))
    assert [response.status for response in client.responses()] == [200]


def test_other_expectations_are_refused(front):
    client = front.connect().send(post(b"12345", "Expect: the-unexpected"))
    assert [response.status for response in client.responses()] == [417]


@pytest.mark.parametrize("field", ["Host: other", "Content-Type: text/csv"])
def test_a_field_that_readers_could_read_differently_must_not_stand_twice(front, field):
    client = front.connect().send(post(b"12345", "Content-Type: application/json", field))
    assert [response.status for response in client.responses()] == [400]


def test_http_10_has_no_chunks(front):
    client = front.connect().send(b"POST /score HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert [response.status for response in client.responses()] == [400]


@pytest.mark.parametrize(("target", "status"), [(b"/score", 405), (b"/nope", 404)])
def test_a_method_that_http_does_not_know_is_405_or_404(front, target, status):
    client = front.connect().send(b"BREW %b HTTP/1.1\r\nHost: here\r\n\r\n" % target)
    assert [response.status for response in client.responses()] == [status]


# HEAD, HTTP/1.0, close


def test_head_gets_the_head_of_a_get_and_no_body(front):
    client = front.connect().send(post(method="HEAD", target="/"), get())
    head, response = client.responses("HEAD", "GET")
    assert (head.status, head.body) == (200, b"")
    assert head.headers == response.headers
    assert head.headers["content-length"] == str(len(b"Healthy"))


def test_head_of_an_error_has_no_body_either(front):
    client = front.connect().send(post(method="HEAD", target="/nowhere"), get())
    assert [response.status for response in client.responses("HEAD", "GET")] == [404, 200]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_have_none(front, status):
    client = front.connect().send(post(b"x"), get())
    front.reply(front.taken[0], b"not to be sent", status)
    assert [response.status for response in client.responses("POST", "GET")] == [status, 200]


def test_http_10_closes_by_default(front):
    client = front.ask(post(b"x", version="1.0"))
    assert client.response().headers["connection"] == "close"
    assert client.wire.lost


def test_http_10_stays_when_asked_to(front):
    client = front.ask(post(b"1", "Connection: keep-alive", version="1.0"), post(b"2"))
    assert [response.headers.get("connection") for response in client.responses()] == ["keep-alive", None]
    assert client.open


def test_a_client_that_wants_to_close_is_closed(front):
    client = front.ask(post(b"x", "Connection: close"))
    assert client.response().headers["connection"] == "close"
    assert client.wire.lost


def test_nothing_is_answered_after_a_request_to_close(front):
    client = front.ask(post(b"1", "Connection: close") + post(b"2"))
    assert bodies(client) == [b"1"]


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("Upgrade: TLS/1.3",),
    ],
)
@pytest.mark.parametrize("body", [b"", b"[1]"])
def test_an_offer_to_upgrade_is_ignored(front, lines, body):
    client = front.ask(post(body, *lines) + post(b"next"), post(b"last"))
    assert [(response.status, response.body) for response in client.responses()] == [
        (200, body),
        (200, b"next"),
        (200, b"last"),
    ]


def test_an_offer_to_upgrade_before_a_chunked_body_is_ignored(front):
    data = chunked(b"one", b"two").replace(b"Host: here", b"Connection: Upgrade\r\nUpgrade: h2c")
    assert bodies(front.ask(data + post(b"next"))) == [b"onetwo", b"next"]


def test_many_offers_to_upgrade_in_one_piece_are_ignored_one_after_the_other(front):
    count = 5000  # each was read within the one before it, until the stack was full
    client = front.ask(get("/", "Connection: upgrade", "Upgrade: h2c") * count + post(b"last"))
    *answers, last = client.responses(*["GET"] * count)
    assert [answer.body for answer in answers] == [b"Healthy"] * count
    assert last.body == b"last"


# What is refused


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST /score HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nName with space: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName: x\0y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName: x\ry\r\n\r\n", 400),
        (post(target="/nowhere"), 404),
        (post(method="PUT"), 405),
        (post(method="DELETE", target="/"), 405),
        (post(b"x" * 101), 413),
        (get("/" + "x" * 40), 414),
        (get("/", *(f"X-{number}: {number}" for number in range(20))), 431),
        (get("/", "X-Long: " + "x" * 300), 431),
        (post(b"", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_json_body(make_front, data, status):
    front = make_front(max_body_bytes=100, max_target_bytes=40, max_head_bytes=256, max_head_fields=10)
    response = front.ask(data).response()
    assert response.status == status
    assert len(message(response)) > 10


def test_a_refused_method_learns_which_are_allowed(front):
    assert front.ask(post(method="PUT", target="/livez")).response().headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("data", [post(target="/nowhere"), post(method="PUT")])
def test_a_wrong_route_or_method_harms_no_other_request(front, data):
    client = front.ask(data, post(b"next"))
    assert bodies(client)[1:] == [b"next"]
    assert client.open


def test_what_cannot_be_read_is_refused_after_the_answers_before_it(front):
    client = front.connect().send(post(b"good") + b"nonsense\r\n\r\n")
    assert client.wire.sent == b""
    front.echo()
    good, bad = client.responses()
    assert (good.status, good.body, bad.status) == (200, b"good", 400)
    assert bad.headers["connection"] == "close"


def test_the_connections_over_the_limit_are_refused(make_front):
    front = make_front(max_connections=2)
    first, second, third = (front.connect() for _ in range(3))
    response = third.response()
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert not third.open
    assert first.send(get()).response().body == b"Healthy"
    third.leave()
    second.leave()
    assert front.connect().send(get()).response().body == b"Healthy"


def test_a_line_that_is_full_refuses_with_a_time_to_come_back(make_front):
    front = make_front(max_queued_requests=2, scorers=0)
    clients = [front.connect().send(post(b"x")) for _ in range(3)]
    assert [len(client.responses()) for client in clients] == [0, 0, 1]
    response = clients[2].response()
    assert response.status == 503
    assert int(response.headers["retry-after"]) >= 1
    assert clients[2].open


# Limits hold while reading


def test_a_header_that_never_ends_is_refused(make_front):
    front = make_front(max_head_bytes=1000, max_target_bytes=100)
    client = front.connect().send(b"GET / HTTP/1.1\r\nX-Endless: ")
    sent = 0
    while not client.wire.sent:
        client.send(b"x" * 100)
        sent += 100
    assert client.response().status == 431
    assert sent <= 1200


def test_a_target_that_never_ends_is_refused(make_front):
    front = make_front(max_target_bytes=100)
    client = front.connect().send(b"GET /", *[b"x" * 30] * 4)
    assert client.response().status == 414


def test_a_chunked_body_is_refused_when_it_is_over_the_limit_and_not_at_its_end(make_front):
    front = make_front(max_body_bytes=100)
    client = front.connect().send(post(b"", "Transfer-Encoding: chunked"), b"40\r\n" + b"x" * 64)
    assert client.wire.sent == b""
    client.send(b"\r\n40\r\n" + b"x" * 40)
    assert client.response().status == 413
    assert front.taken == []


def test_a_trailer_that_never_ends_is_refused(make_front):
    front = make_front(max_head_bytes=1000, max_target_bytes=100)
    client = front.connect().send(post(b"", "Transfer-Encoding: chunked"), b"1\r\nx\r\n0\r\nX-Endless: ")
    sent = 0
    while not client.wire.sent and sent < 5000:
        client.send(b"x" * 100)
        sent += 100
    assert client.response().status == 431
    assert sent <= 1300


def test_a_body_in_very_many_tiny_chunks_is_no_trailer(make_front):
    front = make_front(max_head_bytes=256, max_target_bytes=16)
    client = front.connect().send(post(b"", "Transfer-Encoding: chunked"), *[b"1\r\n", b"x", b"\r\n"] * 300)
    client.send(b"0\r\n\r\n")
    front.echo()
    assert client.response().body == b"x" * 300


def test_many_requests_in_one_read_that_ends_within_a_head_are_no_long_head(make_front):
    front = make_front(max_head_bytes=1000, max_target_bytes=100)
    client = front.connect().send(
        post(b"x")[:20], post(b"x")[20:] + post(b"y") * 100 + post(b"z")[:30], post(b"z")[30:]
    )
    front.echo()
    assert bodies(client) == [b"x", *[b"y"] * 100, b"z"]


def test_a_length_over_the_limit_is_refused_before_the_body_comes(make_front):
    front = make_front(max_body_bytes=100)
    client = front.connect().send(post(b"x" * 101)[:-101])
    assert client.response().status == 413


def test_a_body_of_just_the_limit_is_served(make_front):
    front = make_front(max_body_bytes=100)
    assert front.ask(post(b"x" * 100)).response().status == 200
    assert front.ask(chunked(b"x" * 60, b"x" * 40)).response().status == 200


# Lingering close


def test_a_refused_client_may_go_on_sending_until_it_has_read_why(make_front):
    front = make_front(max_body_bytes=100)
    client = front.connect().send(post(b"x" * 1000)[:-900])
    assert client.response().status == 413
    assert client.wire.ended
    assert not client.wire.closed
    client.send(b"x" * 900, post(b"not read"))
    assert len(client.responses()) == 1
    front.pass_time(LINGER_S / 2)
    assert not client.wire.closed
    front.pass_time(LINGER_S)
    assert client.wire.lost
    assert not front.server.connections


# Back-pressure


def test_a_client_that_does_not_read_is_not_read_from(front):
    client = front.connect().send(post(b"1"))
    client.connection.pause_writing()
    assert not client.wire.reading
    client.send(post(b"2"))
    assert len(front.taken) == 1
    client.connection.resume_writing()
    front.echo()
    assert bodies(client) == [b"1", b"2"]


def test_reading_stays_paused_while_either_reason_holds(front):
    client = front.connect().send(b"".join(post(b"x") for _ in range(MAX_PIPELINED + 1)))
    client.connection.pause_writing()
    assert not client.wire.reading
    client.connection.resume_writing()
    assert not client.wire.reading
    front.echo()
    assert client.wire.reading


def test_a_client_that_reads_nothing_is_cut_off(make_front):
    front = make_front(body_timeout_s=10.0)
    client = front.ask(post(b"x"))
    client.wire.backlog_bytes = 1_000_000
    client.connection.pause_writing()
    front.pass_time(9.0)
    assert not client.wire.aborted
    front.pass_time(2.0)
    assert client.wire.aborted
    assert client.wire.lost


def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off(make_front):
    front = make_front(body_timeout_s=10.0)
    client = front.ask(post(b"x"))
    client.wire.backlog_bytes = 1_000_000
    client.connection.pause_writing()
    for _ in range(10):
        client.wire.backlog_bytes -= 50_000
        front.pass_time(10.5)
    assert not client.wire.aborted


# Time


def test_an_unused_connection_is_closed_without_a_word(make_front):
    front = make_front(keepalive_timeout_s=75.0)
    client = front.ask(post(b"x"))
    fresh = front.connect()
    sent = len(client.wire.sent)
    front.pass_time(74.0)
    assert client.open
    front.pass_time(2.0)
    assert client.wire.lost
    assert fresh.wire.lost
    assert len(client.wire.sent) == sent
    assert fresh.wire.sent == b""


def test_time_counts_from_the_last_answer(make_front):
    front = make_front(keepalive_timeout_s=75.0)
    client = front.connect()
    for _ in range(5):
        client.send(post(b"x"))
        front.echo()
        front.pass_time(70.0)
    assert client.open


def test_a_head_that_does_not_arrive_in_time_is_answered(make_front):
    front = make_front(head_timeout_s=15.0)
    client = front.connect().send(b"POST /score HTTP/1.1\r\nHo")
    front.pass_time(14.0)
    client.send(b"st: here\r\n")
    assert client.wire.sent == b""
    front.pass_time(2.0)
    assert (client.response().status, message(client.response())) == (
        408,
        "The request head did not arrive within 15 s.",
    )
    assert not client.open


def test_a_body_that_does_not_arrive_in_time_is_answered(make_front):
    front = make_front(body_timeout_s=30.0)
    client = front.connect().send(post(b"x" * 100)[:-50])
    front.pass_time(29.0)
    assert client.wire.sent == b""
    front.pass_time(2.0)
    assert client.response().status == 408


@pytest.mark.parametrize("part", [10, 60])
def test_a_client_is_not_late_while_the_front_itself_does_not_read(make_front, part):
    """Of requests that wait behind many others on their connection one may be read in part."""
    front = make_front(head_timeout_s=15.0, body_timeout_s=30.0)
    last = post(b"x" * 100)
    client = front.connect().send(b"".join(post(b"") for _ in range(MAX_PIPELINED + 1)) + last[:part])
    assert not client.wire.reading
    for _ in range(10):
        front.pass_time(10.0)
    assert client.wire.sent == b""
    front.echo()
    assert client.wire.reading
    client.send(last[part:])
    front.echo()
    assert [response.status for response in client.responses()] == [200] * (MAX_PIPELINED + 2)


def test_a_large_body_that_keeps_coming_has_more_time(make_front):
    front = make_front(body_timeout_s=30.0)
    client = front.connect().send(post(b"x" * 1_000_000)[:-1_000_000])
    for _ in range(10):
        client.send(b"x" * 100_000)
        front.pass_time(20.0)
    front.echo()
    assert client.response().status == 200


def test_a_request_may_run_as_long_as_its_scorer_may(make_front):
    front = make_front(max_queue_wait_ms=3_600_000)
    client = front.connect().send(post(b"x"))
    front.pass_time(3000.0)
    front.echo()
    assert client.response().status == 200


def test_a_request_that_waits_too_long_for_a_scorer_is_told_to_come_back(make_front):
    front = make_front(max_queue_wait_ms=5000, scorers=0)
    client = front.connect().send(post(b"x"))
    front.pass_time(4.0)
    assert client.wire.sent == b""
    front.pass_time(2.0)
    response = client.response()
    assert (response.status, message(response)) == (
        503,
        "The server is overloaded: the request waited too long. Try again in 1 s.",
    )
    assert response.headers["retry-after"] == "1"
    assert client.open


# Clients that leave


def test_what_waits_for_a_client_that_left_is_never_run(make_front):
    front = make_front(scorers=0)
    client = front.connect().send(post(b"1") + post(b"2"))
    other = front.connect().send(post(b"3"))
    client.leave()
    assert front.server.scoring.queue.count == 1
    assert front.server.metrics.cancelled == 2
    assert not other.wire.closed


def test_what_runs_for_a_client_that_left_is_answered_into_the_void(front):
    client = front.connect().send(post(b"1"))
    other = front.connect().send(post(b"2"))
    client.leave()
    front.echo()
    assert client.wire.sent == b""
    assert other.response().body == b"2"


def test_a_client_that_left_in_the_middle_of_a_request_leaves_nothing(front):
    for data in (b"POST /sc", post(b"12345")[:-2], chunked(b"123")[:-4]):
        front.connect().send(data).leave()
    assert not front.server.connections
    assert front.server.scoring.queue.count == 0


# The end of the server


def test_while_the_server_closes_every_answer_closes_its_connection(front):
    client = front.connect().send(post(b"x"))
    idle = front.connect()
    front.server.closing = True
    idle.connection.close_when_idle()
    client.connection.close_when_idle()
    front.loop.run()
    assert idle.wire.lost
    assert not client.wire.lost
    front.echo()
    assert client.response().headers["connection"] == "close"
    assert client.wire.lost


# A scorer that dies


def test_what_may_have_run_is_answered_with_an_error_and_the_rest_runs_elsewhere(front):
    client = front.connect().send(post(b"1") + post(b"2") + post(b"3"))
    (scorer,) = front.scorers
    front.lose(scorer, begun=1)
    front.echo()
    assert [response.status for response in client.responses()] == [500, 200, 200]
    assert bodies(client)[1:] == [b"2", b"3"]


def test_what_lost_scorers_again_and_again_is_given_up(front):
    client = front.connect().send(post(b"poison"))
    (scorer,) = front.scorers
    for _ in range(3):
        assert client.wire.sent == b""
        assert len(front.taken) == 1
        front.lose(scorer, begun=0)
    assert client.response().status == 500
    assert front.taken == []


# Probes


def test_liveness_does_not_wait_for_scorers_and_readiness_does(make_front):
    front = make_front(scorers=0)
    client = front.connect().send(get("/"), get("/livez"), get("/readyz"), get("/readyz?verbose"), get("/startupz"))
    assert [response.status for response in client.responses()] == [200, 200, 503, 503, 503]
    assert bodies(client)[:2] == [b"Healthy", b"Healthy"]


@pytest.mark.parametrize(
    "target", ["//score", "/%73core", "http://here/score", "https://here:5001/score?x=1", "/score?"]
)
def test_ways_to_write_a_path(front, target):
    assert front.ask(post(b"x", target=target)).response().body == b"x"


@pytest.mark.parametrize("target", ["/score/", "/Score", "/score%00", "/score/../score", "*", "/%2e/score"])
def test_ways_not_to_write_a_path(front, target):
    assert front.ask(post(b"x", target=target)).response().status == 404


def test_options_lists_the_methods_of_a_route(front):
    response = front.ask(post(method="OPTIONS", target="/livez")).response()
    assert (response.status, response.headers["allow"], response.body) == (200, "GET, HEAD, OPTIONS", b"")


@pytest.mark.parametrize("framing", ["Content-Length: 33", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("more", [(), ("Connection: upgrade", "Upgrade: h2c")], ids=["plain", "upgrade"])
def test_what_others_take_for_the_body_of_a_connect_is_not_the_next_request(front, framing, more):
    """The parser knows no body of a CONNECT: behind a proxy that does, a client could have asked in another's name."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    client = front.ask(post(b"", framing, *more, method="CONNECT", target="here:443") + smuggled)
    assert client.response().status == 404
    assert not client.open
