"""What the cost model learns from the times that it is told."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.dispatch.cost import FORGET_AFTER_TIMES, QUANTILE, WINDOW, CostModel

times = st.floats(0.0, 10.0)
MB = 1_000_000
TARGET_S, CAP = 0.025, 128


def expected_s(cost: CostModel, count: int, size_bytes: int = 0) -> float:
    predicted = cost.predict(count, size_bytes)
    assert predicted is not None
    return predicted.quantile_s


def sizes_of_frames(cost: CostModel, busy_s: Callable[[int], float], frames: int, each_bytes: int = 0) -> list[int]:
    """A scorer for which always enough waits: the sizes of its frames."""
    sizes = []
    for _ in range(frames):
        sizes.append(cost.largest(TARGET_S, CAP, each_bytes))
        cost.observe(sizes[-1], sizes[-1] * each_bytes, busy_s(sizes[-1]))
    return sizes


def test_before_anything_was_observed_a_frame_holds_one_request_and_no_cost_is_known():
    cost = CostModel()
    assert cost.predict(1, 0) is None
    assert cost.largest(1000.0, 128) == 1
    assert cost.dearest_s == 0.0


def test_a_size_that_was_not_seen_costs_twice_the_one_below_it():
    cost = CostModel()
    cost.observe(1, 0, 0.003)
    assert [expected_s(cost, count) for count in (1, 2, 3, 4, 5, 8, 9, 16)] == pytest.approx(
        [0.003, 0.006, 0.012, 0.012, 0.024, 0.024, 0.048, 0.048]
    )


def test_a_size_below_all_that_were_seen_costs_what_the_smallest_of_them_does():
    cost = CostModel()
    cost.observe(8, 0, 0.010)
    cost.observe(32, 0, 0.100)
    assert [expected_s(cost, count) for count in (1, 4, 8)] == [0.010, 0.010, 0.010]


def test_a_gap_between_seen_sizes_is_filled_from_below_but_costs_no_more_than_what_is_larger():
    cost = CostModel()
    cost.observe(1, 0, 0.001)
    cost.observe(8, 0, 0.003)
    assert [expected_s(cost, count) for count in (2, 4, 8)] == [0.002, 0.003, 0.003]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (65, 128)])
def test_counts_are_filed_by_powers_of_two(low, high):
    cost = CostModel()
    cost.observe(low, 0, 0.5)
    assert expected_s(cost, high) == 0.5
    assert expected_s(cost, high + 1) == 1.0


def test_a_large_body_says_nothing_about_small_ones():
    cost = CostModel()
    for _ in range(10):
        cost.observe(1, 100, 0.001)
        cost.observe(1, 50 * MB, 2.0)
    assert expected_s(cost, 1, 100) == 0.001
    assert expected_s(cost, 2, 200) == 0.002
    assert expected_s(cost, 1, 50 * MB) == 2.0


def test_a_large_body_that_is_the_first_to_come_keeps_small_ones_alone_only_once():
    cost = CostModel()
    cost.observe(1, 50 * MB, 2.0)
    assert sizes_of_frames(cost, lambda count: 0.001 * count, 5, each_bytes=100) == [1, 2, 4, 8, 16]


def test_small_bodies_say_of_a_large_one_that_it_costs_by_its_bytes():
    cost = CostModel()
    cost.observe(1, 60_000, 0.001)
    assert expected_s(cost, 1, 64 * 60_000) == pytest.approx(0.064)


def test_frames_of_large_bodies_grow_from_one_again():
    cost = CostModel()
    sizes_of_frames(cost, lambda count: 0.00001 * count, 20, each_bytes=100)
    assert sizes_of_frames(cost, lambda count: 0.0015 * count, 6, each_bytes=MB) == [1, 2, 4, 8, 16, 16]


@settings(deadline=None)
@given(times_s=st.lists(times, min_size=1, max_size=WINDOW))
def test_the_answer_is_a_high_quantile_of_the_times(times_s):
    cost = CostModel()
    for time_s in times_s:
        cost.observe(1, 0, time_s)
    answer_s = expected_s(cost, 1)
    assert answer_s in times_s
    assert sum(time_s > answer_s for time_s in times_s) <= (1 - QUANTILE) * len(times_s) + 1
    assert sum(time_s < answer_s for time_s in times_s) <= QUANTILE * len(times_s)


@settings(deadline=None)
@given(usual_s=st.floats(0.001, 0.002), others=st.integers(1, 3 * WINDOW), hiccup_s=st.floats(1.0, 10.0))
def test_one_slow_frame_never_speaks_for_the_others(usual_s, others, hiccup_s):
    cost = CostModel()
    for first in (True, False):  # a first run, and a pause later on
        if first:
            cost.observe(1, 0, hiccup_s)
        for _ in range(others):
            cost.observe(1, 0, usual_s)
        if not first:
            cost.observe(1, 0, hiccup_s)
        assert expected_s(cost, 1) == usual_s
        cost = CostModel()


def test_a_tenth_of_slow_frames_does():
    cost = CostModel()
    for number in range(2 * WINDOW):
        cost.observe(1, 0, 9.0 if number % 8 == 0 else 0.001)
    assert expected_s(cost, 1) == 9.0


def test_old_times_are_forgotten():
    cost = CostModel()
    for _ in range(3 * WINDOW):
        cost.observe(1, 0, 9.0)
    for _ in range(WINDOW + 8):
        cost.observe(1, 0, 0.001)
    predicted = cost.predict(1, 0)
    assert predicted is not None
    assert tuple(predicted) == pytest.approx((0.001, 0.001))


def test_sizes_grow_while_they_are_cheap_and_stop_at_the_target():
    assert sizes_of_frames(CostModel(), lambda count: 0.003 * count, 7) == [1, 2, 4, 8, 8, 8, 8]


@pytest.mark.parametrize("fixed_s", [0.001, 0.010, 0.015, 0.040])
def test_an_engine_that_stacks_gets_large_frames(fixed_s):
    """Also one for which twice one request is predicted to miss the target, and one that misses it with a single one."""
    cost = CostModel()
    cost.stacks = True
    sizes = sizes_of_frames(cost, lambda count: fixed_s + 0.00005 * count, 20_000)
    assert sizes[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 128]
    assert set(sizes[9:]) == {128}


@settings(max_examples=20, deadline=None)
@given(one_s=st.floats(0.0001, 10.0), stacks=st.booleans())
def test_an_engine_that_gains_nothing_by_company_keeps_the_target(one_s, stacks):
    """Whether it is a script or a model that keeps all cores busy with a single request."""
    cost = CostModel()
    cost.stacks = stacks
    sizes = sizes_of_frames(cost, lambda count: one_s * count, 2000)
    over_s = sum(one_s * count for count in sizes if count > 1 and one_s * count > TARGET_S)
    assert over_s <= 2 * TARGET_S * 4 + 0.06 * sum(one_s * count for count in sizes)
    assert stacks or not over_s


@settings(max_examples=20, deadline=None)
@given(run_s=st.floats(0.0001, 0.024), rows_of_run=st.sampled_from([2, 4, 16]))
def test_a_frame_that_becomes_several_runs_keeps_the_target(run_s: float, rows_of_run: int) -> None:
    """An engine that stacks so many rows and no more: frames stop where the runs together meet the target."""

    def frame_s(count: int) -> float:
        return -(-count // rows_of_run) * run_s

    cost = CostModel()
    cost.stacks = True
    sizes = sizes_of_frames(cost, frame_s, 2000)
    over_s = sum(frame_s(count) for count in sizes if frame_s(count) > TARGET_S)
    assert over_s <= 2 * TARGET_S * 4 + 0.06 * sum(map(frame_s, sizes))
    usual = sorted(sizes)[len(sizes) // 2]
    assert usual >= min(rows_of_run, CAP)


def test_a_frame_is_at_most_twice_as_large_as_what_was_seen():
    """A first reply may have been a refusal, which is cheap: a frame of 128 after it may take forever."""
    cost = CostModel()
    cost.observe(1, 0, 0.00002)
    assert cost.largest(TARGET_S, CAP) == 2
    cost.observe(2, 0, 0.020)
    assert cost.largest(TARGET_S, CAP) == 2


@pytest.mark.parametrize("hiccup_s", [0.1, 1.0])
def test_a_size_that_was_slow_once_is_tried_again(hiccup_s):
    """Its own frames were the only ones that could show that it is quick, and none were sent any more."""
    cost = CostModel()
    cost.observe(1, 0, 0.001)
    cost.observe(2, 0, 0.002)
    cost.observe(4, 0, hiccup_s)
    enough = int((FORGET_AFTER_TIMES * hiccup_s + 2.0) / 0.002) + 100
    sizes = sizes_of_frames(cost, lambda count: 0.001 * count, enough)
    assert sizes[0] == 2
    assert sizes[-1] == 16


@settings(max_examples=20, deadline=None)
@given(cliff=st.sampled_from([2, 4, 16]), slow_s=st.floats(0.05, 5.0))
def test_trying_a_size_that_stays_slow_costs_little(cliff, slow_s):
    """A model that falls off a cliff at some size: nearly all the time goes to frames that keep the target."""
    cost = CostModel()
    spent_s = {True: 0.0, False: 0.0}
    for _ in range(20_000):
        count = cost.largest(TARGET_S, CAP)
        busy_s = slow_s if count >= cliff else 0.004
        spent_s[count >= cliff] += busy_s
        cost.observe(count, 0, busy_s)
    assert spent_s[True] <= 2 * slow_s + spent_s[False] / (FORGET_AFTER_TIMES - 4)


def test_what_is_slow_while_it_warms_up_gets_large_frames_soon_after():
    sizes = []
    cost = CostModel()
    for number in range(200):
        sizes.append(cost.largest(TARGET_S, CAP))
        cost.observe(sizes[-1], 0, 0.1 if number < 20 else 0.0005 * sizes[-1])
    assert sizes[:20] == [1] * 20
    assert sizes[-1] == 32
    assert sizes.index(2) < 20 + WINDOW + 8


def test_two_kinds_of_requests_are_sized_for_the_slow_kind_where_a_frame_mostly_has_one():
    """One request of ten takes 20 ms, the others nothing: a frame of eight mostly has a slow one."""
    cost = CostModel()
    number = 0

    def busy_s(count: int) -> float:
        nonlocal number
        slow = sum((number + k) % 10 == 0 for k in range(count))
        number += count
        return 0.0001 * count + 0.020 * slow

    sizes = sizes_of_frames(cost, busy_s, 500)
    assert max(sizes[100:]) <= 16
    assert min(sizes[100:]) >= 4


@settings(deadline=None)
@given(
    observed=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1 << 28), times), max_size=30),
    target_s=times,
    cap=st.integers(1, 300),
    each_bytes=st.integers(0, 1 << 28),
)
def test_the_largest_frame_keeps_the_target_and_the_cap(observed, target_s, cap, each_bytes):
    cost = CostModel()
    for count, size_bytes, time_s in observed:
        cost.largest(target_s, cap, each_bytes)  # an answer that was kept must not outlive what it was made from
        before = cost.version
        known = cost.predict(count, size_bytes)
        cost.observe(count, size_bytes, time_s)
        assert cost.version != before or cost.predict(count, size_bytes) == known
    count = cost.largest(target_s, cap, each_bytes)
    assert 1 <= count <= cap
    class_bytes = (1 << each_bytes.bit_length()) - 1  # what it decides for: all requests of that class of sizes
    assert count == 1 or expected_s(cost, count, count * class_bytes) <= target_s
    assert count == 1 or count <= 2 * 2 ** max((seen - 1).bit_length() for seen, _, _ in observed)


def test_a_frame_is_sized_for_the_largest_requests_of_a_class_of_sizes():
    cost = CostModel()
    cost.observe(1, 0, 1.0)
    cost.observe(65, 1 << 20, 0.0)
    assert cost.largest(0.0, 129, 8192) == cost.largest(0.0, 129, 16383)


@settings(deadline=None)
@given(
    observed=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1 << 28), times), min_size=1, max_size=30),
    count=st.integers(1, 300),
    size_bytes=st.integers(0, 1 << 30),
)
def test_once_something_is_known_everything_has_a_prediction(observed, count, size_bytes):
    cost = CostModel()
    for seen, seen_bytes, time_s in observed:
        cost.observe(seen, seen_bytes, time_s)
    predicted = cost.predict(count, size_bytes)
    assert predicted is not None
    assert predicted.quantile_s >= 0.0
    assert cost.dearest_s <= max(time_s for _, _, time_s in observed)
