"""Which load comes next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.tune.ramp import LOOKS, MOST_CLIENTS, Point, near_knee, next_level

SLO = 10.0


def climb(p99_ms, throughput=lambda clients: 100.0 * clients) -> list[Point]:
    """What a whole rise shows on a server whose p99 and throughput depend on the number of clients."""
    points: list[Point] = []
    while (clients := next_level(points, SLO)) is not None:
        points.append(Point(clients, throughput(clients), 0.0, p99_ms(clients), 100))
        assert len(points) < 20
    return points


def levels(points: list[Point]) -> list[int]:
    return [point.clients for point in points]


def test_it_rises_to_the_limit_and_looks_between():
    assert levels(climb(lambda clients: clients / 4)) == [1, 4, 16, 64, 256, 32, 45]
    assert levels(climb(lambda clients: 1.1 * clients)) == [1, 4, 16, 64, 8, 11]
    assert levels(climb(lambda clients: 3.0 * clients)) == [1, 4, 16, 2, 3]


def test_it_ends_where_no_load_keeps_the_limit():
    assert levels(climb(lambda clients: 100.0)) == [1]
    assert levels(climb(lambda clients: 11.0)) == [1, 4]


def test_one_disturbed_look_does_not_end_it():
    disturbed = climb(lambda clients: 15.0 if clients == 4 else 1.0)
    assert levels(disturbed)[:5] == [1, 4, 16, 64, 256]


def test_it_ends_when_more_clients_bring_nothing():
    assert levels(climb(lambda clients: 1.0, lambda clients: min(clients, 4) * 100.0)) == [1, 4, 16]


def test_failures_break_the_limit():
    assert next_level([Point(1, 100, 1, 1, 100), Point(4, 100, 1, 1, 100, failures=1)], SLO) == 2


@given(st.dictionaries(st.integers(1, MOST_CLIENTS), st.tuples(st.floats(0, 1e5), st.floats(0, 50))))
def test_it_always_ends_and_asks_for_no_level_twice(world):
    points = climb(lambda clients: world.get(clients, (0, 1))[1], lambda clients: world.get(clients, (clients, 0))[0])

    assert len(points) <= 5 + LOOKS
    assert len(set(levels(points))) == len(points)
    assert all(1 <= point.clients <= MOST_CLIENTS for point in points)


@pytest.mark.parametrize(
    ("p99s", "again"), [([1, 5, 20], (1, 4, 16)), ([1, 5, 9], (4, 16)), ([5, 20, 30], (1, 4)), ([20, 30, 40], (1, 4))]
)
def test_the_best_level_and_its_neighbours_are_measured_again(p99s, again):
    points = [Point(4**number, 4.0**number, 0, p99, 100) for number, p99 in enumerate(p99s)]
    assert near_knee(points, SLO) == again
