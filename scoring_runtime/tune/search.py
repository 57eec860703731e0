"""The search: one axis after the other, then the best few again, in turns. Pure: it is given how to measure, and a clock."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .ramp import Point, near_knee
from .space import AXES, Candidate, Ground, start, variants

FINALISTS = 3
ROUNDS = 2
"""How often the finalists are measured again."""
FINAL_SHARE = 0.4
"""Of the time, that measuring again may take."""
LEAST_S = 1.5
"""Of load: less says nothing."""
TIE = 0.03
"""Throughputs that differ by less are alike, and so are those that differ by less than half of what the best one's own do."""
MOST_DOUBT = 0.1
"""What differs by more is not alike, however noisy the machine is."""


@dataclass(frozen=True)
class Measured:
    """One measurement of a candidate, from the start of its server to its end."""

    points: tuple[Point, ...]
    largest_difference: float = 0.0
    """From the reference's answers, among all that were compared."""
    started_s: float = 0.0


@dataclass(frozen=True)
class Rejected:
    """A candidate that does not serve, or does not answer as the reference does."""

    why: str
    largest_difference: float | None = None
    """None where it gave no answers."""


Measure = Callable[[Candidate, float, Sequence[int]], Measured | Rejected]
"""Measure a candidate within so many seconds, at these numbers of clients, or at rising ones where there are none."""


@dataclass
class Trial:
    """What is known of one candidate."""

    candidate: Candidate
    runs: list[Measured] = field(default_factory=list)
    rejected: Rejected | None = None

    @property
    def largest_difference(self) -> float | None:
        """From the reference's answers; None where there were none to compare."""
        if self.rejected is not None:
            return self.rejected.largest_difference
        return max((run.largest_difference for run in self.runs), default=None)

    def points(self) -> list[Point]:
        """For each number of clients, what its runs say together: the middle one, and of two the worse."""
        levels: dict[int, list[Point]] = {}
        for run in self.runs:
            for point in run.points:
                levels.setdefault(point.clients, []).append(point)
        return [_together(levels[clients]) for clients in sorted(levels)]

    def best(self, slo_p99_ms: float) -> Point | None:
        """Where it answers most within the limit; None where it never does, or its answers are others."""
        if self.rejected is not None:
            return None
        kept = [point for point in self.points() if point.keeps(slo_p99_ms)]
        # Once there are several runs, what only one of them saw counts for nothing.
        kept = [point for point in kept if self._seen(point.clients) >= min(2, len(self.runs))]
        return max(kept, key=lambda point: point.throughput, default=None)

    def spread(self, clients: int) -> float:
        """How far its own runs are apart at one level, as a share of the throughput."""
        rates = [point.throughput for run in self.runs for point in run.points if point.clients == clients]
        return (max(rates) - min(rates)) / max(rates) if len(rates) > 1 and max(rates) > 0 else 0.0

    def _seen(self, clients: int) -> int:
        return sum(any(point.clients == clients for point in run.points) for run in self.runs)


def _together(points: Sequence[Point]) -> Point:
    return Point(
        clients=points[0].clients,
        throughput=statistics.median_low([point.throughput for point in points]),
        p50_ms=statistics.median_high([point.p50_ms for point in points]),
        p99_ms=statistics.median_high([point.p99_ms for point in points]),
        requests=sum(point.requests for point in points),
        failures=sum(point.failures for point in points),
        client_share=max(point.client_share for point in points),
    )


def choose(trials: Sequence[Trial], slo_p99_ms: float) -> Trial | None:
    """The one that answers most within the limit; among those that do as well, the least burdensome. None: none does."""
    scored = [(trial, best) for trial in trials if (best := trial.best(slo_p99_ms)) is not None]
    if not scored:
        return None
    # A single measurement may have been lucky: once some were measured again, one of these is chosen.
    scored = [each for each in scored if len(each[0].runs) > 1] or scored
    top, top_point = max(scored, key=lambda each: each[1].throughput)
    doubt = min(MOST_DOUBT, max(TIE, top.spread(top_point.clients) / 2))
    alike = [trial for trial, point in scored if point.throughput >= top_point.throughput * (1 - doubt)]
    return min(alike, key=lambda trial: trial.candidate.burden)


def _finalists(trials: Sequence[Trial], slo_p99_ms: float) -> list[Trial]:
    """Those worth another look: the best few, of which one may be there because it needs least of those that come near."""
    scored = [(point.throughput, trial) for trial in trials if (point := trial.best(slo_p99_ms)) is not None]
    scored.sort(key=lambda each: (-each[0], each[1].candidate.burden))
    best = [trial for _, trial in scored[: FINALISTS - 1]]
    near = [trial for rate, trial in scored if rate >= scored[0][0] * (1 - MOST_DOUBT) and trial not in best]
    third = (
        [min(near, key=lambda trial: trial.candidate.burden)]
        if near
        else [trial for _, trial in scored[FINALISTS - 1 :]]
    )
    return [*best, *third[:1]]


def nearest(trials: Sequence[Trial]) -> tuple[Trial, Point] | None:
    """Where none keeps the limit: which came nearest to it, and where. None when nothing was measured."""
    points = [
        (trial, point) for trial in trials if trial.rejected is None for point in trial.points() if point.requests
    ]
    return min(points, key=lambda each: (each[1].failures > 0, each[1].p99_ms), default=None)


def _least_s(started_s: float) -> float:
    """The shortest measurement of a server that takes so long to start."""
    return 1.3 * started_s + LEAST_S


@dataclass(frozen=True)
class Step:
    """What is about to be measured."""

    number: int
    of: int
    candidate: Candidate
    again: bool
    """It was measured before."""


class Search:
    """One search. `trials` and `skipped` hold what is known at any moment, also when it was interrupted."""

    def __init__(
        self,
        ground: Ground,
        measure: Measure,
        slo_p99_ms: float,
        ends_at: float,
        started_s: float,
        now: Callable[[], float],
        tell: Callable[[Step], None],
    ) -> None:
        """`ends_at`: by the clock `now`. `started_s`: how long a server takes to start, as far as is known."""
        self.trials: list[Trial] = []
        self.skipped = 0
        """Candidates that there was no time for."""
        self._ground = ground
        self._measure = measure
        self._slo_p99_ms = slo_p99_ms
        self._began = now()
        self._ends_at = ends_at
        self._now = now
        self._tell = tell
        self._number = 0
        self._least_s = _least_s(started_s)

    def run(self) -> None:
        """Measure until everything is tried or the time is over."""
        explored_at = self._ends_at - FINAL_SHARE * (self._ends_at - self._began)
        current = start(self._ground)
        self._try(current, explored_at, 1 + self._count(AXES, current))
        for number, axis in enumerate(AXES):
            options = [option for option in variants(axis, current, self._ground) if not self._known(option)]
            for tried, option in enumerate(options):
                left = len(options) - tried + self._count(AXES[number + 1 :], current)
                if not self._try(option, explored_at, left):
                    self.skipped += 1
            current = self._leader(current)
        self._measure_again()

    def _try(self, candidate: Candidate, until: float, left: int) -> bool:
        """Measure a candidate for the first time. False when there is no time for it."""
        limit_s = max((until - self._now()) / left, self._least_s)
        if not self.trials:  # there must be something to show, however short the time
            limit_s = min(limit_s, self._ends_at - self._now())
        elif limit_s > until - self._now():
            return False
        self.trials.append(trial := Trial(candidate))
        self._add(trial, limit_s, (), self._number + left + FINALISTS * ROUNDS)
        return True

    def _measure_again(self) -> None:
        """The best few, in turns, so that what disturbs the machine for a while disturbs them all."""
        finalists = _finalists(self.trials, self._slo_p99_ms)
        levels = [near_knee(trial.points(), self._slo_p99_ms) for trial in finalists]
        # All of them or none: a round in part would favour some.
        rounds = int((self._ends_at - self._now()) / (self._least_s * max(1, len(finalists))))
        left = max(0, min(ROUNDS, rounds)) * len(
            finalists
        )  # a server that ended slowly may have taken more than there was
        of = self._number + left
        while left:
            for trial, clients in zip(finalists, levels, strict=True):
                if trial.rejected is None:
                    self._add(trial, (self._ends_at - self._now()) / left, clients, of)
                left -= 1

    def _add(self, trial: Trial, limit_s: float, clients: Sequence[int], of: int) -> None:
        self._number += 1
        self._tell(Step(self._number, max(of, self._number), trial.candidate, bool(trial.runs)))
        outcome = self._measure(trial.candidate, limit_s, clients)
        if isinstance(outcome, Rejected):
            trial.rejected = outcome
        else:
            trial.runs.append(outcome)
            self._least_s = min(self._least_s, _least_s(outcome.started_s))

    def _leader(self, current: Candidate) -> Candidate:
        """From where to go on: the best so far, or what comes nearest, or the one at hand."""
        best = choose(self.trials, self._slo_p99_ms)
        if best is not None:
            return best.candidate
        near = nearest(self.trials)
        return current if near is None else near[0].candidate

    def _known(self, candidate: Candidate) -> bool:
        return any(trial.candidate == candidate for trial in self.trials)

    def _count(self, axes: Sequence[str], current: Candidate) -> int:
        return sum(len(variants(axis, current, self._ground)) for axis in axes)
