"""Ranges against plain sets of numbers."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.pool.extents import Extents

LIMIT = 40


def numbers(extents: Extents) -> set[int]:
    """What is in there; fails unless the ranges are in order, apart and not empty."""
    before = -1
    found: set[int] = set()
    for begin, end in extents:
        assert before < begin < end
        before = end
        found.update(range(begin, end))
    return found


ranges = st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT))
steps = st.lists(st.tuples(st.booleans(), ranges), max_size=30)


def play(made: Any) -> tuple[Extents, set[int]]:
    extents, model = Extents(), set[int]()
    for adds, (begin, end) in made:
        (extents.add if adds else extents.remove)(begin, end)
        (model.update if adds else model.difference_update)(range(begin, end))
        assert numbers(extents) == model
    return extents, model


@given(steps, ranges)
def test_what_is_added_is_there_and_what_is_removed_is_not(made, looked_at):
    extents, model = play(made)
    size, number = max(1, looked_at[0]), looked_at[1]
    fitting = [begin for begin in range(LIMIT) if set(range(begin, begin + size)) <= model]
    assert extents.find(size) == (min(fitting) if fitting else None)
    assert extents.reach(number) == min(other for other in range(number, LIMIT + 1) if other not in model)


@given(steps, steps, st.integers(0, LIMIT))
def test_the_highest_range_of_both(ours, theirs, least):
    (one, model), (other, other_model) = play(ours), play(theirs)
    both = {number for number in model & other_model if number >= least}
    found = one.last_of_both(other, least)
    if found is None:
        assert not both
    else:
        assert set(range(*found)) <= both
        assert found[1] - 1 == max(both)
        assert found[0] - 1 not in both
