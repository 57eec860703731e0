"""What the cost model learns from the times that it is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.dispatch.cost import QUANTILE, WINDOW, CostModel

times = st.floats(0.0, 10.0)


def test_before_anything_was_observed_a_frame_holds_one_request_and_no_cost_is_known():
    cost = CostModel()
    assert cost.predict_s(1) is None
    assert cost.largest(1000.0, 128) == 1
    assert cost.wait_s(50, 10, 2) == 0.0


def test_a_size_that_was_not_seen_costs_twice_the_one_below_it():
    cost = CostModel()
    cost.observe(1, 0.003)
    assert [cost.predict_s(count) for count in (1, 2, 3, 4, 5, 8, 9, 16)] == pytest.approx(
        [0.003, 0.006, 0.012, 0.012, 0.024, 0.024, 0.048, 0.048]
    )


def test_a_size_below_all_that_were_seen_costs_what_the_smallest_of_them_does():
    cost = CostModel()
    cost.observe(8, 0.010)
    cost.observe(32, 0.100)
    assert [cost.predict_s(count) for count in (1, 4, 8)] == [0.010, 0.010, 0.010]


def test_a_gap_between_seen_sizes_is_filled_from_below():
    cost = CostModel()
    cost.observe(1, 0.001)
    cost.observe(8, 0.002)
    assert cost.predict_s(4) == pytest.approx(0.004)
    assert cost.predict_s(8) == 0.002


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (65, 128)])
def test_sizes_are_filed_by_powers_of_two(low, high):
    cost = CostModel()
    cost.observe(low, 0.5)
    assert cost.predict_s(high) == 0.5
    assert cost.predict_s(high + 1) == 1.0


@settings(deadline=None)
@given(times_s=st.lists(times, min_size=1, max_size=WINDOW))
def test_the_answer_is_a_high_quantile_of_the_times(times_s):
    cost = CostModel()
    for time_s in times_s:
        cost.observe(1, time_s)
    answer_s = cost.predict_s(1)
    assert answer_s in times_s
    assert sum(time_s <= answer_s for time_s in times_s) >= QUANTILE * len(times_s)
    assert sum(time_s >= answer_s for time_s in times_s) >= (1 - QUANTILE) * len(times_s) - 1


def test_one_outlier_in_a_full_window_does_not_count_and_many_do():
    cost = CostModel()
    for _ in range(WINDOW - 1):
        cost.observe(1, 0.001)
    cost.observe(1, 9.0)
    assert cost.predict_s(1) == 0.001
    for _ in range(8):
        cost.observe(1, 9.0)
    assert cost.predict_s(1) == 9.0


def test_old_times_are_forgotten():
    cost = CostModel()
    for _ in range(3 * WINDOW):
        cost.observe(1, 9.0)
    for _ in range(WINDOW + 8):
        cost.observe(1, 0.001)
    assert cost.predict_s(1) == 0.001


def test_sizes_grow_while_they_are_cheap_and_stop_at_the_target():
    cost, sizes = CostModel(), [1]
    for _ in range(6):
        cost.observe(sizes[-1], 0.003 * sizes[-1])
        sizes.append(cost.largest(0.025, 128))
    assert sizes == [1, 8, 8, 8, 8, 8, 8]


def test_an_engine_that_stacks_gets_large_frames():
    cost, sizes = CostModel(), [1]
    for _ in range(5):
        cost.observe(sizes[-1], 0.010 + 0.0001 * sizes[-1])
        sizes.append(cost.largest(0.025, 128))
    assert sizes == [1, 2, 4, 8, 16, 32]


@settings(deadline=None)
@given(
    observed=st.lists(st.tuples(st.integers(1, 300), times), max_size=30),
    target_s=times,
    cap=st.integers(1, 300),
)
def test_the_largest_frame_keeps_the_target_and_the_cap_and_the_next_would_not(observed, target_s, cap):
    cost = CostModel()
    for count, time_s in observed:
        cost.largest(target_s, cap)  # an answer that was kept must not outlive what it was made from
        cost.observe(count, time_s)
    count = cost.largest(target_s, cap)
    cost_s, next_s = cost.predict_s(count), cost.predict_s(min(2 * count, cap))
    assert 1 <= count <= cap
    assert count == 1 or (cost_s is not None and cost_s <= target_s)
    assert count == cap or next_s is None or next_s > target_s


def test_the_wait_is_that_of_the_frames_before_shared_by_the_scorers():
    cost = CostModel()
    cost.observe(10, 0.2)
    assert cost.wait_s(waiting=40, frame_count=10, scorers=1) == pytest.approx(0.8)
    assert cost.wait_s(waiting=40, frame_count=10, scorers=4) == pytest.approx(0.2)
    assert cost.wait_s(waiting=0, frame_count=10, scorers=1) == 0.0
    assert cost.wait_s(waiting=40, frame_count=10, scorers=0) == pytest.approx(0.8)
