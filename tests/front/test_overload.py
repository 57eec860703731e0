"""What the front does when more comes than it can serve, and with requests that have deadlines of their own."""

import logging
from typing import Any

import pytest

from scoring_runtime.scorer import frames

from .test_connection import message, post

LATE = "The deadline of the request passed before it was answered."


def timed(body: bytes, timeout_ms: object, header: str = "X-Request-Timeout-Ms") -> bytes:
    return post(body, f"{header}: {timeout_ms}")


def learn(front: Any, busy_s: float) -> None:
    """Let it know what a frame of one request takes: nothing else was seen."""
    cost = front.server.scoring.cost
    cost._buckets.clear()
    cost.observe(1, 0, busy_s)
    front.server.scoring._update_room(1)


# A request's own deadline


def test_a_request_in_time_is_answered_and_its_scorer_knows_what_is_left(front):
    client = front.connect().send(timed(b"x", 5000))
    (exchange,) = front.taken
    assert 4900 <= exchange.timeout_ms <= 5000
    front.echo()
    assert client.response().status == 200


def test_a_request_without_the_header_has_no_deadline(front):
    front.connect().send(post(b"x"))
    (exchange,) = front.taken
    assert (exchange.timeout_ms, exchange.expires_at) == (0, float("inf"))
    assert "expires_at" not in vars(exchange)


def test_a_known_head_has_its_deadline_each_time(front):
    client = front.connect()
    for _ in range(3):
        client.send(timed(b"x", 5000))
        (exchange,) = front.taken
        assert 4900 <= exchange.timeout_ms <= 5000
        front.echo()
    assert [response.status for response in client.responses()] == [200, 200, 200]


def test_the_header_can_have_another_name(make_front):
    front = make_front(deadline_header="x-envoy-expected-rq-timeout-ms")
    front.connect().send(timed(b"x", 7000, "X-Envoy-Expected-Rq-Timeout-Ms"))
    (exchange,) = front.taken
    assert 6900 <= exchange.timeout_ms <= 7000
    front.echo()
    front.connect().send(timed(b"x", 7000))
    (exchange,) = front.taken
    assert exchange.timeout_ms == 0


@pytest.mark.parametrize("value", ["", "0", "000", "-1", "+5", "1.5", "1e3", "5s", "soon", "5, 6", "0x10", "inf"])
def test_a_deadline_that_is_none_is_refused_with_cause_and_cure(front, value):
    client = front.connect().send(timed(b"x", value))
    assert front.taken == []
    response = client.response()
    assert response.status == 400
    assert message(response) == (
        "The header x-request-timeout-ms holds no whole number of milliseconds above 0. "
        "Correct it, or leave it out to wait without a deadline."
    )
    assert client.open


@pytest.mark.parametrize("value", ["9" * 10, "9" * 16, "9" * 5000, "0" * 20 + "5"])
def test_a_deadline_beyond_all_bounds_is_still_a_number(front, value):
    front.connect().send(timed(b"x", value))
    (exchange,) = front.taken
    assert exchange.timeout_ms == frames.MAX_U32


def test_of_two_deadlines_the_earlier_one_counts(front):
    front.connect().send(post(b"x", "X-Request-Timeout-Ms: 9000", "x-request-timeout-ms: 4000"))
    (exchange,) = front.taken
    assert 3900 <= exchange.timeout_ms <= 4000


def test_other_routes_do_not_look_at_the_header(front):
    client = front.connect().send(post(b"", "X-Request-Timeout-Ms: soon", method="GET", target="/"))
    assert client.response("GET").status == 200


def test_what_expires_in_line_is_answered_and_never_runs(make_front):
    front = make_front(scorers=0)
    client = front.connect().send(timed(b"x", 1000))
    front.pass_time(0.5)
    assert client.wire.sent == b""
    front.pass_time(0.6)
    response = client.response()
    assert (response.status, message(response)) == (504, LATE)
    assert "retry-after" not in response.headers
    assert client.open
    assert front.server.scoring.queue.count == 0
    assert front.server.metrics.expired == {"deadline": 1}


def test_what_expired_since_the_last_look_is_not_sent(front):
    """The sweep comes four times a second: a frame looks for itself."""
    first = front.connect().send(post(b"1"))
    late, last = front.connect().send(timed(b"2", 60_000)), front.connect().send(post(b"3"))
    for ticket in front.server.scoring.queue._line:
        ticket.expires_at = min(ticket.expires_at, 0.0) if ticket.body == b"2" else ticket.expires_at
    front.echo()
    assert [client.response().status for client in (first, late, last)] == [200, 504, 200]


def test_at_its_deadline_a_client_is_answered_while_its_run_goes_on(front):
    client = front.connect().send(timed(b"x", 1000))
    other = front.connect().send(post(b"y"))
    (exchange,) = front.taken
    front.pass_time(1.1)
    assert (client.response().status, message(client.response())) == (504, LATE)
    assert front.taken == [exchange]  # the scorer still has it
    client.send(post(b"z"))
    front.echo()  # the late reply, among others
    assert [response.status for response in client.responses()] == [504, 200]
    assert other.response().status == 200
    assert front.server.metrics.expired == {"deadline": 1}


def test_a_response_that_has_begun_by_its_deadline_goes_on(front):
    client = front.connect().send(timed(b"x", 1000))
    (exchange,) = front.taken
    front.piece(exchange, b"a", frames.FLAG_MORE)
    front.pass_time(1.1)
    front.piece(exchange, b"b", frames.FLAG_MORE)
    front.piece(exchange, b"", 0)
    assert client.response().body == b"ab"


def test_a_request_that_its_scorer_did_not_run_in_time_is_counted_and_teaches_nothing(front):
    client = front.connect().send(timed(b"x", 60_000))
    (exchange,) = front.taken
    version = front.server.scoring.cost.version
    front.reply(exchange, b"{}", 504, flags=frames.FLAG_EXPIRED)
    assert client.response().status == 504
    assert front.server.metrics.expired == {"deadline": 1}
    assert front.server.scoring.cost.version == version


def test_a_deadline_that_cannot_be_kept_is_refused_at_once(front):
    learn(front, 2.0)
    busy = front.connect().send(post(b"1"))
    client = front.connect().send(timed(b"2", 1000))
    response = client.response()
    assert (response.status, response.headers["retry-after"]) == (503, "2")
    assert message(response) == "The server is too busy to answer before the deadline of the request. Try again in 2 s."
    assert front.server.metrics.refused == {"deadline": 1}
    patient = front.connect().send(timed(b"3", 10_000))
    front.echo()
    assert (busy.response().body, patient.response().body) == (b"1", b"3")


def test_an_idle_scorer_tries_any_deadline(front):
    learn(front, 2.0)
    front.connect().send(timed(b"2", 1000))
    assert len(front.taken) == 1


# Limits of the line


def test_a_request_that_is_predicted_to_wait_too_long_is_refused_at_once(make_front):
    front = make_front(max_queue_wait_ms=5000)
    learn(front, 2.0)
    clients = [front.connect().send(post(b"%d" % number)) for number in range(6)]
    refused = [client for client in clients if client.wire.sent]
    assert refused == clients[3:]  # one runs, two wait for 2 s and 4 s
    response = refused[0].response()
    assert (response.status, response.headers["retry-after"]) == (503, "6")
    assert message(response) == "The server is overloaded. Try again in 6 s."
    assert front.server.metrics.refused == {"queue_wait": 3}


def test_what_waited_too_long_since_the_last_look_is_not_sent(make_front):
    front = make_front(max_queue_wait_ms=5000)
    first, late = front.connect().send(post(b"1")), front.connect().send(post(b"2"))
    for ticket in front.server.scoring.queue._line:
        ticket.queued_at -= 5.0
    front.echo()
    assert [client.response().status for client in (first, late)] == [200, 503]
    assert front.server.metrics.expired == {"queue_wait": 1}


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"max_queued_requests": 2}, "queued_requests"), ({"max_queued_bytes": 10}, "queued_bytes")],
)
def test_a_full_line_refuses(make_front, settings, limit):
    front = make_front(scorers=0, **settings)
    clients = [front.connect().send(post(b"12345")) for _ in range(3)]
    assert [bool(client.wire.sent) for client in clients] == [False, False, True]
    response = clients[2].response()
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert message(response) == "The server is overloaded. Try again in 1 s."
    assert front.server.metrics.refused == {limit: 1}
    assert clients[2].open


def test_an_empty_line_takes_any_single_request(make_front):
    front = make_front(scorers=0, max_queued_bytes=10)
    assert front.connect().send(post(b"x" * 1000)).wire.sent == b""


@pytest.mark.parametrize(
    ("most", "scorers", "sent"), [(0, 2, [5, 5]), (1, 2, [0, 1]), (2, 2, [1, 1]), (5, 2, [2, 2]), (3, 1, [3])]
)
def test_scorers_have_no_more_at_a_time_than_they_may(make_front, most, scorers, sent):
    front = make_front(scorers=scorers, max_concurrent_requests=most)
    client = front.connect().send(b"".join(post(b"%d" % number) for number in range(10)))
    assert [len(scorer.in_flight) for scorer in front.scorers] == sent
    while front.taken:
        assert len(front.taken) <= (most or 10)
        front.reply(front.taken[0], b"{}")
    assert [response.status for response in client.responses()] == [200] * 10


def test_a_busy_scorer_that_dies_makes_room_for_another(make_front):
    front = make_front(scorers=2, max_concurrent_requests=1)
    clients = [front.connect().send(post(b"%d" % number)) for number in range(2)]
    (busy,) = [scorer for scorer in front.scorers if scorer.in_flight]
    front.lose(busy, begun=1)
    front.echo()
    assert [client.response().status for client in clients] == [500, 200]


# What is told


def test_the_log_tells_each_limit_once_a_second_with_its_value_and_its_setting(make_front, caplog):
    caplog.set_level(logging.WARNING)
    front = make_front(scorers=0, max_queued_requests=1, max_queue_wait_ms=3_600_000)
    for _ in range(4):
        front.connect().send(post(b"x"))
    line = "503: The server is overloaded. Try again in 1 s. The limit is --max-queued-requests 1."
    assert caplog.messages == [f"Refused a request with {line}"]
    front.pass_time(0.5)
    assert len(caplog.messages) == 1
    front.pass_time(0.6)
    assert caplog.messages[1:] == [f"Refused 2 requests, the last with {line}"]
    front.pass_time(2.0)
    assert len(caplog.messages) == 2


def test_the_log_tells_what_expired(make_front, caplog):
    caplog.set_level(logging.WARNING)
    front = make_front(scorers=0, max_queue_wait_ms=5000)
    front.connect().send(timed(b"x", 1000))
    front.connect().send(post(b"x"))
    front.pass_time(1.5)
    front.pass_time(4.0)
    assert caplog.messages == [
        f"Refused a request with 504: {LATE}",
        (
            "Refused a request with 503: The server is overloaded: the request waited too long. Try again in 1 s. "
            "The limit is --max-queue-wait-ms 5000."
        ),
    ]


def test_a_refusal_does_not_outlast_the_line_it_was_for(make_front):
    front = make_front(max_queue_wait_ms=5000)
    learn(front, 2.0)
    clients = [front.connect().send(post(b"%d" % number)) for number in range(5)]
    assert [bool(client.wire.sent) for client in clients] == [False, False, False, True, True]
    front.reply(front.taken[0])
    assert front.connect().send(post(b"x")).wire.sent == b""


def test_where_nobody_waits_a_refusal_ends_when_a_scorer_is_free(make_front):
    front = make_front(max_queue_wait_ms=1000)
    learn(front, 2.0)
    _, refused = front.connect().send(post(b"1")), front.connect().send(post(b"2"))
    assert refused.response().status == 503
    front.reply(front.taken[0])
    assert front.ask(post(b"3")).response().status == 200


def test_a_large_body_that_is_refused_shuts_no_small_one_out(make_front):
    front = make_front(max_queued_bytes=1000)
    front.connect().send(post(b"1"), post(b"2"), post(b"3"))
    assert front.connect().send(post(b"x" * 2000)).response().status == 503
    assert front.connect().send(post(b"4")).wire.sent == b""


def test_whether_an_engine_stacks_is_what_it_says(front):
    for batchable, rows_per_run, stacks in (
        (True, 32, True),
        (True, None, True),
        (True, 1, False),  # it could, but finds that it does not pay
        (False, 1, False),
        (None, None, False),
    ):
        front.server.pool.info = {"headers": "none", "batchable": batchable, "rows_per_run": rows_per_run}
        front.server._on_idle()
        assert front.server.scoring.cost.stacks is stacks


def test_what_fails_at_a_tick_does_not_end_the_other_deadlines(make_front, caplog, monkeypatch):
    front = make_front(scorers=0, max_queue_wait_ms=1000)
    client = front.connect().send(post(b"x"))

    def fail(_now: float) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(front.server.pool, "tick", fail)
    front.pass_time(1.5)
    assert client.response().status == 503
    assert "RuntimeError: a bug" in caplog.text


def test_a_scorer_that_ends_with_nothing_left_to_answer_makes_room(front):
    """What lies in its progress file may settle all that it had: then nothing is left that tells of its end."""
    client = front.connect().send(post(b"1"))
    (scorer,) = front.server.scoring._flights
    front.server.scoring.unsettled(scorer, [])
    assert not front.server.scoring._flights
    client.leave()


# What comes in one turn of the loop


def send_at_once(front: Any, *requests: bytes) -> list[Any]:
    """A client for each request; all arrive before the front's loop turns."""
    clients = [front.connect() for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        client.wire.arriving.append(request)
        client.wire.deliver()
    return clients


def test_of_those_who_come_together_only_so_many_join_as_there_is_room_for(make_front):
    front = make_front(max_queued_requests=3, max_queue_wait_ms=100_000)
    front.connect().send(post(b"runs"))
    clients = send_at_once(front, *(post(b"%d" % number) for number in range(5)))
    front.loop.run()
    assert front.server.scoring.queue.count == 3
    assert [len(client.responses()) for client in clients] == [0, 0, 0, 1, 1]
    assert {client.response().status for client in clients[3:]} == {503}
    front.echo()
    assert [client.response().body for client in clients[:3]] == [b"0", b"1", b"2"]


def test_of_those_who_come_together_only_so_many_bytes_join_as_there_is_room_for(make_front):
    front = make_front(max_queued_bytes=100)
    front.connect().send(post(b"runs"))
    clients = send_at_once(front, *(post(b"x" * size) for size in (60, 60, 40)))
    front.loop.run()
    front.echo()
    assert [client.response().status for client in clients] == [200, 503, 200]


def test_who_leaves_in_the_turn_in_which_it_came_is_never_sent(front):
    stays, leaves = send_at_once(front, post(b"stays"), post(b"leaves"))
    leaves.connection.connection_lost(None)
    front.loop.run()
    assert [exchange.body for exchange in front.taken] == [b"stays"]
    assert front.server.scoring.queue.count == 0
    assert front.server.scoring.queue.size_bytes == 0
    front.echo()
    assert stays.response().status == 200
    assert leaves.responses() == []


def test_a_deadline_among_those_who_come_together_is_looked_at(front):
    learn(front, 1.0)
    front.connect().send(post(b"runs"))
    hurried, patient = send_at_once(front, timed(b"hurried", 10), post(b"patient"))
    front.loop.run()
    assert hurried.response().status == 503
    assert front.server.scoring.queue.count == 1
    front.echo()
    assert patient.response().status == 200


def test_a_client_that_is_alone_is_served_without_another_turn(front):
    client = front.ask(post(b"learn"))
    client.wire.arriving.append(post(b"alone"))
    client.wire.deliver()
    assert [exchange.body for exchange in front.taken] == [b"alone"]
    front.echo()
    assert [response.body for response in client.responses()] == [b"learn", b"alone"]


def test_who_is_not_alone_is_served_with_the_others(front):
    others = [front.ask(post(b"learn")) for _ in range(2)]
    for client in others:
        client.wire.arriving.append(post(b"again"))
        client.wire.deliver()
        assert front.taken == []
    front.loop.run()
    assert [exchange.body for exchange in front.taken] == [b"again", b"again"]
    front.echo()
