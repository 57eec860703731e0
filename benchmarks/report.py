"""Write docs/benchmarks.md and its plots from what the suite has measured. No number on them is typed by hand.

python -m benchmarks.report                              the page, from benchmarks/results
python -m benchmarks.report --results .bench --text      a look at other results, printed
python -m benchmarks.report --results .bench --page /tmp/benchmarks.md      the same with its plots
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import growth, measured, profile, servers, stacks, suite, targets
from benchmarks.flames import flame_graph
from benchmarks.machine import ROOT
from benchmarks.measured import Measured
from benchmarks.scenarios import PYTHON_PEERS
from benchmarks.tables import cell_of, cells, load_table, number, table, title, whole
from benchmarks.targets import TARGETS, Results, Verdict

PAGE = ROOT / "docs" / "benchmarks.md"
NOTES = Path(__file__).resolve().parent / "notes.toml"

Profiles = Mapping[str, Mapping[str, Any]]
"""Name -> the content of its file."""

INTRODUCTION = """\
# Benchmarks

<!-- Written by `make bench-report` from benchmarks/results. Run `make bench-full` to measure anew. -->

What a request costs here and elsewhere, measured by `make bench-full`, which anybody can run in about an hour.
[How it is measured](../benchmarks/README.md) says what each number means. Every number is the median of its repeats, with
the least and the most of them in brackets where they lie apart by more than a tenth; † counts repeats that failed. `failed` is
what failed in half of its repeats or more; the lists below the tables name every failure. `few`: too few answers for such a
quantile.
"""
COMPARED = """\
CPU time per request of each server over that of scoring-runtime with default settings, whose own cost is the first row. Above
1 a server costs more. The last column is the time to an answer, not a cost.
"""
GROWTH = """\
Both axes are logarithmic: a straight line that rises by one decade in one is proportional. What failed is not drawn.
"""
TIME = """\
The server is as busy as 32 connections keep it, all its processes on one core. The first table is of the processes' clocks. Of
each process a second one, by perf, has the libraries and system calls in which it is when it is on the core. perf knows no
functions of Python: these and the flame graph, by py-spy, are of the process's own time, without system calls. Boxes are as
wide as their share, callers above what they call.
"""
LEAST_FOR_P99, LEAST_FOR_P999 = 100, 1000
FUNCTIONS = 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=suite.RESULTS, metavar="FOLDER")
    parser.add_argument("--profiles", type=Path, default=profile.RESULTS, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--text", action="store_true", help="print the page, write nothing")
    arguments = parser.parse_args()
    page, plots = render(measured.read(arguments.results), read_profiles(arguments.profiles), read_notes())
    if arguments.text:
        print(page)
        return 0
    folder = plots_of(arguments.page)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, text in plots.items():
        (folder / name).write_text(text)
    arguments.page.write_text(page)
    return 0


def plots_of(page: Path) -> Path:
    """The folder of a page's plots."""
    return page.with_suffix("")


def read_profiles(folder: Path) -> Profiles:
    files = [folder / f"{name}.json" for name in profile.SUBJECTS]
    return {file.stem: json.loads(file.read_text()) for file in files if file.exists()}


def read_notes() -> dict[str, str]:
    """Target -> what bounds it."""
    return tomllib.loads(NOTES.read_text())


def render(results: Results, profiles: Profiles, notes: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The page, and its plots: file name -> SVG."""
    plots = dict(growth.draw(results))
    flames = dict(draw_flames(profiles))
    parts = [INTRODUCTION]
    if results:
        parts += [judged(results, notes), compared(results), conditions(results)]
        if plots:
            parts.append(grown(plots))
    if profiles:
        parts.append(where_the_time_goes(profiles))
    if results:
        parts += [started(each) for name, each in results.items() if name == "small"]
        parts += [section(each) for each in results.values()]
        parts += [left_out(), versions(results)]
    else:
        parts.append("Nothing has been measured yet.\n")
    return "\n".join(parts), {f"{name}.svg": text for name, text in {**plots, **flames}.items()}


# The main answers ----------------------------------------------------------------------------------------------------


def judged(results: Results, notes: Mapping[str, str]) -> str:
    rows = []
    states = []
    for target in TARGETS:
        verdicts = list(target.verdicts(results))
        states.append(targets.state(verdicts))
        found = "<br>".join(map(told, verdicts))
        mark = states[-1] if states[-1] == "met" else f"**{states[-1]}**"
        rows.append([f"[{target.text}](#{target.scenario})", mark, found])
        if states[-1] == "not met" and target.name in notes:
            rows.append([f"↳ What bounds it: {' '.join(notes[target.name].split())}", "", ""])
    sums = [f"{states.count(state)} {state}" for state in ("met", "not met", "not measured") if state in states]
    return (
        f"## Targets\n\nOf {len(TARGETS)}: {', '.join(sums)}.\n\n{table(['target', '', 'found'], rows, numbers=False)}"
    )


def told(verdict: Verdict) -> str:
    found = verdict.found if isinstance(verdict.found, str) else f"{verdict.found:.2f}"
    if verdict.bound is None:
        return f"{verdict.what}: {found} (not judged)"
    text = f"{verdict.what}: {found} ({'≤' if verdict.at_most else '≥'} {verdict.bound:g})"
    return f"**{text}**" if verdict.met is False else text


def compared(results: Results) -> str:
    """One row for each server, one column for each scenario."""
    columns = [(each, each.scenario.headline) for each in results.values() if each.scenario.headline in each.loads()]
    header = ["", *(f"[{each.name}](#{each.name})<br>{load}" for each, load in columns)]
    own = [cell_of(each, "ours", str(load), measured.CPU_US, lambda us: f"{number(us)} µs") for each, load in columns]
    rows = [[title("ours"), *own]]
    for server in ("ours-tuned", "null", "nginx", *PYTHON_PEERS):
        found = [times(each, server, str(load), measured.CPU_US) for each, load in columns]
        rows.append([title(server), *found])
    if "small" in results and "1 connection" in results["small"].loads():
        small = results["small"]
        header.append("[small](#small)<br>p50 at 1 connection")
        rows[0].append(cell_of(small, "ours", "1 connection", measured.P50_MS, lambda ms: f"{number(ms)} ms"))
        for row, server in zip(rows[1:], ("ours-tuned", "null", "nginx", *PYTHON_PEERS), strict=True):
            row.append(times(small, server, "1 connection", measured.P50_MS))
    return f"## Next to other servers\n\n{COMPARED}\n{table(header, rows)}"


def times(each: Measured, server: str, load: str, metric: measured.Metric) -> str:
    """How many times ours it is."""
    if server not in each.servers():
        return ""
    theirs, ours = each.value(server, load, metric), each.value("ours", load, metric)
    if theirs is None or ours is None:
        return each.why_not(server if theirs is None else "ours", load)
    return f"{number(theirs.median / ours.median)}x"


def conditions(results: Results) -> str:
    """Machine and commit, once for all scenarios that share them."""
    shared: dict[str, list[str]] = {}
    for each in results.values():
        machine = each.machine
        dirty = ", with uncommitted changes" if machine["uncommitted_changes"] else ""
        where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"
        shared.setdefault(f"{where}; commit {str(machine['commit'])[:10]}{dirty}", []).append(each.name)
    lines = [f"- {text}: {'all' if len(names) == len(results) else ', '.join(names)}" for text, names in shared.items()]
    return "## Measured on\n\n" + "\n".join(lines) + "\n"


def grown(plots: Mapping[str, str]) -> str:
    images = [f"![{name}](benchmarks/{name}.svg)" for name in plots]
    return f"## Growth\n\n{GROWTH}\n" + "\n\n".join(images) + "\n"


# Where the time goes -------------------------------------------------------------------------------------------------


def draw_flames(profiles: Profiles) -> Iterator[tuple[str, str]]:
    """(name, SVG) of each flame graph."""
    for name, each in profiles.items():
        for process, lines in each["stacks"].items():
            shown = stacks.without_trunk(stacks.parse(lines))
            yield flame_name(name, process), flame_graph(f"{called(each, process)}, {each['load']}", shown)


def where_the_time_goes(profiles: Profiles) -> str:
    rows = []
    for each in profiles.values():
        for split in each["split"]:
            whole_us = split["user_us"] + split["kernel_us"]
            name = f"{called(each, split['process'])}, {each['scenario']}"
            share = f"{split['kernel_us'] / whole_us:.0%}" if whole_us else ""
            rows.append([name, number(split["user_us"]), number(split["kernel_us"]), share])
    header = ["µs of CPU per request", "in itself", "in the kernel", "kernel's share"]
    parts = [f"## Where the time goes\n\n{TIME}\n{table(header, rows)}"]
    parts += [sampled(name, each, process) for name, each in profiles.items() for process in each["stacks"]]
    return "\n".join(parts)


def sampled(name: str, each: Mapping[str, Any], process: str) -> str:
    """One process: places, functions, flame graph."""
    found = each["places"][process]
    total = sum(found.values())
    places = [[place, f"{count / total:.1%}"] for place, count in list(found.items())[:FUNCTIONS]]
    parsed = stacks.parse(each["stacks"][process])
    functions = [
        [f"`{row.function}`", f"`{row.called_from}`" if row.called_from else "", f"{row.share:.1%}"]
        for row in stacks.own_time(parsed, FUNCTIONS)
    ]
    header = [f"own time without system calls, of {sum(parsed.values())} samples", "for", "share"]
    return (
        f"### {sentence(called(each, process))}, {each['scenario']}\n\n"
        f"{table([f'library or system call, of {total} samples', 'share'], places)}\n"
        f"{table(header, functions, numbers=False)}\n"
        f"![Flame graph](benchmarks/{flame_name(name, process)}.svg)\n"
    )


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def flame_name(name: str, process: str) -> str:
    return f"flames-{name}-{process}"


def called(each: Mapping[str, Any], process: str) -> str:
    return str(each["engine"]) if process == "engine" else process


# Scenarios -----------------------------------------------------------------------------------------------------------


def started(small: Measured) -> str:
    """What the starts of the first scenario say by the way."""
    rows = []
    for server in small.servers():
        if server not in servers.LOOPS:
            first = cells([small.of_starts(server, measured.FIRST_ANSWER_S)], number)
            rows.append([title(server), *first, *cells([small.of_starts(server, measured.IDLE_MEMORY_MIB)], whole)])
    text = "From the command to the first right answer, files already in memory, and what all processes have when idle."
    return f"## Start and idle memory\n\n{text}\n\n{table(['', 'first answer, s', 'memory, MiB'], rows)}"


def section(each: Measured) -> str:
    parts = [f'<a id="{each.name}"></a>\n\n## {each.scenario.title}\n', how(each), *filter(None, load_tables(each))]
    failures = [
        f"- {title(server)}, {load}, {listed(repeats)}: {why}" for server, load, repeats, why in each.failures()
    ]
    if failures:
        parts.append("Failed:\n\n" + "\n".join(failures) + "\n")
    reasons: dict[str, list[str]] = {}
    for server, why in each.absent.items():
        reasons.setdefault(why, []).append(title(server))
    if reasons:
        lines = [f"- {', '.join(names)}: {why}" for why, names in reasons.items()]
        parts.append("Not here:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def how(each: Measured) -> str:
    cores = each.settings["cores"]
    count = len(cores["server"])
    client = "one of these" if cores["client"] in cores["server"] else "another one"
    on = f"each server on {counted(count, 'core')}, the client on {client}"
    seconds = {load["seconds"] or each.settings["seconds"] for load in each.settings["loads"]}
    repeats = counted(each.settings["repeats"], "repeat")
    return f"{each.started_at[:10]}: {repeats} of {' and '.join(f'{one:g}' for one in sorted(seconds))} s, {on}.\n"


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def listed(repeats: list[int]) -> str:
    return f"repeat{'s' * (len(repeats) > 1)} {', '.join(map(str, repeats))}"


def load_tables(each: Measured) -> Iterator[str]:
    """Costs, then what is unfolded by who wants to know: times and memory. Where these are the matter, they are open."""
    loads = each.loads()
    kinds = {load["kind"] for load in each.settings["loads"]}
    if "beside" not in kinds:  # there the large ones' cost would be shared out among the small ones
        yield load_table(each, "CPU µs per request", loads, measured.CPU_US, number)
    if kinds & {"closed", "serial"}:
        yield load_table(each, "Requests a second", loads, measured.RATE, number)
    yield f"<details{' open' * (not kinds & {'closed', 'serial'})}>\n<summary>Times and memory</summary>\n"
    for name, metric, least in (
        ("p50", measured.P50_MS, 0),
        ("p99", measured.P99_MS, LEAST_FOR_P99),
        ("p99.9", measured.P999_MS, LEAST_FOR_P999),
    ):
        yield load_table(each, f"{name}, ms", loads, metric, number, loops=False, least_answers=least)
    yield load_table(each, "Memory of all processes after it, MiB", loads, measured.MEMORY_MIB, whole, loops=False)
    yield "</details>\n"


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
    return "## Versions\n\n" + table(
        ["server", "packages"], [[title(name), text] for name, text in found.items()], numbers=False
    )


if __name__ == "__main__":
    sys.exit(main())
