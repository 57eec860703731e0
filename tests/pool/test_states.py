"""The scorer's life as a table: for everything that can happen there is a row, for everything else a reason."""

import itertools

import pytest

from scoring_runtime.pool.life import TABLE, Event, State

IMPOSSIBLE = {
    (State.STARTING, Event.SENT): "only idle scorers are sent frames, and none is idle before READY",
    (State.STARTING, Event.SENT_AHEAD): "only who works on a frame is sent another",
    (State.STARTING, Event.NEXT): "no frame was sent ahead",
    (State.STARTING, Event.SETTLED): "a reply to what was not sent is a frame error",
    (State.READY, Event.READY): "a second READY is a frame error",
    (State.READY, Event.SENT_AHEAD): "only who works on a frame is sent another",
    (State.READY, Event.NEXT): "no frame was sent ahead",
    (State.READY, Event.SETTLED): "a reply to what was not sent is a frame error",
    (State.BUSY, Event.READY): "a second READY is a frame error",
    (State.BUSY, Event.SENT): "who is sent a frame is not idle any more",
    (State.DRAINING, Event.SENT): "a pool that drains has no idle scorers",
    (State.DRAINING, Event.SENT_AHEAD): "who drains finishes what it has",
    **{(State.DEAD, event): "the process is gone, its channel is closed, its seat is empty" for event in Event},
}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(State, Event)])
def test_every_event_in_every_state_has_a_row_or_a_reason(state, event):
    assert ((state, event) in TABLE) != ((state, event) in IMPOSSIBLE)


def test_every_life_ends():
    assert {state for state, event in TABLE if event is Event.ENDED} == set(State) - {State.DEAD}
    assert {after for (_, event), after in TABLE.items() if event is Event.ENDED} == {State.DEAD}


def test_who_drains_only_ends():
    assert {after for (state, _), after in TABLE.items() if state is State.DRAINING} == {State.DRAINING, State.DEAD}


def test_only_who_is_busy_can_be_settled_and_only_who_is_ready_can_be_sent_anything():
    assert [state for state, event in TABLE if event is Event.SENT] == [State.READY]
    assert [state for state, event in TABLE if event is Event.SETTLED] == [State.BUSY, State.DRAINING]


def test_a_second_frame_is_for_who_works_on_one_and_that_goes_on():
    assert [row for row in TABLE.items() if row[0][1] is Event.SENT_AHEAD] == [
        ((State.BUSY, Event.SENT_AHEAD), State.BUSY)
    ]
    assert {state: after for (state, event), after in TABLE.items() if event is Event.NEXT} == {
        State.BUSY: State.BUSY,
        State.DRAINING: State.DRAINING,
    }
