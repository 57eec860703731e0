"""One session serves while a better one is prepared: what is swapped, what is not, and that no request is lost."""

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from scoring_runtime.onnx.dtypes import Tolerance
from scoring_runtime.onnx.engine import Engine
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan
from scoring_runtime.onnx.runner import Runner
from scoring_runtime.onnx.session import RunRefusedError, Session
from scoring_runtime.onnx.swap import Sample, Swapping, take, why_differs
from scoring_runtime.scorer.loop import LoadError

ROWS = np.random.default_rng(7).uniform(1, 2, (3, 4)).astype(np.float32)
PATIENCE_S = 30.0


@pytest.fixture
def adds(build, tmp_path):
    """A session of a model that adds a number, opened for real."""

    def open_one(number: float, level: str = "all", name: str = "y", size: int = 4) -> Session:
        model = build(
            [helper.make_node("Add", ["x", "c"], ["z"]), helper.make_node("Identity", ["z"], [name])],
            {"x": (T.FLOAT, ["N", size])},
            {name: (T.FLOAT, ["N", size])},
            [numpy_helper.from_array(np.array(number, np.float32), "c")],
        )
        path: Path = tmp_path / f"{number}-{name}-{size}.onnx"
        path.write_bytes(model.SerializeToString())
        return open_session(SessionPlan(path, 1, ("cpu",), graph_optimization=level))

    return open_one


def swapping(current: Runner, build: Callable[[], Runner], *, why_not: Any = None) -> Swapping:
    samples = take(current, [[ROWS]])
    return Swapping(current, build, why_not or (lambda better: why_differs(better, samples)), "the old", "the new")


def test_the_better_session_takes_over_and_the_old_one_is_let_go(adds):
    old, new = adds(1.0, "off"), adds(1.0, "all")
    gone = weakref.ref(old)
    go = threading.Event()

    def build():
        assert go.wait(PATIENCE_S)
        return new

    runner = swapping(old, build)
    assert runner.state == "building: the new, 0 s so far"
    np.testing.assert_array_equal(runner.run([ROWS])[0], ROWS + 1)
    assert [tensor.name for tensor in runner.inputs] == ["x"]
    assert runner.providers == old.providers
    assert runner.threads == 1
    del old
    go.set()
    assert runner.join(PATIENCE_S)
    assert runner.state == "swapped the old for the new after 0 s"
    np.testing.assert_array_equal(runner.run([ROWS])[0], ROWS + 1)
    gc.collect()
    assert gone() is None


def test_a_run_that_the_swap_overtakes_can_still_be_stopped(adds):
    """It is the old session's, whichever serves now."""
    began, stopped, go = threading.Event(), threading.Event(), threading.Event()
    old = adds(1.0, "off")
    plain, take_samples = old.run, take(old, [[ROWS]])

    def long_run(arrays):
        began.set()
        assert stopped.wait(PATIENCE_S)
        return plain(arrays)

    old.run, old.stop = long_run, stopped.set

    def build():
        assert go.wait(PATIENCE_S)
        return adds(1.0, "all")

    runner = Swapping(old, build, lambda better: why_differs(better, take_samples), "the old", "the new")
    running = threading.Thread(target=runner.run, args=([ROWS],))
    running.start()
    assert began.wait(PATIENCE_S)
    go.set()
    assert runner.join(PATIENCE_S)
    assert runner.state.startswith("swapped")
    runner.stop()
    running.join(PATIENCE_S)
    assert stopped.is_set()


def test_a_build_that_fails_changes_nothing(adds, caplog):
    def build():
        raise LoadError("there is no room on the GPU")

    runner = swapping(adds(1.0), build)
    assert runner.join(PATIENCE_S)
    assert runner.state == "kept the old: the new cannot be had: there is no room on the GPU"
    np.testing.assert_array_equal(runner.run([ROWS])[0], ROWS + 1)
    assert caplog.record_tuples[-1] == ("scoring_runtime.onnx.swap", logging.ERROR, runner.state)


def test_outputs_that_differ_are_not_swapped_in(adds):
    others = [adds(1.5)]
    gone = weakref.ref(others[0])
    runner = swapping(adds(1.0), others.pop)
    assert runner.join(PATIENCE_S)
    assert runner.state.startswith(
        "kept the old: the new was ready after 0 s, but output 'y' differs, by up to 0.5 where"
    )
    assert runner.state.endswith("(allowed: 1e-05 of a value plus 1e-06 of the largest)")
    np.testing.assert_array_equal(runner.run([ROWS])[0], ROWS + 1)
    gc.collect()
    assert gone() is None  # it does not go on holding memory


def test_a_wider_tolerance_may_be_stated(adds):
    samples = take(adds(1.0), [[ROWS]])
    assert why_differs(adds(1.01), samples) is not None
    assert why_differs(adds(1.01), samples, Tolerance(1e-2, 1e-3)) is None


def test_a_tolerance_is_for_floats_only(build, tmp_path):
    def rounding(name: str, number: int) -> Session:
        model = build(
            [helper.make_node("Add", ["x", "c"], ["y"])],
            {"x": (T.INT64, ["N", 1])},
            {"y": (T.INT64, ["N", 1])},
            [numpy_helper.from_array(np.array(number), "c")],
        )
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return open_session(SessionPlan(path, 1, ("cpu",)))

    samples = take(rounding("a", 1_000_000), [[np.array([[1]])]])
    assert why_differs(rounding("b", 1_000_001), samples, Tolerance(0.1, 0.1)) == "output 'y' differs"


def test_another_signature_is_not_swapped_in(adds):
    for other, why in (
        (adds(1.0, name="z2"), "it has other outputs: z2 (float32) in place of y (float32)"),
        (adds(1.0, size=5), "it fails on a sample: "),
    ):
        runner = swapping(adds(1.0), [other].pop)
        assert runner.join(PATIENCE_S)
        assert why in runner.state


def test_without_samples_nothing_is_swapped(adds):
    assert take(adds(1.0), [[ROWS[:, :3]]]) == []
    runner = swapping(adds(1.0), lambda: adds(1.0), why_not=lambda better: why_differs(better, []))
    assert runner.join(PATIENCE_S)
    assert "there are no samples to compare the outputs with" in runner.state


def test_what_a_sample_is_compared_by_was_taken_before(adds):
    runner = adds(1.0)
    (sample,) = take(runner, [[ROWS]])
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.outputs[0], ROWS + 1)


def test_errors_of_the_present_session_come_through(adds):
    runner = swapping(adds(1.0), lambda: adds(1.0))
    with pytest.raises(RunRefusedError):
        runner.run([ROWS[:, :3]])
    assert runner.join(PATIENCE_S)


def test_every_request_under_way_is_answered_by_one_or_the_other(adds):
    # So near that they agree within the tolerance, and yet each answer tells whose it is.
    old, new = adds(1.0), adds(np.float32(1.000001))
    answers = {"old": old.run([ROWS])[0], "new": new.run([ROWS])[0]}
    assert not np.array_equal(answers["old"], answers["new"])
    go, stop = threading.Event(), threading.Event()

    def build():
        assert go.wait(PATIENCE_S)
        return new

    runner = swapping(old, build)
    seen: list[list[str]] = [[], [], []]

    def ask(mine: list[str]) -> None:
        while not stop.is_set():
            (output,) = runner.run([ROWS])
            mine.append(next((who for who, answer in answers.items() if np.array_equal(answer, output)), "neither"))

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    while min(map(len, seen)) < 100:
        assert all(thread.is_alive() for thread in threads)
    go.set()
    assert runner.join(PATIENCE_S)
    after = [len(mine) for mine in seen]
    while any(len(mine) < count + 100 for mine, count in zip(seen, after, strict=True)):
        assert all(thread.is_alive() for thread in threads)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    for mine in seen:
        change = mine.index("new")
        assert set(mine[:change]) == {"old"}
        assert set(mine[change:]) == {"new"}  # for each of them once, and for good


def test_an_engine_answers_on_through_a_swap(adds, score):
    go = threading.Event()

    def build():
        assert go.wait(PATIENCE_S)
        return adds(1.0, "all")

    runner = swapping(adds(1.0, "off"), build)
    engine = Engine(runner, "adds", 128)
    bodies = [{"data": [[number, 0, 0, 0]]} for number in range(8)]
    expected = [[[number + 1, 1, 1, 1]] for number in range(8)]
    for step in (go.set, lambda: runner.join(PATIENCE_S), lambda: None):
        answers = score(engine, bodies)
        assert [answer.status for answer in answers] == [200] * 8
        assert [answer.body["outputs"]["y"] for answer in answers] == expected
        step()
    assert runner.state.startswith("swapped")
