"""The pure parts of the chaos program: what it would miss, it must find here."""

import zlib
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .faults import FAULTS, schedule
from .growth import Limit, growth
from .ledger import SLACK_S, Cuts, Ledger, Outcome
from .orders import model_order, script_order
from .wire import Answer


def one_request(**more: Any) -> tuple[Ledger, int]:
    ledger = Ledger()
    return ledger, ledger.sent("a", "client", 10.0, **more)


def violations(ledger: Ledger, **runs: Any) -> dict[str, int]:
    ledger.close(runs)
    return dict(ledger.violations.counts)


def test_right_once_and_run_once():
    ledger, number = one_request()
    ledger.answered(number, 200, True, 11.0)

    assert violations(ledger, a=[number]) == {}
    assert ledger.counts == {("a", "client", Outcome.RIGHT): 1}


def test_a_wrong_answer():
    ledger, number = one_request()
    ledger.answered(number, 200, False, 11.0)

    assert violations(ledger, a=[number]) == {"wrong": 1}


def test_an_answer_to_what_asked_for_an_error():
    ledger, number = one_request(good=False)
    ledger.answered(number, 200, False, 11.0)

    assert violations(ledger) == {"wrong": 1}


def test_a_doubled_answer():
    ledger, number = one_request()
    ledger.answered(number, 200, True, 11.0)
    ledger.answered(number, 200, True, 12.0)

    assert violations(ledger, a=[number]) == {"settled twice": 1}


def test_no_answer():
    ledger, _ = one_request()

    assert violations(ledger, a=[]) == {"never settled": 1}


@pytest.mark.parametrize(
    ("status", "runs", "kind"),
    [(200, [1, 1], "run twice"), (200, [], "answered but not run"), (503, [1], "refused but run")],
)
def test_what_ran_fits_what_was_answered(status, runs, kind):
    ledger, number = one_request()
    ledger.begin("a", "fault", 10.0, harms=True)
    ledger.answered(number, status, status == 200, 11.0)

    assert violations(ledger, a=runs) == {kind: 1}


@pytest.mark.parametrize("number", [0, 1, 2, 99])
def test_what_ran_was_sent_there(number):
    ledger, sent = one_request()
    other = ledger.sent("b", "client", 10.0)
    for each in (sent, other):
        ledger.left(each)

    assert violations(ledger, a=[number]) == ({} if number == 1 else {"run by the wrong server": 1})


@pytest.mark.parametrize("status", [500, 503, 408])
@pytest.mark.parametrize(
    ("server", "began", "ended", "harms", "excused"),
    [
        ("a", 9.0, 10.5, True, True),
        ("a", 10.5, float("inf"), True, True),
        ("a", 1.0, 10.0 - SLACK_S / 2, True, True),
        ("a", 1.0, 9.0 - SLACK_S, True, False),
        ("a", 11.5, float("inf"), True, False),
        ("a", 9.0, 10.5, False, False),
        ("b", 9.0, 10.5, True, False),
    ],
)
def test_an_error_needs_a_fault_that_harms_at_that_time(status, server, began, ended, harms, excused):
    ledger, number = one_request(runs=False)
    ledger.begin(server, "fault", began, harms=harms).ended = ended
    ledger.answered(number, status, False, 11.0)

    assert bool(violations(ledger)) is not excused


def test_a_probe_may_be_refused_under_any_fault():
    ledger, number = one_request(runs=False, probe=True)
    ledger.begin("a", "fault", 10.0, harms=False)
    ledger.answered(number, 503, False, 11.0)

    assert violations(ledger) == {}


@pytest.mark.parametrize(
    ("cuts", "harms", "harmed", "runs", "kinds"),
    [
        (Cuts.ANY, False, False, [1], set()),
        (Cuts.IDLE, False, False, [], set()),
        (Cuts.IDLE, False, False, [1], {"lost with an idle connection but run"}),
        (Cuts.NONE, True, False, [], {"lost without a reason"}),
        (Cuts.NONE, True, True, [1], set()),
        (Cuts.NONE, False, True, [1], {"lost without a reason"}),
    ],
)
def test_a_lost_answer_needs_a_fault_that_cuts(cuts, harms, harmed, runs, kinds):
    ledger, number = one_request()
    ledger.begin("a", "fault", 10.0, harms=harms, cuts=cuts)
    ledger.lost(number, 11.0, "reset", harmed=harmed)

    assert violations(ledger, a=runs).keys() == kinds


@pytest.mark.parametrize(("cuts", "excused"), [(Cuts.ANY, True), (Cuts.IDLE, True), (Cuts.NONE, False)])
def test_an_idle_connection_is_closed_by_a_fault_that_cuts(cuts, excused):
    ledger = Ledger()
    ledger.begin("a", "fault", 10.0, harms=True, cuts=cuts)
    ledger.closed("a", 9.0, 11.0, "client")

    assert bool(violations(ledger)) is not excused


@given(st.lists(st.sampled_from(["right", "error", "lost", "left", "open"]), max_size=30))
def test_the_sum_is_what_was_sent(fates):
    ledger = Ledger()
    window = ledger.begin("a", "fault", 0.0, harms=True, cuts=Cuts.ANY)
    for fate in fates:
        number = ledger.sent("a", "client", 1.0, runs=False)
        if fate == "right":
            ledger.answered(number, 200, True, 2.0)
        elif fate == "error":
            ledger.answered(number, 500, False, 2.0)
        elif fate == "lost":
            ledger.lost(number, 2.0, "")
        elif fate == "left":
            ledger.left(number)
    ledger.close({})

    assert window.touches(1.0, 2.0)
    assert ledger.total == len(fates)
    assert sum(ledger.counts.values()) + ledger.violations.counts["never settled"] == len(fates)


def answer(status: int, body: bytes, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_an_answer_is_right_for_its_own_request_only():
    body = b'{"outputs": {"number": [[5]], "value": [[22]]}}'

    assert not model_order(5, Random(0)).judge(answer(200, body))
    assert model_order(6, Random(0)).judge(answer(200, body))
    assert model_order(5, Random(0)).judge(answer(200, b"[]"))


def test_an_answer_of_a_script_repeats_number_sum_and_id():
    identified = next(
        order for number in range(99) if (order := script_order(number, Random(number), pad="x")).identity
    )
    good = b'{"number": %d, "crc": %d}' % (identified.number, zlib.crc32(identified.body))
    own = {"x_ms_client_request_id": identified.identity}

    assert not identified.judge(answer(200, good, **own))
    assert identified.judge(answer(200, good))
    assert identified.judge(answer(200, good.replace(b"crc", b"crd"), **own))
    assert identified.judge(answer(500, b"", x_ms_client_request_id="chaos-0"))
    assert not identified.judge(answer(500, b""))


def test_a_stream_is_right_when_it_is_whole():
    order = script_order(7, Random(0), "stream", count=2)
    headers = {"x_ms_client_request_id": order.identity} if order.identity else {}
    whole = b"7:0;" * 50 + b"7:1;" * 50

    assert not order.judge(answer(200, whole, **headers))
    assert order.judge(answer(200, whole[:-4], **headers))


def test_growth_is_seen_and_noise_is_not():
    flat = [100.0 + index % 7 for index in range(200)]
    peak = [*flat[:150], 900.0, *flat[150:]]
    grows = [100.0 + index for index in range(200)]
    warms_up = [min(100.0 + 10 * index, 400.0) for index in range(200)]

    limit = Limit(more=8, part=0.02)
    for samples, allowed in ((flat, True), (peak, True), (grows, False), (warms_up, True)):
        grown = growth(samples)
        assert grown is not None
        assert limit.allows(grown.before, grown.after) is allowed
    assert growth(flat[:19]) is None


@pytest.mark.parametrize("engine", ["raw", "plain", "onnx"])
@pytest.mark.parametrize("mortal", ["", "front", "arbiter"])
def test_the_seed_decides_what_strikes_and_everything_does(engine, mortal):
    planned = schedule(Random("seed"), engine, mortal, 3600)

    assert planned == schedule(Random("seed"), engine, mortal, 3600)
    assert planned != schedule(Random("other seed"), engine, mortal, 3600)
    times = Counter(stroke.fault for stroke in planned)
    mortals = {"": {""}, "front": {"", "front"}, "arbiter": {"", "front", "arbiter"}}[mortal]
    assert times.keys() == {n for n, fault in FAULTS.items() if engine in fault.strikes and fault.ends in mortals}
    assert max(times.values()) - min(times.values()) <= 1
