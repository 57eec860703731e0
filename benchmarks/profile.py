"""Where the time goes: what the front and both engines do while they are as busy as they can be.

Three looks at a server that 32 connections keep busy, all its processes on one core as in the suite. The clocks say what each
process spends in itself and in the kernel. perf, which samples what is on a core, says in which libraries and system calls,
but knows no functions of Python. py-spy knows these; it samples by the clock on the wall and so counts waiting as well, so
that what it finds in system calls is left out: its stacks are of the process's own time. The raw results,
benchmarks/results/profiles/NAME.json, are what `python -m benchmarks.report` draws flame graphs from. Needs root, or whatever
else allows to trace processes.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import loads, machine, servers, stacks
from benchmarks.dialects import DIALECTS
from benchmarks.loads import Prepared, Target
from benchmarks.machine import BenchmarkError, Cores
from benchmarks.processes import Server, started
from benchmarks.scenarios import ONLY, SCENARIOS, Load, Scenario

RESULTS = Path(__file__).resolve().parent / "results" / "profiles"
LOAD = Load("32 connections", "closed", 32)
SAMPLES_PER_S = 500
"""Of py-spy. Each costs the process about 0.4 ms, in which it stands still."""

PERF_SAMPLES_PER_S = 997

WARM_UP_S = 2.0


@dataclasses.dataclass(frozen=True)
class Subject:
    """A server that is looked at, and which of its processes are sampled."""

    scenario: str
    engine: str
    sampled: Sequence[str]


SUBJECTS = {
    "onnx": Subject("small", "ONNX engine", ("front", "engine")),
    "script": Subject("script-plain", "script engine", ("engine",)),
}


@dataclasses.dataclass(frozen=True)
class Split:
    """What a process spent under the load, in microseconds of CPU per request."""

    process: str
    user_us: float
    kernel_us: float


@dataclasses.dataclass
class Profile:
    """The content of a file of results."""

    name: str
    scenario: str
    engine: str
    load: str
    started_at: str
    machine: dict[str, Any]
    requests_per_s: float
    split: list[dict[str, Any]]
    places: dict[str, dict[str, int]]
    """Process -> library or system call -> samples."""

    stacks: dict[str, list[str]]
    """Process -> its stacks, as stacks.written() spells them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SUBJECTS)
    parser.add_argument(
        "--seconds",
        type=float,
        default=40.0,
        help="of sampling the stacks of each process; a quarter for all else (default: %(default)s)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        if not sampler().exists() or shutil.which("perf") is None:
            raise BenchmarkError("py-spy or perf is missing: make bench-profile")
        for name in arguments.only or SUBJECTS:
            profile = take(name, SUBJECTS[name], arguments.seconds)
            arguments.results.mkdir(parents=True, exist_ok=True)
            file = arguments.results / f"{name}.json"
            file.write_text(json.dumps(dataclasses.asdict(profile), indent=1) + "\n")
            print(f"{file}: {sum(map(len, profile.stacks.values()))} different stacks")
    except BenchmarkError as error:
        print(f"profile: {error}", file=sys.stderr)
        return 2
    return 0


def sampler() -> Path:
    return Path(sys.prefix) / "bin" / "py-spy"


def take(name: str, subject: Subject, seconds: float) -> Profile:
    """Start the server, look at it, stop it."""
    scenario = SCENARIOS[subject.scenario]
    cores = machine.pick_cores()
    spec = servers.SERVERS["ours"]
    words, environment, port = spec.command(scenario.kind, scenario.model, 1)
    begun = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        requests = _requests(scenario, spec.dialects[scenario.kind], Path(scratch))
        is_ready = functools.partial(_unready, port, requests)
        with started("ours", words, cores.server, is_ready, environment=environment) as server:
            target = Target(port, cores, spec.keeps_connections)
            loads.measure(server, target, 1, LOAD, {ONLY: requests}, WARM_UP_S)
            found = _processes(server)
            requests_per_s, split = _split(server, target, requests, found, seconds / 4)
            chosen = {role: found[role] for role in subject.sampled}
            with _busy(target, requests):
                places = {role: _places(process, cores, seconds / 4) for role, process in chosen.items()}
                sampled = {role: _stacks(process, cores, seconds) for role, process in chosen.items()}
    return Profile(
        name,
        subject.scenario,
        subject.engine,
        LOAD.name,
        begun,
        machine.describe(),
        requests_per_s,
        [dataclasses.asdict(each) for each in split],
        {role: dict(each.most_common()) for role, each in places.items()},
        {role: stacks.written(each) for role, each in sampled.items()},
    )


def _requests(scenario: Scenario, dialect: str, scratch: Path) -> Prepared:
    messages = [DIALECTS[dialect].encode(inputs, "model") for inputs in scenario.requests()[ONLY]]
    return loads.prepare(messages, scratch / "requests")


def _unready(port: int, requests: Prepared) -> str | None:
    answer = loads.ask(port, requests.messages[0])
    return None if answer is not None and answer[0] == 200 else f"{answer}"


def _processes(server: Server) -> dict[str, psutil.Process]:
    """Role -> process. The supervisor starts the front; of what that has started, the engine has worked most."""
    [front] = psutil.Process(server.root.pid).children()
    engine = max(front.children(recursive=True), key=lambda process: sum(process.cpu_times()[:2]))
    return {"front": front, "engine": engine}


# The split -----------------------------------------------------------------------------------------------------------


def _split(
    server: Server, target: Target, requests: Prepared, found: dict[str, psutil.Process], seconds: float
) -> tuple[float, list[Split]]:
    """Requests a second, and what each process takes for one, in itself and in the kernel."""
    before = {role: process.cpu_times() for role, process in found.items()}
    run = loads.measure(server, target, 1, LOAD, {ONLY: requests}, seconds)
    after = {role: process.cpu_times() for role, process in found.items()}
    if run.failure:
        raise BenchmarkError(f"the load failed: {run.failure}")
    each_us = 1e6 / run.requests
    return run.requests_per_s, [
        Split(
            role,
            round((after[role].user - before[role].user) * each_us, 2),
            round((after[role].system - before[role].system) * each_us, 2),
        )
        for role in found
    ]


# Samples -------------------------------------------------------------------------------------------------------------


def _places(process: psutil.Process, cores: Cores, seconds: float) -> Counter[str]:
    """The libraries and system calls that a process is in, by perf, which samples what is on a core."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "samples")
        words = ["perf", "record", "--event", "cpu-clock", "--freq", str(PERF_SAMPLES_PER_S), "-g", "--output", file]
        _run([*words, "--pid", str(process.pid), "--", "sleep", f"{seconds:g}"], cores.client, seconds)
        return stacks.places(_run(["perf", "script", "--input", file, "--fields", "ip,sym,dso"], cores.client, seconds))


def _stacks(process: psutil.Process, cores: Cores, seconds: float) -> stacks.Stacks:
    """The functions of Python that a process is in, and whatever these call, by py-spy.

    It is on the server's core and goes first there, so that it stops the process wherever that is. If it had to wait its
    turn, it would find the core free where the process waits itself. On the client's core it would hold up the client,
    and hardly ever find the front with a new request.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        words = ["chrt", "--fifo", "1", str(sampler()), "record", "--native", "--format", "raw", "--output", str(file)]
        words += ["--rate", str(SAMPLES_PER_S), "--duration", f"{max(1, round(seconds))}", "--pid", str(process.pid)]
        _run(words, cores.server[0], seconds)
        return stacks.own(stacks.parse(file.read_text().splitlines()))


def _run(words: Sequence[str], core: int, seconds: float) -> str:
    """What a sampler prints."""
    pinned = ["taskset", "--cpu-list", str(core), *words]
    done = subprocess.run(pinned, capture_output=True, text=True, timeout=seconds + 120, check=False)
    if done.returncode:
        raise BenchmarkError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


@contextlib.contextmanager
def _busy(target: Target, requests: Prepared) -> Iterator[None]:
    words = loads.wrk(target.port, LOAD.connections, requests, seconds=3600)
    pinned = ["taskset", "--cpu-list", str(target.cores.client), *words]
    with subprocess.Popen(pinned, stdout=subprocess.DEVNULL) as client:
        try:
            time.sleep(WARM_UP_S)
            yield
        finally:
            client.kill()


if __name__ == "__main__":
    sys.exit(main())
