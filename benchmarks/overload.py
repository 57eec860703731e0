"""What is left of a server's capacity when three times as much is asked of it, and how late its answers are.

Each server has one core for all its processes, the client (open_loop.py, in a process of its own) another. A repeat first
measures the capacity: what eight connections get that ask again at once. Then each load is offered in turn, as so many
times that capacity. An answer is good if it is 200 and comes within the target: the longest wait that the server is set to
allow, and the longest frame. Times count from when a request was due, not from when it could be sent.
"""

import argparse
import dataclasses
import datetime as dt
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import cpu_per_request as cpu  # noqa: E402 - this program is run by its path
from benchmarks.machine import BenchmarkError, describe  # noqa: E402

MAX_QUEUE_WAIT_MS = 100
BATCH_TARGET_MS = 25
TARGET_MS = MAX_QUEUE_WAIT_MS + BATCH_TARGET_MS
LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
PROBES = ("/livez", "/readyz", "/metrics")
CAPACITY_CONNECTIONS = 8

SCORING_RUNTIME = shlex.join([str(Path(sys.executable).parent / "scoring-runtime"), "serve"])
LIMITS = f"--max-queue-wait-ms {MAX_QUEUE_WAIT_MS} --batch-target-ms {BATCH_TARGET_MS} --port {{port}}"
SERVERS = {
    "script, sleeps 5 ms": f"{SCORING_RUNTIME} {HERE / 'scripts' / 'sleep_5ms.py'} {LIMITS}",
    "script, computes 5 ms": f"{SCORING_RUNTIME} {HERE / 'scripts' / 'spin_5ms.py'} {LIMITS}",
    "ONNX model": f"{SCORING_RUNTIME} {HERE / 'models' / 'dense.onnx'} --max-batch-size 4 {LIMITS}",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One load on one server, once. `report` is what open_loop.py printed."""

    server: str
    repeat: int
    times_capacity: float
    capacity_per_s: float
    offered_per_s: float
    load_average: float  # of the machine, before: above 2 others were at work on it
    report: dict[str, Any]

    @property
    def good_per_s(self) -> float:
        return float(self.report["/score"]["good_per_s"])

    def status(self, status: int, what: str, path: str = "/score") -> float | None:
        found = self.report[path]["status"].get(str(status))
        return None if found is None else found[what]


def main() -> int:
    arguments = parse_arguments()
    names = arguments.only or list(SERVERS)
    try:
        cores = cpu.pick_cores()
        started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        runs = [run for name in names for run in measure_server(name, cores, arguments)]
    except BenchmarkError as error:
        print(f"overload: {error}", file=sys.stderr)
        return 2
    print(table(runs))
    failures = [failure for name in names for failure in find_failures(name, runs)]
    print(
        "\n".join(failures) if failures else f"Every server kept 90 % of its peak at {LOADS[-1]:g} times its capacity."
    )
    if arguments.json is not None:
        report = {
            "benchmark": "overload",
            "started_at": started_at,
            "settings": {
                "repeats": arguments.repeats,
                "seconds": arguments.seconds,
                "connections": arguments.connections,
                "target_ms": TARGET_MS,
                "cores": dataclasses.asdict(cores),
                "commands": {name: SERVERS[name].replace(f"{HERE.parent}/", "") for name in names},
            },
            "machine": describe(),
            "runs": [dataclasses.asdict(run) for run in runs],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of all loads on each server (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="length of one load (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=256, help="of the client (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=list(SERVERS), help="take this server; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run, the settings and the machine here")
    return parser.parse_args()


def measure_server(name: str, cores: cpu.Cores, arguments: argparse.Namespace) -> list[Run]:
    """Every repeat of every load on one server, which is started once."""
    runs = []
    with cpu.started(name, SERVERS[name], cores) as server:
        offer(server, cores, seconds=2, connections=CAPACITY_CONNECTIONS)  # warms up
        for repeat in range(1, arguments.repeats + 1):
            capacity = offer(server, cores, seconds=3, connections=CAPACITY_CONNECTIONS)
            for number, times in enumerate(LOADS):
                run = Run(
                    name, repeat, times, capacity["good_per_s"], round(times * capacity["good_per_s"], 2),
                    round(os.getloadavg()[0], 2),
                    offer(
                        server, cores, seconds=arguments.seconds, connections=arguments.connections,
                        rate=times * capacity["good_per_s"], target_ms=TARGET_MS, seed=100 * repeat + number,
                        probe=PROBES,
                    ),
                )  # fmt: skip
                runs.append(run)
                print(f"{name} {repeat}/{arguments.repeats} {times:g}x: {run.good_per_s:.0f} good/s", file=sys.stderr)
    return runs


def offer(server: cpu.Server, cores: cpu.Cores, **options: Any) -> dict[str, Any]:
    """What open_loop.py saw."""
    command = ["taskset", "--cpu-list", str(cores.client), sys.executable, "-P", str(HERE / "open_loop.py")]
    command += ["--port", str(server.port)]
    for option, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            command += ["--" + option.replace("_", "-"), str(one)]
    try:
        client = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=options["seconds"] + 60,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise BenchmarkError(f"the client failed: {error}\n{getattr(error, 'stderr', '')}") from None
    report: dict[str, Any] = json.loads(client.stdout)
    return report


def find_failures(name: str, runs: list[Run]) -> list[str]:
    """Where the server did not keep its promise: of the goodput the mean of the repeats counts, of the times every repeat."""
    failures = []
    peak = max(good_per_s(name, times, runs) for times in LOADS)
    at_most = good_per_s(name, LOADS[-1], runs)
    if at_most < 0.9 * peak:
        failures.append(f"{name}: {at_most:.0f} good answers a second at {LOADS[-1]:g}x, {peak:.0f} at the peak")
    for run in runs:
        p99_ms = run.status(200, "p99_ms")
        if run.server == name and p99_ms is not None and p99_ms > TARGET_MS:
            failures.append(f"{name}, repeat {run.repeat}, {run.times_capacity:g}x: p99 is {p99_ms:.0f} ms")
    return failures


def good_per_s(name: str, times_capacity: float, runs: list[Run]) -> float:
    """The mean of the repeats."""
    own = [run.good_per_s for run in runs if run.server == name and run.times_capacity == times_capacity]
    return sum(own) / len(own)


def table(runs: list[Run]) -> str:
    """One row for each run."""
    header = ["server", "repeat", "load", "offered/s", "good/s", "p50 ms", "p99 ms", "503", "503 p99 ms", "other"]
    rows = [[*header, *(f"{path} p99 ms" for path in PROBES)]]
    for run in runs:
        statuses = run.report["/score"]["status"]
        rows.append(
            [
                run.server,
                str(run.repeat),
                f"{run.times_capacity:g}x",
                f"{run.offered_per_s:.0f}",
                f"{run.good_per_s:.0f}",
                *(_number(run.status(200, what)) for what in ("p50_ms", "p99_ms")),
                _number(run.status(503, "count")),
                _number(run.status(503, "p99_ms")),
                str(sum(found["count"] for status, found in statuses.items() if status not in ("200", "503"))),
                *(_number(run.status(200, "p99_ms", path)) for path in PROBES),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
