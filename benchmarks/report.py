"""Write docs/benchmarks.md and its plots from what the suite has measured. No number on them is typed by hand.

python -m benchmarks.report                              the page, from benchmarks/results/suite
python -m benchmarks.report --results .bench --text      a look at other results, printed
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import measured, servers
from benchmarks.machine import ROOT
from benchmarks.measured import Measured, Metric, Value
from benchmarks.plots import Line, plot
from benchmarks.suite import RESULTS
from benchmarks.targets import TARGETS, Results, Verdict

PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"

INTRODUCTION = """\
# Benchmarks

<!-- Written by `make bench-report` from benchmarks/results/suite. Run `make bench-full` to measure anew. -->

What a request costs here and elsewhere, measured by `make bench-full`, which anybody can run.
[How it is measured](../benchmarks/README.md) says what each number means. Every number is the median of its repeats, with
the least and the most of them in brackets where they lie apart by more than a tenth. `failed` is what failed in half of its
repeats or more; the list below each table names every failure.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--text", action="store_true", help="print the page, write nothing")
    arguments = parser.parse_args()
    files = render(measured.read(arguments.results))
    if arguments.text:
        print(files.pop(PAGE))
        return 0
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    for path, text in files.items():
        path.write_text(text)
    return 0


def render(results: Results) -> dict[Path, str]:
    """The page and its plots: path -> text."""
    plots = {PLOTS / f"{name}.svg": text for name, text in draw(results)}
    parts = [INTRODUCTION]
    if results:
        parts += [conditions(results), targets(results), *[growth(plots)] * bool(plots)]
        parts += [section(each) for each in results.values()]
        parts += [left_out(), versions(results)]
    else:
        parts.append("Nothing has been measured yet.\n")
    return {PAGE: "\n".join(parts), **plots}


# Parts of the page ---------------------------------------------------------------------------------------------------


def conditions(results: Results) -> str:
    rows = []
    for each in results.values():
        machine = each.machine
        dirty = ", with uncommitted changes" if machine["uncommitted_changes"] else ""
        cores = each.settings["cores"]
        shared = " (shared)" if cores["client"] in cores["server"] else ""
        rows.append(
            [
                f"[{each.name}](#{each.name})",
                each.started_at[:10],
                f"{str(machine['commit'])[:10]}{dirty}",
                f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
                f"{len(cores['server'])} and 1{shared}",
                f"{each.settings['repeats']} of {each.settings['seconds']:g} s",
            ]
        )
    header = ["scenario", "date", "commit", "machine", "cores of server and client", "repeats"]
    return "## Conditions\n\n" + table(header, rows)


def targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        verdicts = list(target.verdicts(results))
        marks = {verdict.met for verdict in verdicts}
        state = "**not met**" if False in marks else "not measured" if None in marks else "met"
        rows.append([f"[{target.text}](#{target.scenario})", "<br>".join(map(told, verdicts)), state])
    return "## Targets\n\n" + table(["target", "found", ""], rows)


def told(verdict: Verdict) -> str:
    found = "not measured" if verdict.found is None else f"{verdict.found:.2f}"
    return f"{verdict.what}: {found} ({'≤' if verdict.at_most else '≥'} {verdict.bound:g})"


def growth(plots: dict[Path, str]) -> str:
    images = [f"![{path.stem}](benchmarks/{path.name})" for path in plots]
    return "## Growth\n\n" + "\n\n".join(images) + "\n"


def section(each: Measured) -> str:
    parts = [f'<a id="{each.name}"></a>\n\n## {each.scenario.title}\n', *tables(each)]
    failures = [f"- {title(server)}, {load}, repeat {repeat}: {why}" for server, load, repeat, why in each.failures()]
    if failures:
        parts.append("Failed:\n\n" + "\n".join(failures) + "\n")
    absent = [f"- {title(server)}: {why}" for server, why in each.absent.items()]
    if absent:
        parts.append("Not here:\n\n" + "\n".join(absent) + "\n")
    return "\n".join(parts)


def tables(each: Measured) -> Iterator[str]:
    loads = each.loads()
    kinds = {load["kind"] for load in each.settings["loads"]}
    if kinds == {"none"}:
        yield start_table(each)
        return
    if "closed" in kinds:
        yield load_table(each, "CPU µs per request", loads, measured.CPU_US, number)
        yield load_table(each, "Requests a second", loads, measured.RATE, whole)
    else:
        yield load_table(each, "CPU µs per request", loads, measured.CPU_US, number)
    for name, metric in (("p50", measured.P50_MS), ("p99", measured.P99_MS), ("p99.9", measured.P999_MS)):
        yield load_table(each, f"{name}, ms", loads, metric, number, loops=False)
    yield load_table(
        each, "Memory of all processes after the load, MiB", loads, measured.MEMORY_MIB, whole, loops=False
    )


def load_table(
    each: Measured,
    what: str,
    loads: Sequence[str],
    metric: Metric,
    show: Callable[[float], str],
    *,
    loops: bool = True,
) -> str:
    rows = []
    for server in each.servers():
        if server in servers.LOOPS:
            if loops:
                rows.append(
                    [title(server), *cells([each.value(server, "loop", metric)], show), *[""] * (len(loads) - 1)]
                )
        else:
            rows.append([title(server), *cells([each.value(server, load, metric) for load in loads], show)])
    return table([what, *loads], rows)


def start_table(each: Measured) -> str:
    (load,) = each.loads()
    rows = []
    for server in each.servers():
        values = cells([each.of_starts(server, measured.FIRST_ANSWER_S)], number)
        values += cells([each.of_starts(server, measured.IDLE_MEMORY_MIB)], whole)
        values += cells([each.value(server, load, measured.IDLE_CPU)], lambda share: f"{share:.2%}")
        rows.append([title(server), *values])
    return table(["", "first answer, s", "memory, MiB", "CPU while nobody asks, of a core"], rows)


def left_out() -> str:
    lines = [f"- {name}: {why}" for name, why in servers.WHY_NOT.items()]
    return "## Left out\n\n" + "\n".join(lines) + "\n"


def versions(results: Results) -> str:
    """What each server's own packages were; the files have all of them."""
    found: dict[str, str] = {}
    for each in results.values():
        for server, packages in each.peers.items():
            package = servers.PACKAGES.get(server)
            if package is not None and package in packages:
                found[server] = f"{package} {packages[package]}, onnxruntime {packages.get('onnxruntime', 'none')}"
    return "## Versions\n\n" + table(["server", "packages"], [[title(name), text] for name, text in found.items()])


# Plots ---------------------------------------------------------------------------------------------------------------


def draw(results: Results) -> Iterator[tuple[str, str]]:
    """(name, SVG) of each plot whose results are there."""
    cpu = "CPU µs per request"
    if "small" in results:
        lines = lines_of(results["small"], measured.CPU_US, first_number)
        yield "connections", plot("CPU per request by connections, small model", "connections", cpu, lines)
    if "bodies" in results:
        lines = lines_of(results["bodies"], measured.CPU_US, first_number)
        yield "bodies", plot("CPU per request by the size of the body", "bytes of JSON", cpu, lines)
    if "scorers" in results:
        each = results["scorers"]
        lines = [
            Line(load, [(each.scenario.scorers[server], value.median) for server, value in of_load(each, load)], True)
            for load in each.loads()
        ]
        yield "scorers", plot("CPU per request by scorers on one core, small model", "scorers", cpu, lines)
    if "arrivals" in results:
        lines = lines_of(results["arrivals"], measured.P99_MS, first_number)
        yield "arrivals", plot("p99 by arrivals, small model", "requests a second", "p99, ms", lines)


def of_load(each: Measured, load: str) -> Iterator[tuple[str, Value]]:
    for server in each.servers():
        value = each.value(server, load, measured.CPU_US)
        if value is not None:
            yield server, value


def lines_of(each: Measured, metric: Metric, place: Callable[[str], float]) -> list[Line]:
    lines = []
    for server in each.servers():
        if server not in servers.LOOPS:
            found = [(place(load), each.value(server, load, metric)) for load in each.loads()]
            lines.append(Line(title(server), [(x, y.median) for x, y in found if y is not None], server == "ours"))
    return lines


def first_number(load: str) -> float:
    return float(load.split(maxsplit=1)[0])


# Text ----------------------------------------------------------------------------------------------------------------


def title(server: str) -> str:
    return server if server.startswith("ours, ") else servers.title(server)


def cells(values: Iterable[Value | None], show: Callable[[float], str]) -> list[str]:
    return ["failed" if value is None else cell(value, show) for value in values]


def cell(value: Value, show: Callable[[float], str]) -> str:
    text = show(value.median)
    if value.most - value.least > 0.1 * value.median:
        text += f" ({show(value.least)} to {show(value.most)})"
    return text + (f" †{value.failed}" if value.failed else "")


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def whole(value: float) -> str:
    return f"{value:,.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:" if len(header) > 2 else "---"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
