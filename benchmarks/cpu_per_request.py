"""How much CPU time does a request cost? Measured over a server's whole process tree, next to a server that does nothing.

Every server is pinned to one core with all its processes, the client (wrk) to another. Each repeat measures every server
in turn (A B A B ...), so that a machine that slows down or speeds up does so for all of them. A run with any error, or
in which a process of the server came or went, has failed: it yields no number.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.machine import BenchmarkError  # noqa: E402 - this program is run by its path
from benchmarks.machine import describe as describe_machine  # noqa: E402
from benchmarks.processes import cpu_clock_ns  # noqa: E402

BODY = '{"data": [[5.1,3.5,1.4,0.2]]}'  # as in score.lua
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
REQUEST_TIMEOUT_S = 5

# name -> command; {port} stands for a free port. The first is what the others are compared with.
SERVERS = {
    "null": shlex.join([sys.executable, str(HERE / "null_server.py")]) + " --port {port}",
    "scoring-runtime": shlex.join(
        [str(Path(sys.executable).parent / "scoring-runtime"), "serve", str(HERE / "models" / "iris.onnx")]
    )
    + " --port {port}",
}


@dataclasses.dataclass(frozen=True)
class Cores:
    """What runs where: the two share nothing but the machine."""

    server: int
    client: int


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs; `process` is the root of its tree."""

    name: str
    command: list[str]
    port: int
    process: psutil.Popen


@dataclasses.dataclass(frozen=True)
class Run:
    """One server under load, once. Where `failure` says something, the numbers mean nothing."""

    server: str
    repeat: int
    failure: str | None
    requests: int = 0
    cpu_ns: int = 0  # of all processes of the server together
    wall_ns: int = 0
    processes: int = 0
    requests_per_s: float = 0.0
    p50_us: int = 0
    p99_us: int = 0

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_ns / self.requests / 1000


def main() -> int:
    arguments = parse_arguments()
    try:
        commands = chosen_commands(arguments)
        cores = pick_cores()
        if shutil.which("wrk") is None:
            raise BenchmarkError("wrk is missing: make apt")
        started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        runs = measure_all(commands, cores, arguments)
    except BenchmarkError as error:
        print(f"cpu_per_request: {error}", file=sys.stderr)
        return 2
    print(table(list(commands), runs))
    if arguments.json is not None:
        report = {
            "benchmark": "cpu_per_request",
            "started_at": started_at,
            "settings": {
                "repeats": arguments.repeats,
                "seconds": arguments.seconds,
                "warm_up_seconds": arguments.warm_up_seconds,
                "connections": arguments.connections,
                "cores": dataclasses.asdict(cores),
                "commands": {name: command.replace(f"{HERE.parent}/", "") for name, command in commands.items()},
            },
            "machine": describe_machine(),
            "runs": [dataclasses.asdict(run) for run in runs],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(run.failure for run in runs) else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each server (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of one run (default: %(default)s)")
    parser.add_argument("--warm-up-seconds", type=int, default=2, help="load before run 1 (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="kept alive by the client (default: %(default)s)")
    parser.add_argument("--only", action="append", metavar="NAME", help="take this built-in server; repeatable")
    parser.add_argument(
        "--command",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help='another server that answers POST /score, e.g. "mine=python3 mine.py --port {port}"; repeatable',
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run, the settings and the machine here")
    return parser.parse_args()


def chosen_commands(arguments: argparse.Namespace) -> dict[str, str]:
    names = list(SERVERS) if arguments.only is None else arguments.only
    unknown = [name for name in names if name not in SERVERS]
    if unknown:
        raise BenchmarkError(f"no built-in server is called {unknown[0]}; there are: {', '.join(SERVERS)}")
    commands = {name: SERVERS[name] for name in names}
    for definition in arguments.command:
        name, equals, command = definition.partition("=")
        if not (name and equals and "{port}" in command):
            raise BenchmarkError(f"--command wants NAME=COMMAND with {{port}} in it, not: {definition}")
        commands[name] = command
    return commands


def pick_cores() -> Cores:
    if sys.platform != "linux":
        raise BenchmarkError("cores are pinned and clocks are read in Linux's way: run it on Linux")
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise BenchmarkError("two cores are needed: one for the server, one for the client")
    return Cores(server=available[0], client=available[1])


def measure_all(commands: dict[str, str], cores: Cores, arguments: argparse.Namespace) -> list[Run]:
    """Start all servers, warm them up, and measure each of them `--repeats` times in turn."""
    with contextlib.ExitStack() as running:
        servers = [running.enter_context(started(name, command, cores)) for name, command in commands.items()]
        for server in servers:
            print(f"warming up {server.name} ...", file=sys.stderr)
            measure(server, 0, arguments.warm_up_seconds, arguments.connections, cores)
        runs = []
        for repeat in range(1, arguments.repeats + 1):
            for server in servers:
                run = measure(server, repeat, arguments.seconds, arguments.connections, cores)
                outcome = run.failure or f"{run.cpu_us_per_request:.1f} µs, {run.requests_per_s:,.0f} requests/s"
                print(f"{repeat}/{arguments.repeats} {server.name}: {outcome}", file=sys.stderr)
                runs.append(run)
        return runs


# One server ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(name: str, command: str, cores: Cores) -> Iterator[Server]:
    """Start a server on its core and wait until it is ready; at the end stop it, with whatever it has started."""
    port = free_port()
    words = shlex.split(command.replace("{port}", str(port)))
    if shutil.which(words[0]) is None:
        raise BenchmarkError(f"{name}: there is no {words[0]} (make bench-cpu installs what is built in)")
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            ["taskset", "--cpu-list", str(cores.server), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        server = Server(name, words, port, process)
        try:
            wait_until_ready(server, log)
            yield server
        finally:
            stop(process)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(server: Server, log: IO[bytes]) -> None:
    """Wait until the server answers the request that is going to be measured."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (answer := ask(server)) is None or answer[0] != 200:
        died = server.process.poll() is not None
        if died or time.monotonic() > deadline:
            what = f"ended with status {server.process.poll()}" if died else f"is not ready after {READY_TIMEOUT_S} s"
            log.seek(0)
            output = log.read().decode(errors="replace")
            raise BenchmarkError(f"{server.name} {what}; POST /score: {answer}\n{shlex.join(server.command)}\n{output}")
        time.sleep(0.05)


def ask(server: Server) -> tuple[int, bytes] | None:
    """POST one request. Return status and body of the answer, or None where there is none yet."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("POST", "/score", BODY, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def stop(process: psutil.Popen) -> None:
    if process.poll() is not None:
        return
    tree = process_tree(process)
    process.send_signal(signal.SIGTERM)
    _gone, alive = psutil.wait_procs(tree, timeout=STOP_TIMEOUT_S)
    for survivor in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)


# One run -------------------------------------------------------------------------------------------------------------


def measure(server: Server, repeat: int, seconds: int, connections: int, cores: Cores) -> Run:
    """Load the server for so many seconds and take the difference of its CPU clocks."""
    wrk = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command = [*wrk, "--script", str(HERE / "score.lua"), f"http://127.0.0.1:{server.port}/score"]
    try:
        before_ns = cpu_clocks_ns(server.process)
        wall_start_ns = time.monotonic_ns()
        client = subprocess.run(
            ["taskset", "--cpu-list", str(cores.client), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=True,
        )
        wall_ns = time.monotonic_ns() - wall_start_ns
        after_ns = cpu_clocks_ns(server.process)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return Run(server.name, repeat, failure="a process of the server ended")
    except subprocess.SubprocessError as error:
        return Run(server.name, repeat, failure=f"the client failed: {error}")

    result = json.loads(client.stdout.partition("result ")[2])
    errors = {kind: count for kind, count in result["errors"].items() if count}
    failure = None
    if before_ns.keys() != after_ns.keys():
        failure = "the server's processes changed"
    elif errors:
        failure = "errors: " + ", ".join(f"{count} {kind}" for kind, count in errors.items())
    elif result["requests"] == 0:
        failure = "no request was answered"
    return Run(
        server.name,
        repeat,
        failure,
        requests=result["requests"],
        cpu_ns=sum(after_ns.values()) - sum(before_ns.values()),
        wall_ns=wall_ns,
        processes=len(after_ns),
        requests_per_s=round(result["requests"] / result["duration_us"] * 1e6, 1),
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
    )


def process_tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_clocks_ns(process: psutil.Process) -> dict[int, int]:
    """Return pid -> CPU time so far, for a process and all its descendants."""
    return {member.pid: cpu_clock_ns(member.pid) for member in process_tree(process)}


# What is reported ----------------------------------------------------------------------------------------------------


def table(names: list[str], runs: list[Run]) -> str:
    """Return one row per server: every repeat, the median, its ratio to the first server's, and the load it stood."""
    repeats = max(run.repeat for run in runs)
    by_server = {name: [run for run in runs if run.server == name] for name in names}
    columns = ("median", "ratio", "core", "req/s", "p50 ms", "p99 ms")
    header = ["CPU µs per request", *map(str, range(1, repeats + 1)), *columns]
    baseline_us = median_us(by_server[names[0]])
    rows = [header]
    for name, own in by_server.items():
        cells = [name, *("failed" if run.failure else f"{run.cpu_us_per_request:.1f}" for run in own)]
        typical_us = median_us(own)
        if typical_us is None:
            cells += ["failed", *["-"] * (len(columns) - 1)]
        else:
            cells += [
                f"{typical_us:.1f}",
                "-" if baseline_us is None else f"{typical_us / baseline_us:.2f}",
                f"{statistics.median(run.cpu_ns / run.wall_ns for run in own):.0%}",
                f"{statistics.median(run.requests_per_s for run in own):,.0f}",
                f"{statistics.median(run.p50_us for run in own) / 1000:.2f}",
                f"{statistics.median(run.p99_us for run in own) / 1000:.2f}",
            ]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    ]
    lines += [f"failed: {run.server}, repeat {run.repeat}: {run.failure}" for run in runs if run.failure]
    return "\n".join(lines)


def median_us(runs: list[Run]) -> float | None:
    """Return the median CPU time per request, or None where any of the runs failed."""
    if any(run.failure for run in runs):
        return None
    return statistics.median(run.cpu_us_per_request for run in runs)


if __name__ == "__main__":
    sys.exit(main())
