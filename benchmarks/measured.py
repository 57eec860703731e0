"""What the suite has written, read again: medians and spreads of repeats."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.loads import NOT_ASKED
from benchmarks.scenarios import SCENARIOS, Scenario

Metric = Callable[[Mapping[str, Any]], float]

CPU_US: Metric = lambda run: run["cpu_ns"] / run["requests"] / 1000  # noqa: E731 - a table reads best in one line a row
RATE: Metric = lambda run: run["requests_per_s"]  # noqa: E731
P50_MS: Metric = lambda run: run["p50_us"] / 1000  # noqa: E731
P99_MS: Metric = lambda run: run["p99_us"] / 1000  # noqa: E731
P999_MS: Metric = lambda run: run["p999_us"] / 1000  # noqa: E731
MEMORY_MIB: Metric = lambda run: run["memory_bytes"] / 2**20  # noqa: E731
FIRST_ANSWER_S: Metric = lambda start: start["first_answer_s"]  # noqa: E731
IDLE_MEMORY_MIB: Metric = lambda start: start["idle_memory_bytes"] / 2**20  # noqa: E731


WITHOUT_VALUE = ("not asked", "failed", "not measured")


@dataclasses.dataclass(frozen=True)
class Value:
    """The median of the repeats that succeeded, and what they lay between."""

    median: float
    least: float
    most: float
    failed: int
    repeats: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """One scenario's results."""

    name: str
    scenario: Scenario
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    started_at: str
    peers: Mapping[str, Mapping[str, str]]
    absent: Mapping[str, str]
    starts: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    def servers(self) -> list[str]:
        """Those that were measured, in the order of the scenario's table."""
        found = {start["server"] for start in self.starts}
        return [name for name in (*self.scenario.servers, *self.scenario.scorers) if name in found]

    def loads(self) -> list[str]:
        return [str(load["name"]) for load in self.settings["loads"]]

    def requests(self) -> dict[str, str]:
        """Load -> which of the requests it sends."""
        return {str(load["name"]): str(load["request"]) for load in self.settings["loads"]}

    def value(self, server: str, load: str, metric: Metric) -> Value | None:
        """None where it was not measured, or where half of the repeats failed, or more."""
        return _value(self._runs(server, load), metric)

    def why_not(self, server: str, load: str) -> str:
        """Why there is no value: one of WITHOUT_VALUE."""
        failures = {run["failure"] for run in self._runs(server, load)}
        if failures == {NOT_ASKED}:
            return "not asked"
        return "failed" if failures or self._never_started(server) else "not measured"

    def answered(self, server: str, load: str) -> int:
        """The most requests that one repeat had answered."""
        return max((run["requests"] for run in self._runs(server, load)), default=0)

    def _runs(self, server: str, load: str) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["server"] == server and run["load"] == load]

    def _never_started(self, server: str) -> bool:
        failures = [start["failure"] for start in self.starts if start["server"] == server]
        return bool(failures) and all(failures)

    def of_starts(self, server: str, metric: Metric) -> Value | None:
        return _value([start for start in self.starts if start["server"] == server], metric)

    def failures(self) -> list[tuple[str, str, list[int], str]]:
        """(server, load, repeats, why the first of them) of what failed by itself."""
        failed = [(start["server"], "start", start["repeat"], start["failure"]) for start in self.starts]
        named = {(server, repeat) for server, _, repeat, why in failed if why}
        failed += [
            (run["server"], run["load"], run["repeat"], run["failure"])
            for run in self.runs
            if (run["server"], run["repeat"]) not in named and run["failure"] != NOT_ASKED
        ]
        found: dict[tuple[str, str], tuple[list[int], str]] = {}
        for server, load, repeat, why in failed:
            if why:
                found.setdefault((server, load), ([], why.splitlines()[0]))[0].append(repeat)
        return [(*key, *value) for key, value in found.items()]


def _value(runs: list[dict[str, Any]], metric: Metric) -> Value | None:
    good = [metric(run) for run in runs if not run["failure"]]
    failed = len(runs) - len(good)
    if not good or failed * 2 >= len(runs):
        return None
    return Value(statistics.median(good), min(good), max(good), failed, len(runs))


def read(folder: Path) -> dict[str, Measured]:
    """Scenario -> its results, of those that have any, in the order of the table."""
    found = {}
    for name, scenario in SCENARIOS.items():
        file = folder / f"{name}.json"
        if file.exists():
            content = json.loads(file.read_text())
            content.pop("scenario")
            found[name] = Measured(name, scenario, **content)
    return found
