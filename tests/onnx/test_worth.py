"""How many rows a run should hold, learned from made-up times."""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.onnx import worth
from scoring_runtime.onnx.worth import Kind, Worth, measure

Seconds = Callable[[int], float]

MODELS: dict[str, Seconds] = {
    "trees": lambda rows: 10e-6 + 1e-6 * rows,
    "text": lambda rows: 400e-6 + 400e-6 * rows,
    "network of convolutions": lambda rows: 1e-3 * rows * (1.0 if rows == 1 else 1.25),
    "image that is dearer to copy than to score": lambda rows: 30e-6 * rows * (1.0 if rows == 1 else 2.5),
    "cache of 8 rows": lambda rows: 1e-3 + (0.1e-3 * rows if rows <= 8 else 0.5e-3 * rows),
    "accelerator": lambda rows: 5e-3 + 1e-6 * rows,
}


def serve(kind: Kind, seconds_of: Seconds, frame_rows: int, frames: int) -> float:
    """Seconds for frames of so many requests of one row, in runs as `kind` wants them."""
    spent_s = 0.0
    for _ in range(frames):
        left = frame_rows
        while left:
            rows = min(left, kind.most_rows)
            seconds = seconds_of(rows)
            kind.observe(rows, rows, seconds)
            spent_s += seconds
            left -= rows
    return spent_s


def best_s(seconds_of: Seconds, frame_rows: int) -> float:
    """Of one frame, with the best fixed bound."""
    return min(
        frame_rows // rows * seconds_of(rows) + (seconds_of(frame_rows % rows) if frame_rows % rows else 0)
        for rows in (1, 2, 4, 8, 16, 32, 64)
        if rows <= frame_rows
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frame_rows", [1, 2, 7, 32])
def test_what_is_learned_is_nearly_as_quick_as_the_best_bound(name: str, frame_rows: int) -> None:
    seconds_of = MODELS[name]
    kind = Kind(128)
    serve(kind, seconds_of, frame_rows, 50)
    spent_s = serve(kind, seconds_of, frame_rows, 1000)
    assert spent_s <= 1.06 * 1000 * best_s(seconds_of, frame_rows)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(MODELS)))
def test_neighbours_on_the_machine_do_not_mislead(seed: int, name: str) -> None:
    """A third of the runs takes up to five times as long as it should."""
    order = random.Random(seed)
    seconds_of = MODELS[name]

    def disturbed(rows: int) -> float:
        return seconds_of(rows) * (order.uniform(1, 5) if order.random() < 1 / 3 else order.uniform(1, 1.02))

    kind = Kind(128)
    serve(kind, disturbed, 32, 400)
    chosen = 0.0
    for _ in range(500):
        chosen += seconds_of(kind.most_rows) / kind.most_rows
        serve(kind, disturbed, 32, 1)
    assert chosen / 500 <= 1.15 * best_s(seconds_of, 32) / 32


def test_one_row_is_the_beginning_and_larger_runs_follow_at_once() -> None:
    kind = Kind(128)
    sizes = []
    for _ in range(8):
        sizes.append(kind.most_rows)
        kind.observe(kind.most_rows, kind.most_rows, MODELS["accelerator"](kind.most_rows))
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128]


def test_a_model_that_does_not_gain_pays_for_three_trials_and_then_little() -> None:
    seconds_of = MODELS["network of convolutions"]
    kind = Kind(128)
    serve(kind, seconds_of, 32, 1)
    assert kind.most_rows == 1
    trials = 0.0
    total = 0.0
    for _ in range(3000):
        rows = kind.most_rows
        kind.observe(rows, rows, seconds_of(rows))
        total += seconds_of(rows)
        trials += seconds_of(rows) if rows != 1 else 0
    assert 0 < trials <= 1.1 * worth.TRIAL_SHARE * total


def test_what_was_slow_once_is_tried_again() -> None:
    kind = Kind(128)
    serve(kind, lambda rows: 1e-3 * rows * (1 if rows == 1 else 3), 32, 50)
    assert kind.best_rows == 1
    serve(kind, MODELS["accelerator"], 32, 200)
    assert kind.best_rows == 32


def test_the_smallest_of_equals_is_taken() -> None:
    kind = Kind(16)
    for rows in (1, 2, 4, 8, 16):
        for _ in range(worth.SURE_AFTER):
            kind.observe(rows, rows, 1e-3 * rows * (1 - 0.001 * rows))
    assert kind.best_rows == 1


def test_padding_makes_a_run_dearer() -> None:
    """Two rows for the price of 1.5, but 40 % of them is padding."""
    for used, best in ((1.0, 2), (0.6, 1)):
        kind = Kind(2)
        for _ in range(5):
            kind.observe(1, 100, 1e-3)
            kind.observe(2, 200 * used, 1.5e-3)
        assert kind.best_rows == best


@given(cap=st.integers(1, 300), times=st.lists(st.tuples(st.integers(0, 400), st.floats(0, 10)), max_size=60))
def test_the_bound_is_kept_whatever_comes(cap: int, times: list[tuple[int, float]]) -> None:
    kind = Kind(cap)
    for rows, seconds in times:
        kind.observe(rows, rows, seconds)
        assert 1 <= kind.most_rows <= cap
        assert 1 <= kind.best_rows <= cap


@pytest.mark.parametrize(
    ("name", "rows", "gain"),
    [
        ("trees", 128, 11 / (138 / 128)),
        ("network of convolutions", 1, 0.8),
        ("cache of 8 rows", 8, 1.1 / (1.8 / 8)),
    ],
)
def test_the_measurement_at_warm_up(name: str, rows: int, gain: float) -> None:
    kind = Kind(128)
    measure(kind, 1, 128, MODELS[name])
    assert kind.best_rows == rows
    assert kind.gain() == pytest.approx(gain)


@pytest.mark.parametrize("row_s", [1e-5, 1e-3, 0.02, 0.1, 0.3, 5.0])
@pytest.mark.parametrize("cap", [1, 3, 128])
def test_the_measurement_takes_half_a_second_or_one_run(row_s: float, cap: int) -> None:
    spent = []

    def seconds_of(rows: int) -> float:
        spent.append(row_s * rows)
        return spent[-1]

    measure(Kind(cap), 1, cap, seconds_of)
    assert sum(spent) <= max(worth.BUDGET_S, row_s)


def test_gain_needs_something_to_compare() -> None:
    kind = Kind(128)
    assert kind.gain() is None
    kind.observe(1, 1, 1.0)
    assert kind.gain() is None


def test_shapes_of_about_one_size_share_what_is_known() -> None:
    known = Worth(128)
    kind, cells = known.of(((17,), (17,), ()))
    assert cells == 35
    assert known.of(((31,), (31,), ())) == (kind, 63)
    assert known.of(((32,), (32,), ()))[0] is not kind
    assert known.of(((17,), (17,), ()))[0] is kind


def test_clients_cannot_make_it_large() -> None:
    known = Worth(128)
    for number in range(5000):
        known.of(((number, 1 << (number % 40)),))
    assert len(known._by_signature) <= worth._MOST_SIGNATURES
    assert len(known._kinds) <= worth._MOST_KINDS


def test_it_costs_a_tiny_model_little() -> None:
    """Less than a tenth of a microsecond a request, were the machine idle: 32 of them share what one run costs."""
    known = Worth(128)
    signature = ((4,),)
    measure(known.of(signature)[0], 4, 128, MODELS["trees"])
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            kind, cells = known.of(signature)
            assert kind.most_rows >= 32
            kind.observe(32, 32 * cells, 42e-6)
        times.append((time.perf_counter() - began) / 200)
    assert min(times) < 32 * 0.3e-6


def test_a_clock_that_sees_nothing_pass_says_nothing_of_the_gain():
    kind = Kind(64)
    measure(kind, 4, 64, lambda rows: 0.0)
    assert kind.gain() is None
