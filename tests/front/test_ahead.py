"""Frames that are sent while a scorer still works on one, and frames that nobody waits for any more."""

from time import monotonic
from typing import Any

import pytest

from scoring_runtime.scorer import frames

from .test_connection import post
from .test_overload import learn, timed


@pytest.fixture
def busy(make_front: Any) -> Any:
    """A front whose only scorer works on one request, takes a frame ahead and can be stopped; frames of at most 3."""
    front = make_front(max_batch_size=3)
    return begin(front)


def begin(front: Any) -> Any:
    front.server.scoring.adopt({"ahead": 1})
    for scorer in front.scorers:
        scorer.takes_ahead = scorer.stops = True
        front.connect().send(post(b"runs"))
    return front


def ask(front: Any, count: int) -> list[Any]:
    """Clients that each have asked once."""
    return [front.connect().send(post(b"%d" % number)) for number in range(count)]


def bodies(frame: dict[int, Any]) -> list[bytes]:
    return [bytes(ticket.body) for ticket in frame.values()]


def test_a_full_frame_is_sent_ahead_and_one_that_is_not_full_waits(busy):
    (scorer,) = busy.scorers
    clients = ask(busy, 2)
    assert (len(scorer.in_flight), scorer.ahead) == (1, {})
    clients += ask(busy, 3)
    assert bodies(scorer.ahead) == [b"0", b"1", b"0"]
    assert busy.server.scoring.queue.count == 2
    assert not busy.server.pool.idle
    busy.echo()
    assert [client.response().status for client in clients] == [200] * 5


def test_the_next_goes_ahead_when_the_first_is_settled(busy):
    (scorer,) = busy.scorers
    ask(busy, 6)
    assert (len(scorer.in_flight), len(scorer.ahead), busy.server.scoring.queue.count) == (1, 3, 3)
    busy.reply(busy.taken[0])
    assert (len(scorer.in_flight), len(scorer.ahead), busy.server.scoring.queue.count) == (3, 3, 0)


def test_nothing_goes_ahead_to_an_engine_that_does_not_take_it(make_front):
    front = make_front(max_batch_size=3)
    front.connect().send(post(b"runs"))
    front.scorers[0].takes_ahead = True  # it would, but has not said so
    ask(front, 9)
    assert front.scorers[0].ahead == {}
    front.server.scoring.adopt({"ahead": 1})
    front.scorers[0].takes_ahead = False
    ask(front, 3)
    assert front.scorers[0].ahead == {}


def test_nothing_goes_ahead_where_what_scorers_have_is_bounded(make_front):
    front = begin(make_front(max_batch_size=3, max_concurrent_requests=3))
    ask(front, 9)
    assert front.scorers[0].ahead == {}


def test_with_several_scorers_a_full_frame_waits_for_each_first(make_front):
    front = begin(make_front(scorers=2, max_batch_size=3))
    ask(front, 5)
    assert [len(scorer.ahead) for scorer in front.scorers] == [0, 0]
    ask(front, 1)
    assert sorted(len(scorer.ahead) for scorer in front.scorers) == [0, 3]
    ask(front, 3)
    assert [len(scorer.ahead) for scorer in front.scorers] == [3, 3]


def test_nothing_goes_ahead_before_anything_is_known_of_the_cost(busy):
    busy.server.scoring.cost._buckets.clear()
    ask(busy, 5)
    assert busy.scorers[0].ahead == {}


def test_behind_a_request_that_has_lost_a_scorer_nothing_waits_in_the_same_place(busy):
    (scorer,) = busy.scorers
    clients = ask(busy, 6)
    busy.lose(scorer, begun=0)  # both frames come back
    assert len(scorer.in_flight) == 1
    scorer.takes_ahead = True
    clients += ask(busy, 6)
    assert scorer.ahead == {}
    while scorer.in_flight:
        assert scorer.ahead == {} or next(iter(scorer.in_flight.values())).attempts == 0
        busy.reply(busy.taken[0])
    assert [client.response().status for client in clients] == [200] * 12


def test_of_both_frames_each_request_is_answered_once_when_the_scorer_is_lost(busy):
    (scorer,) = busy.scorers
    clients = ask(busy, 3)
    busy.lose(scorer, begun=1)  # what worked may have run; what was sent ahead has not
    busy.echo()
    assert [client.response().status for client in clients] == [200] * 3


def test_the_forecast_knows_of_both_frames(busy):
    scoring = busy.server.scoring
    learn(busy, 1.0)  # and more than one at a time would take too long
    (flight,) = scoring._flights.values()
    now = monotonic()
    flight.expected_at = now + 1.0
    assert scoring._forecast(0, now).wait_s == pytest.approx(1.0)
    ask(busy, 1)
    assert len(scoring._ahead) == 1
    assert scoring._forecast(0, now).wait_s == pytest.approx(2.0, abs=0.1)
    busy.reply(busy.taken[0])
    assert scoring._forecast(0, monotonic()).wait_s == pytest.approx(1.0, abs=0.1)


# Frames that nobody waits for


def test_when_the_last_client_of_a_frame_leaves_the_scorer_is_told(busy):
    (scorer,) = busy.scorers
    clients = ask(busy, 3)
    for client in clients[:2]:
        client.leave()
    assert scorer.controls == []
    clients[2].leave()
    assert scorer.controls == [("stop", 1001)]
    assert busy.server.metrics.runs_stopped == 1
    busy.pass_time(1)
    assert scorer.controls == [("stop", 1001)]  # once
    assert bodies(scorer.in_flight) == [b"runs"]


def test_a_request_past_its_deadline_is_waited_for_no_more(make_front):
    front = make_front()
    front.server.scoring.adopt({"ahead": 1})
    (scorer,) = front.scorers
    scorer.stops = True
    client = front.connect().send(timed(b"x", 1000))
    front.pass_time(0.5)
    assert scorer.controls == []
    front.pass_time(1)
    assert scorer.controls == [("stop", 1)]
    assert client.response().status == 504


def test_what_is_still_waited_for_keeps_a_frame_going(front):
    (scorer,) = front.scorers
    scorer.stops = True
    front.connect().send(post(b"runs"))
    (exchange,) = front.taken
    stays, leaves = [front.connect() for _ in range(2)]
    for client in (stays, leaves):
        client.send(post(b"x"))
    front.reply(exchange)
    leaves.leave()
    front.pass_time(1)
    assert scorer.controls == []
    front.echo()
    assert stays.response().status == 200


def test_a_frame_of_which_the_rest_is_deserted_is_stopped(front):
    (scorer,) = front.scorers
    scorer.stops = True
    front.connect().send(post(b"runs"))
    clients = [front.connect().send(post(b"x")) for _ in range(2)]
    front.reply(front.taken[0])
    assert len(scorer.in_flight) == 2
    front.reply(front.taken[0])
    clients[1].leave()
    assert scorer.controls == [("stop", 2)]


def test_a_stopped_frame_says_nothing_about_costs(front):
    (scorer,) = front.scorers
    scorer.stops = True
    cost = front.server.scoring.cost
    client = front.connect().send(post(b"x"))
    observed = cost._observed
    client.leave()
    front.reply(front.taken[0], b"", 503)
    assert cost._observed == observed
    front.ask(post(b"y"))
    assert cost._observed == observed + 1


def test_a_script_is_not_stopped(front):
    client = front.connect().send(post(b"x"))
    client.leave()
    front.pass_time(1)
    assert front.scorers[0].controls == []
    assert front.server.metrics.runs_stopped == 0
    front.reply(front.taken[0], b"", 200, b"", frames.FLAG_RUN_RETURNED)
    assert front.server.pool.idle


def test_what_was_stopped_is_counted_in_the_metrics(front):
    front.scorers[0].stops = True
    front.connect().send(post(b"x")).leave()
    assert front.server.metrics.copy().runs_stopped == 1
