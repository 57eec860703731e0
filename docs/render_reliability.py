"""Writes reliability.md, beside this file, from benchmarks/results/reliability.json alone: `make docs`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().with_name("reliability.md")
RESULTS = PAGE.parent.parent / "benchmarks" / "results" / "reliability.json"
OURS = "scoring-runtime"

INTRODUCTION = """\
# Reliability

<!-- Written by `make docs` from benchmarks/results/reliability.json, which `make bench-reliability` writes. -->

What becomes of requests when a server is broken under load: the same faults for this server and for others, each with two
workers. One client sends {rate} requests a second, whatever comes back, each on a connection of its own and with a number
that its answer must repeat. After {before:g} s the fault strikes a server that was freshly started; the load goes on for {after:g} s.
Where a server has a limit for the time of one `run()`, it is set to 1 s.

| column | what |
|---|---|
| sent | requests, without the one that does the harm |
| right | answered with status 200, the request's own number and value |
| error | answered with another status |
| lost | no answer: the connection ended or was refused, or {within:g} s passed |
| not begun | of those lost, how many had not begun to run: they could have been answered |
| wrong | answered with what belongs to another request |
| run twice | requests that a script began to run more than once |
| recovery | from the fault until right answers flow at the steady rate again and stay so, in steps of 0.5 s |
| full strength | from the fault until both workers were there again: loaded, not stopped, and none for longer than 0.5 s in one `run()` |

`run()` takes 5 ms, `init()` next to nothing. A dash means that it cannot be told, or that there is nothing to recover: the
server was told to end. `>` means: not while it was watched."""


def render(results: dict[str, Any]) -> str:
    """The whole page."""
    settings = results["settings"]
    introduction = INTRODUCTION.format(
        rate=settings["rate_per_s"],
        before=settings["before_s"],
        after=settings["after_s"],
        within=settings["answer_within_s"],
    )
    parts = [introduction, _machine(results), _sum_up(results)]
    for fault, described in settings["faults"].items():
        rows = [_row(results, fault, server) for server in settings["commands"]]
        parts.append(f"## {_heading(described['text'])}")
        if described["note"]:
            parts.append(described["note"])
        told = _told(results, fault)
        parts.append(
            _table([row for row in rows if row]) + (f"\n\nThe request that did the harm: {told}." if told else "")
        )
    return "\n\n".join(parts) + "\n"


def _machine(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    others = ", ".join(f"{name} {version}" for name, version in versions.items())
    repeats = results["settings"]["repeats"]
    loads = sorted(run["load_average"] for run in results["runs"] if "load_average" in run)
    load = f" The load average before the runs was {loads[0]:g} to {loads[-1]:g}." if loads else ""
    return (
        f"Measured {results['started_at'][:10]} on {machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}, commit {str(machine['commit'])[:12]}, next to {others}. "
        f"{repeats} run{'s' if repeats > 1 else ''} of each; counts are summed, times are the longest.{load}"
    )


def _sum_up(results: dict[str, Any]) -> str:
    """All faults together that a server is to live through."""
    faults = results["settings"]["faults"]
    watched_s = results["settings"]["after_s"]
    rows = []
    for server in results["settings"]["commands"]:
        runs = [run for run in _runs(results, server=server) if not faults[run["fault"]]["ends_server"]]
        times = [_longest(runs, key, watched_s) for key in ("recovery_s", "full_strength_s")]
        rows.append([server, *(_total(runs, key) for key in _COUNTS), *times])
    return "## All faults together that a server is to live through\n\n" + _table(rows)


_COUNTS = ("sent", "right", "error", "lost", "lost_before_start", "wrong", "run_twice")
_HEADER = ["server", "sent", "right", "error", "lost", "not begun", "wrong", "run twice", "recovery", "full strength"]


def _row(results: dict[str, Any], fault: str, server: str) -> list[str]:
    """Empty where the fault does not apply."""
    runs = _runs(results, server=server, fault=fault)
    if not runs:
        return []
    if any(run["failure"] for run in runs):
        return [server, "failed", *["-"] * (len(_HEADER) - 2)]
    counts = [_total(runs, key) for key in _COUNTS]
    if results["settings"]["faults"][fault]["ends_server"]:
        return [server, *counts, "-", "-"]
    watched_s = results["settings"]["after_s"]
    return [server, *counts, *(_longest(runs, key, watched_s) for key in ("recovery_s", "full_strength_s"))]


def _told(results: dict[str, Any], fault: str) -> str:
    """What the bad request itself got from each server."""
    answers = {}
    for server in results["settings"]["commands"]:
        got = sorted({answer for run in _runs(results, server=server, fault=fault) for answer in run["guilty"]})
        if got:
            answers[server] = " or ".join(got)
    return "; ".join(f"{server}: {answer}" for server, answer in answers.items())


def _runs(results: dict[str, Any], **wanted: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if all(run[key] == value for key, value in wanted.items())]


def _total(runs: Iterable[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs if not run["failure"]]
    return "-" if None in values else str(sum(values))


def _longest(runs: Iterable[dict[str, Any]], key: str, watched_s: float) -> str:
    values = [run[key] for run in runs]
    return f"> {watched_s:g} s" if None in values else f"{max(values):.1f} s"


def _heading(text: str) -> str:
    return text[0].upper() + text[1:]


def _table(rows: list[list[str]]) -> str:
    lines = [_HEADER]
    lines.append(["---"] + ["---:"] * (len(lines[0]) - 1))
    lines += [[f"**{cell}**" if cell.startswith(OURS) else cell for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render(json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")
