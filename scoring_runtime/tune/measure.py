"""Measures one candidate: the real server with its settings, its answers against the reference's, then a rising load."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import TuneError
from . import answers
from .answers import Agreement, NoAnswerError, Tolerances
from .load import Harvest, drive, encode
from .ramp import Point, next_level
from .search import Measured, Rejected
from .server import Server, ServerEndedError
from .space import REFERENCE, Candidate

LEVELS = 7
"""As many as a rising load has at most: a candidate's time is shared out among them."""
END_SHARE, END_S = 0.1, 0.5
"""Of a candidate's time, what its end may take: the lesser of the two."""
LEAST_LEVEL_S = 0.15
CHECKED_APART = 32
"""Samples that are asked one by one before the load; under load all of them are compared."""


class Bench:
    """What is the same for all candidates."""

    def __init__(
        self,
        target: Path,
        fixed: dict[str, Any],
        bodies: Sequence[bytes],
        tolerances: Tolerances,
        slo_p99_ms: float,
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._target = target
        self._fixed = fixed
        self._bodies = bodies
        self._requests = [encode(body) for body in bodies]
        self._tolerances = tolerances
        self._slo_p99_ms = slo_p99_ms
        self._folder = folder
        self._tell = tell
        self._reference: list[dict[str, Any]] = []

    def ask_reference(self, limit_s: float) -> float:
        """Learn what is right; how long the server took to start. TuneError when the model does not answer the samples."""
        began = time.monotonic()
        ends_at = began + limit_s
        try:
            with Server(self._target, self._fixed | REFERENCE.settings(), self._folder, ends_at) as server:
                started_s = time.monotonic() - began
                for number, body in enumerate(self._bodies, 1):
                    status, answer = server.ask(body, ends_at - time.monotonic())
                    if status != 200:
                        text = answer[:500].decode("utf-8", "backslashreplace")
                        raise TuneError(
                            f"sample {number} of {len(self._bodies)} is answered with {status}: {text}. Give samples that the model takes."
                        )
                    self._reference.append(answers.read(answer))
                return started_s
        except ServerEndedError as error:
            raise TuneError(
                f"the reference ({REFERENCE}) does not serve: {error}. If it needs longer, raise --budget-s."
            ) from None

    def measure(self, candidate: Candidate, limit_s: float, levels: Sequence[int]) -> Measured | Rejected:
        """What `search.Measure` asks for."""
        began = time.monotonic()
        ends_at = began + limit_s - min(END_S, END_SHARE * limit_s)
        try:
            with Server(self._target, self._fixed | candidate.settings(), self._folder, ends_at) as server:
                started_s = time.monotonic() - began
                alone = self._ask_alone(server, ends_at)
                if alone.why_not is not None:
                    return Rejected(alone.why_not, alone.largest_difference)
                harvest = Harvest(len(self._bodies))
                points = self._load(server, harvest, ends_at, levels)
            under_load = self._compare(harvest)
        except (ServerEndedError, ConnectionError, TimeoutError) as error:
            return Rejected(f"does not serve: {error}")
        except NoAnswerError as error:
            return Rejected(f"answers without outputs: {error}")
        if under_load.why_not is not None:
            return Rejected(f"under load {under_load.why_not}", under_load.largest_difference)
        return Measured(tuple(points), max(alone.largest_difference, under_load.largest_difference), started_s)

    def _ask_alone(self, server: Server, ends_at: float) -> Agreement:
        harvest = Harvest(len(self._bodies))
        half_way = (time.monotonic() + ends_at) / 2
        for sample, body in enumerate(self._bodies[:CHECKED_APART]):
            if sample and time.monotonic() > half_way:  # the load asks them, too
                break
            status, answer = server.ask(body, ends_at - time.monotonic())
            if status != 200:
                raise NoAnswerError(f"{status} {answer[:200].decode('utf-8', 'backslashreplace')}")
            harvest.add(sample, answer)
        return self._compare(harvest)

    def _load(self, server: Server, harvest: Harvest, ends_at: float, levels: Sequence[int]) -> list[Point]:
        level_s = max(LEAST_LEVEL_S, (ends_at - time.monotonic()) * 0.9 / (len(levels) or LEVELS))
        waiting = list(levels)
        points: list[Point] = []
        while True:
            clients = waiting.pop(0) if waiting else None if levels else next_level(points, self._slo_p99_ms)
            left_s = ends_at - time.monotonic()
            if clients is None or left_s < LEAST_LEVEL_S:
                return points
            seconds = min(level_s, left_s * 0.9)
            patience_s = min(left_s - seconds, max(1.0, 4 * self._slo_p99_ms / 1000))
            point = drive(server.port, self._requests, harvest, clients=clients, seconds=seconds, patience_s=patience_s)
            points.append(point)
            self._tell(f"{clients} clients: {point.throughput:,.0f}/s, p99 {point.p99_ms:.3g} ms")

    def _compare(self, harvest: Harvest) -> Agreement:
        """The worst of all answers that were kept."""
        worst = Agreement(0.0)
        for kept, reference in zip(harvest.answers, self._reference, strict=True):
            for body in kept:
                agreement = answers.compare(answers.read(body), reference, self._tolerances)
                if agreement.why_not is not None:
                    return agreement
                if agreement.largest_difference > worst.largest_difference:
                    worst = agreement
        return worst
