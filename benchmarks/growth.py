"""How costs grow, as plots."""

from collections.abc import Callable, Iterator

from benchmarks import measured, servers
from benchmarks.measured import Measured, Metric
from benchmarks.tables import title
from benchmarks.targets import Results
from scoring_runtime.tune.plots import Line, plot

PLACES = list(servers.SERVERS)
"""A server has one colour in all plots."""

CPU = "CPU µs per request"


def draw(results: Results) -> Iterator[tuple[str, str]]:
    """(name, SVG) of each plot whose results are there."""
    if "small" in results:
        lines = _by_server(results["small"], measured.CPU_US, _first_number)
        yield "connections", plot("CPU per request by connections, small model", "connections", CPU, lines)
    if "bodies" in results:
        size_bytes = results["bodies"].requests()
        lines = _by_server(results["bodies"], measured.CPU_US, lambda load: float(size_bytes[load]))
        yield "bodies", plot("CPU per request by the size of the body", "bytes of JSON", CPU, lines)
    if "scorers" in results:
        lines = _by_load(results["scorers"], measured.CPU_US)
        yield "scorers", plot("CPU per request by scorers on one core, small model", "scorers", CPU, lines)
    if "arrivals" in results:
        lines = _by_server(results["arrivals"], measured.P99_MS, _first_number)
        yield "arrivals", plot("p99 by arrivals, small model", "requests a second", "p99, ms", lines)


def _by_server(each: Measured, metric: Metric, place: Callable[[str], float]) -> list[Line]:
    lines = []
    for server in each.servers():
        if server not in servers.LOOPS:
            found = [(place(load), each.value(server, load, metric)) for load in each.loads()]
            points = [(x, y.median) for x, y in found if y is not None]
            lines.append(Line(title(server), points, server == "ours", PLACES.index(server)))
    return lines


def _by_load(each: Measured, metric: Metric) -> list[Line]:
    lines = []
    for load in each.loads():
        found = [(each.scenario.scorers[server], each.value(server, load, metric)) for server in each.servers()]
        points = [(x, y.median) for x, y in found if y is not None]
        lines.append(Line(f"{title('ours')}, {load}", points, load == each.loads()[0]))
    return lines


def _first_number(load: str) -> float:
    return float(load.split(maxsplit=1)[0])
