"""What the server is meant to reach, and whether it does: computed from the results, row by row."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from benchmarks.measured import CPU_US, P50_MS, P99_MS, RATE, Measured, Metric
from benchmarks.scenarios import ONLY, PYTHON_PEERS, loop_of

Results = Mapping[str, Measured]
Found = float | str
"""A number, or why there is none."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One number against its bound."""

    what: str
    found: Found
    bound: float | None
    """None: shown, and not judged."""

    at_most: bool

    @property
    def met(self) -> bool | None:
        """None: something that it needs was not measured."""
        if isinstance(self.found, str) or self.bound is None:
            return None
        return self.found <= self.bound if self.at_most else self.found >= self.bound


@dataclasses.dataclass(frozen=True)
class Target:
    name: str
    """Its key in notes.toml."""

    scenario: str
    text: str
    verdicts: Callable[[Results], Iterator[Verdict]]


def state(verdicts: list[Verdict]) -> str:
    """What became of a target: one number that misses its bound is enough not to meet it."""
    marks = {verdict.met for verdict in verdicts if verdict.bound is not None}
    return "not met" if False in marks else "not measured" if None in marks else "met"


def median(results: Results, scenario: str, server: str, load: str, metric: Metric) -> Found:
    if scenario not in results:
        return "not measured"
    value = results[scenario].value(server, load, metric)
    return results[scenario].why_not(server, load) if value is None else value.median


def ratio(over: Found, under: Found) -> Found:
    if isinstance(over, str):
        return over
    if isinstance(under, str):
        return under
    return over / under if under else "not measured"


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
        costs = {name: median(results, "small", name, load, CPU_US) for name in others}
        measured = {name: cost for name, cost in costs.items() if not isinstance(cost, str)}
        if measured:
            best = min(measured, key=lambda name: measured[name])
            found = ratio(measured[best], ours)
            yield Verdict(f"best other peer ({best}) / ours, {load}", found, 12, at_most=False)
        else:
            yield Verdict(f"best other peer / ours, {load}", "not measured", 12, at_most=False)


def _one_connection(results: Results) -> Iterator[Verdict]:
    load = "1 connection"
    ours = median(results, "small", "ours", load, P50_MS)
    for name in PYTHON_PEERS:
        found = ratio(ours, median(results, "small", name, load, P50_MS))
        yield Verdict(f"p50 of ours / {name}", found, 0.5 if name == "azmlinfsrv" else 1.0, at_most=True)


def _image_json(results: Results) -> Iterator[Verdict]:
    yield from _against(results, "image-json", "8 connections", {"azmlinfsrv": 8})
    decode = median(results, "image-json", "decode", loop_of(ONLY), CPU_US)
    parse = median(results, "image-json", "simdjson", loop_of(ONLY), CPU_US)
    yield Verdict("our decoding / simdjson's parse", ratio(decode, parse), 1.3, at_most=True)


def _image_binary(results: Results) -> Iterator[Verdict]:
    ours = median(results, "image-binary", "ours", "8 connections", CPU_US)
    for floor, what, bound in (("copies", "one copy out and in", 4), ("tcp", "the same through TCP", None)):
        copies = median(results, "image-binary", floor, loop_of(ONLY), CPU_US)
        yield Verdict(f"ours / {what}", ratio(ours, copies), bound, at_most=True)


def _rows(results: Results) -> Iterator[Verdict]:
    ours = median(results, "trees", "ours", "100 rows, 32 connections", RATE)
    raw = median(results, "trees", "raw", loop_of("100 rows"), RATE)
    yield Verdict("rows a second of ours / of raw runs", ratio(ours, raw), 0.9, at_most=False)


def _two_cores(results: Results) -> Iterator[Verdict]:
    ours = median(results, "two-cores", "ours, 2 scorers", "16 connections", RATE)
    raw = median(results, "two-cores", "raw-two", loop_of(ONLY), RATE)
    yield Verdict("ours / two raw processes", ratio(ours, raw), 0.95, at_most=False)


def _mixed(results: Results) -> Iterator[Verdict]:
    for server, bound in (("ours, 2 scorers", 3), ("ours", None)):
        alone = median(results, "mixed", server, "alone", P99_MS)
        beside = median(results, "mixed", server, "beside 50 MB", P99_MS)
        what = "p99 beside / alone, " + ("default settings" if bound is None else "2 scorers")
        yield Verdict(what, ratio(beside, alone), bound, at_most=True)


TARGETS = (
    Target(
        "small",
        "small",
        "CPU per request of a small model, JSON: ours at most 2 times the null server and 3 times nginx; "
        "azmlinfsrv at least 25 times ours, the best other peer at least 12 times",
        _floors,
    ),
    Target(
        "one-connection",
        "small",
        "The same at one connection: p50 at most half of azmlinfsrv's, and at most every peer's",
        _one_connection,
    ),
    Target(
        "script-plain",
        "script-plain",
        "A score.py of the standard library: azmlinfsrv at least 20 times ours",
        lambda results: _against(results, "script-plain", "32 connections", {"azmlinfsrv": 20}),
    ),
    Target(
        "script-numpy",
        "script-numpy",
        "A score.py with a numpy schema: azmlinfsrv at least 6 times ours",
        lambda results: _against(results, "script-numpy", "32 connections", {"azmlinfsrv": 6}),
    ),
    Target(
        "image-json",
        "image-json",
        "An image as JSON: azmlinfsrv at least 8 times ours; decoding within 1.3 times of simdjson's parse",
        _image_json,
    ),
    Target(
        "image-binary",
        "image-binary",
        "An image as binary tensor: all of our CPU at most 4 times one copy into and out of a process",
        _image_binary,
    ),
    Target("rows", "trees", "100 rows of a table: at least 90 % of the rows a second that raw runs make", _rows),
    Target(
        "two-cores",
        "two-cores",
        "Two scorers on two cores, a real model: at least 95 % of the rate of two raw processes",
        _two_cores,
    ),
    Target(
        "mixed",
        "mixed",
        "Small requests beside 50 MB, two scorers: p99 at most 3 times of what it is alone",
        _mixed,
    ),
)
