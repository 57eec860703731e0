"""What the server is meant to reach, and whether it does: computed from the results, row by row."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from benchmarks.measured import CPU_US, P50_MS, P99_MS, RATE, Measured, Metric
from benchmarks.scenarios import PYTHON_PEERS

Results = Mapping[str, Measured]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One number against its bound."""

    what: str
    found: float | None
    """None: something that it needs was not measured."""

    bound: float
    at_most: bool

    @property
    def met(self) -> bool | None:
        if self.found is None:
            return None
        return self.found <= self.bound if self.at_most else self.found >= self.bound


@dataclasses.dataclass(frozen=True)
class Target:
    scenario: str
    text: str
    verdicts: Callable[[Results], Iterator[Verdict]]


def median(results: Results, scenario: str, server: str, load: str, metric: Metric) -> float | None:
    if scenario not in results:
        return None
    value = results[scenario].value(server, load, metric)
    return None if value is None else value.median


def ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def _against(results: Results, scenario: str, load: str, rivals: Mapping[str, float]) -> Iterator[Verdict]:
    """CPU of each rival over ours, which is to be so many times at least."""
    ours = median(results, scenario, "ours", load, CPU_US)
    for rival, bound in rivals.items():
        yield Verdict(
            f"{rival} / ours, {load}", ratio(median(results, scenario, rival, load, CPU_US), ours), bound, at_most=False
        )


def _floors(results: Results) -> Iterator[Verdict]:
    others = [name for name in PYTHON_PEERS if name != "azmlinfsrv"]
    for load in ("32 connections", "128 connections"):
        ours = median(results, "small", "ours", load, CPU_US)
        for floor, bound in (("null", 2.0), ("nginx", 3.0)):
            found = ratio(ours, median(results, "small", floor, load, CPU_US))
            yield Verdict(f"ours / {floor}, {load}", found, bound, at_most=True)
        yield from _against(results, "small", load, {"azmlinfsrv": 25})
        costs = {name: cost for name in others if (cost := median(results, "small", name, load, CPU_US)) is not None}
        best = min(costs, key=lambda name: costs[name], default=None)
        found = None if best is None else ratio(costs[best], ours)
        yield Verdict(f"best other peer ({best}) / ours, {load}", found, 12, at_most=False)


def _one_connection(results: Results) -> Iterator[Verdict]:
    load = "1 connection"
    ours = median(results, "small", "ours", load, P50_MS)
    for name in PYTHON_PEERS:
        found = ratio(ours, median(results, "small", name, load, P50_MS))
        yield Verdict(f"p50 of ours / {name}", found, 0.5 if name == "azmlinfsrv" else 1.0, at_most=True)


def _image_json(results: Results) -> Iterator[Verdict]:
    yield from _against(results, "image-json", "8 connections", {"azmlinfsrv": 8})
    decode = median(results, "image-json", "decode", "loop", CPU_US)
    parse = median(results, "image-json", "simdjson", "loop", CPU_US)
    yield Verdict("our decoding / simdjson's parse", ratio(decode, parse), 1.3, at_most=True)


def _image_binary(results: Results) -> Iterator[Verdict]:
    copies = median(results, "image-binary", "copies", "loop", CPU_US)
    ours = median(results, "image-binary", "ours", "8 connections", CPU_US)
    yield Verdict("ours / one copy in and out", ratio(ours, copies), 4, at_most=True)


def _rows(results: Results) -> Iterator[Verdict]:
    ours = median(results, "trees-100", "ours", "32 connections", RATE)
    yield Verdict("ours / raw runs", ratio(ours, median(results, "trees-100", "raw", "loop", RATE)), 0.9, at_most=False)


def _two_cores(results: Results) -> Iterator[Verdict]:
    ours = median(results, "two-cores", "ours, 2 scorers", "16 connections", RATE)
    raw = median(results, "two-cores", "raw-two", "loop", RATE)
    yield Verdict("ours / two raw processes", ratio(ours, raw), 0.95, at_most=False)


def _mixed(results: Results) -> Iterator[Verdict]:
    alone = median(results, "mixed", "ours", "alone", P99_MS)
    beside = median(results, "mixed", "ours", "beside 50 MB", P99_MS)
    yield Verdict("p99 beside / alone", ratio(beside, alone), 3, at_most=True)


TARGETS = (
    Target(
        "small",
        "CPU per request of a small model, JSON: ours at most 2 times the null server and 3 times nginx; "
        "azmlinfsrv at least 25 times ours, the best other peer at least 12 times",
        _floors,
    ),
    Target(
        "small",
        "The same at one connection: p50 at most half of azmlinfsrv's, and at most every peer's",
        _one_connection,
    ),
    Target(
        "script-plain",
        "A score.py of the standard library: azmlinfsrv at least 20 times ours",
        lambda results: _against(results, "script-plain", "32 connections", {"azmlinfsrv": 20}),
    ),
    Target(
        "script-numpy",
        "A score.py with a numpy schema: azmlinfsrv at least 6 times ours",
        lambda results: _against(results, "script-numpy", "32 connections", {"azmlinfsrv": 6}),
    ),
    Target(
        "image-json",
        "An image as JSON: azmlinfsrv at least 8 times ours; decoding within 1.3 times of simdjson's parse",
        _image_json,
    ),
    Target(
        "image-binary",
        "An image as binary tensor: all of our CPU at most 4 times one copy into and out of a process",
        _image_binary,
    ),
    Target("trees-100", "100 rows of a table: at least 90 % of the rows that raw runs make", _rows),
    Target(
        "two-cores",
        "Two scorers on two cores, a real model: at least 95 % of the rate of two raw processes",
        _two_cores,
    ),
    Target("mixed", "Small requests beside 50 MB: p99 at most 3 times of what it is alone", _mixed),
)
