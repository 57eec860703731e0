"""The search, with measurements that are made up and a clock that only they move."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.tune.ramp import Point
from scoring_runtime.tune.search import MOST_DOUBT, Measured, Rejected, Search, Step, Trial, choose, nearest
from scoring_runtime.tune.space import AXES, BATCH_BOUNDS, Candidate, Ground, is_open, start, variants

SLO = 10.0


def point(clients: int, throughput: float, p99_ms: float, failures: int = 0) -> Point:
    return Point(clients, throughput, p99_ms / 2, p99_ms, 500, failures)


class World:
    """A machine: what measuring a candidate shows, and how long it takes."""

    def __init__(
        self,
        show: Callable[[Candidate], Measured | Rejected],
        takes: Callable[[float], float] = lambda limit_s: limit_s,
    ) -> None:
        self.now = 0.0
        self.asked: list[tuple[Candidate, float, tuple[int, ...]]] = []
        self._show = show
        self._takes = takes

    def measure(self, candidate: Candidate, limit_s: float, clients: Sequence[int]) -> Measured | Rejected:
        assert limit_s > 0
        self.asked.append((candidate, limit_s, tuple(clients)))
        self.now += self._takes(limit_s)
        return self._show(candidate)

    def search(self, ground: Ground, budget_s: float = 120.0, started_s: float = 0.5, tell=lambda step: None) -> Search:
        search = Search(ground, self.measure, SLO, self.now + budget_s, started_s, lambda: self.now, tell)
        search.run()
        return search


def ground(cpus: int = 4, providers: tuple[str, ...] = ("cpu",), batchable: bool = True, **fixed) -> Ground:
    return Ground(cpus, providers, batchable, fixed)


# What may be chosen

numbers = st.floats(0.5, 100, allow_nan=False)
points = st.builds(point, st.sampled_from([1, 4, 16, 64]), numbers, numbers, st.sampled_from([0, 0, 0, 3]))
runs = st.lists(points, max_size=5, unique_by=lambda each: each.clients).map(
    lambda each: Measured(tuple(each), 0.0, 0.5)
)
outcomes = st.one_of(runs, runs, runs, st.just(Rejected("output 'y' differs", 0.5)))


@given(st.data(), st.integers(1, 8), st.booleans(), st.floats(2, 200))
def test_what_is_chosen_keeps_the_limit_and_answers_as_the_reference(data, cpus, batchable, budget_s):
    world = World(lambda candidate: data.draw(outcomes))
    search = world.search(ground(cpus, batchable=batchable), budget_s)
    chosen = choose(search.trials, SLO)

    if chosen is None:
        assert not any(trial.best(SLO) for trial in search.trials)
        return
    assert chosen.rejected is None
    best = chosen.best(SLO)
    assert best is not None
    assert best.keeps(SLO)
    seen = [each for run in chosen.runs for each in run.points if each.clients == best.clients]
    assert any(each.p99_ms <= SLO and each.failures == 0 for each in seen)
    again = [trial for trial in search.trials if len(trial.runs) > 1 and trial.best(SLO)]
    rivals = [rival.throughput for trial in (again or search.trials) if (rival := trial.best(SLO))]
    assert best.throughput >= max(rivals) * (1 - MOST_DOUBT)


@given(st.data(), st.integers(1, 64), st.floats(2, 300), st.floats(0.1, 20), st.floats(0.01, 1))
def test_the_budget_holds(data, cpus, budget_s, started_s, share):
    world = World(lambda candidate: data.draw(runs), lambda limit_s: limit_s * share)
    world.search(ground(cpus, ("cpu", "openvino")), budget_s, started_s)

    assert world.asked
    assert world.now <= budget_s + 1e-6


def test_without_noise_the_best_of_all_is_found():
    def show(candidate: Candidate) -> Measured:
        speed = 100 * min(candidate.scorers, 3) + candidate.threads + candidate.max_batch_size / 10
        speed *= {"all": 1.0, "extended": 0.8, "basic": 1.4}[candidate.graph_optimization]
        return Measured((point(1, speed / 4, 1), point(4, speed, 8), point(16, speed * 2, 80)), 0.0, 0.5)

    search = World(show).search(ground(8), 300)
    chosen = choose(search.trials, SLO)

    assert chosen is not None
    assert (chosen.candidate.graph_optimization, chosen.candidate.max_batch_size) == ("basic", 128)
    assert chosen.candidate.scorers >= 3
    assert search.skipped == 0
    assert len(chosen.runs) == 3


def test_of_equals_the_lesser_one_is_chosen():
    search = World(lambda candidate: Measured((point(4, 1000, 5),))).search(ground(8))
    chosen = choose(search.trials, SLO)

    assert chosen is not None
    assert (chosen.candidate.scorers, chosen.candidate.threads) == (1, 1)
    assert (chosen.candidate.graph_optimization, chosen.candidate.max_batch_size) == ("all", 128)


def test_a_candidate_that_differs_is_not_gone_on_from():
    def show(candidate: Candidate) -> Measured | Rejected:
        if candidate.graph_optimization == "all":
            return Rejected("output 'y' holds 1 in place of 2", 1.0)
        return Measured((point(4, 1000, 5),))

    search = World(show).search(ground(4))
    later = [trial.candidate.graph_optimization for trial in search.trials[3:]]

    assert later
    assert "all" not in later


def test_what_one_run_alone_saw_counts_for_nothing():
    trial = Trial(Candidate(), [Measured((point(4, 100, 5), point(64, 900, 9))), Measured((point(4, 90, 6),))])
    assert trial.best(SLO) == Point(4, 90, 3, 6, 1000)


def test_of_two_runs_the_worse_counts_and_of_three_the_middle_one():
    two = Trial(Candidate(), [Measured((point(4, 100, 5),)), Measured((point(4, 120, 11),))])
    three = Trial(Candidate(), [*two.runs, Measured((point(4, 110, 7),))])

    assert two.best(SLO) is None
    best = three.best(SLO)
    assert best is not None
    assert (best.throughput, best.p99_ms) == (110, 7)


def test_finalists_are_measured_in_turns():
    world = World(lambda candidate: Measured((point(1, candidate.threads, 5), point(4, 2 * candidate.threads, 20))))
    world.search(ground(4))
    again = [candidate for candidate, _, clients in world.asked if clients]

    assert len(again) == 6
    assert again[:3] == again[3:]
    assert len(set(again[:3])) == 3


def test_when_nothing_keeps_the_limit_the_nearest_is_told():
    search = World(lambda candidate: Measured((point(1, 10, 100 / candidate.threads),))).search(ground(4))

    assert choose(search.trials, SLO) is None
    near = nearest(search.trials)
    assert near is not None
    assert (near[0].candidate.threads, near[1].p99_ms) == (4, 25)


def test_an_interrupted_search_keeps_what_it_has():
    count = itertools.count()

    def show(candidate: Candidate) -> Measured:
        if next(count) == 2:
            raise KeyboardInterrupt
        return Measured((point(1, 10, 5),))

    world = World(show)
    search = Search(ground(4), world.measure, SLO, 120, 0.5, lambda: world.now, lambda step: None)
    with pytest.raises(KeyboardInterrupt):
        search.run()

    assert [len(trial.runs) for trial in search.trials] == [1, 1, 0]
    assert choose(search.trials, SLO) is not None


def test_what_there_is_no_time_for_is_counted():
    search = World(lambda candidate: Measured((point(1, 10, 5),), 0.0, 3.0)).search(ground(8), 20, 3.0)
    assert search.skipped > 0


@given(st.integers(1, 40), st.floats(5, 500))
def test_steps_are_numbered_within_what_was_announced(cpus, budget_s):
    steps: list[Step] = []
    World(lambda candidate: Measured((point(1, 10, 5),))).search(ground(cpus), budget_s, tell=steps.append)

    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.number <= step.of for step in steps)


# What can be tried


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 7, 16, 64])
def test_no_candidate_has_more_threads_than_there_are_cpus(cpus):
    current = start(ground(cpus))
    found = [current, *variants("scorers and threads", current, ground(cpus))]

    assert all(1 <= candidate.scorers * candidate.threads <= cpus for candidate in found)
    assert len(found) == len(set(found))
    assert {(1, cpus), (cpus, 1), (1, 1)} <= {(candidate.scorers, candidate.threads) for candidate in found}


@pytest.mark.parametrize(
    ("fixed", "axis"),
    [
        ({"provider": "cpu"}, "provider"),
        ({"graph_optimization": "basic"}, "graph level"),
        ({"scorers": 2, "threads": 2}, "scorers and threads"),
        ({"max_batch_size": 7}, "batch bound"),
    ],
)
def test_what_is_fixed_is_not_searched(fixed, axis):
    here = ground(8, ("cpu", "openvino"), **fixed)
    for each in AXES:
        for candidate in variants(each, start(here), here):
            assert {name: candidate.settings()[name] for name in fixed} == fixed
    assert variants(axis, start(here), here) == []


def test_with_scorers_fixed_threads_are_searched_and_the_reverse():
    scorers = ground(8, scorers=2)
    assert start(scorers).threads == 4
    assert [each.threads for each in variants("scorers and threads", start(scorers), scorers)] == [2, 1]
    threads = ground(8, threads=2)
    assert [each.scorers for each in variants("scorers and threads", start(threads), threads)] == [2, 4]


def test_a_model_that_does_not_batch_has_no_bound_to_search():
    assert variants("batch bound", start(ground(batchable=False)), ground(batchable=False)) == []
    bounds = [each.max_batch_size for each in variants("batch bound", start(ground()), ground())]
    assert bounds == [bound for bound in BATCH_BOUNDS if bound != 128]


def test_buckets_are_searched_on_a_gpu_only():
    here = ground(providers=("cpu", "cuda"))
    assert variants("buckets", start(here), here) == []
    (off,) = variants("buckets", Candidate("cuda"), here)
    assert off.batch_buckets == "off"


@pytest.mark.parametrize("name", ["scorers", "threads"])
def test_a_choice_that_is_left_to_the_server_is_searched(name):
    assert is_open(name, 0)
    assert not is_open(name, 1)
    assert not is_open("max_queue_wait_ms", 0)


@pytest.mark.parametrize("late_s", [2.0, 6.0, 60.0])
def test_a_search_that_is_late_ends(late_s):
    world = World(lambda candidate: Measured((point(4, 1000, 5),), 0.0, 0.1), lambda limit_s: limit_s + late_s)
    search = world.search(ground(1), 5.0, 0.1)
    assert [len(trial.runs) for trial in search.trials if trial.runs] == [1]
