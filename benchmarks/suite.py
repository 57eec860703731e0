"""The load benchmarks: every scenario on every server, one after the other, again and again.

A scenario is measured in repeats. In each repeat every server is started anew and alone, checked to answer right, warmed
up, loaded in each of the scenario's ways, and stopped; then comes the next server (A B C A B C). The server has its own
cores, the client another. After each server what was seen is written to RESULTS/SCENARIO.json, so that a broken-off suite
goes on where it was: what was measured at the same commit, on the same machine and with the same settings is kept.

    python -m benchmarks.suite                          everything, an hour
    python -m benchmarks.suite --short                  a few servers and loads, minutes
    python -m benchmarks.suite --only small --only arrivals --server ours --server fastapi
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loads, machine, scenarios, servers
from benchmarks.dialects import DIALECTS, Message, wrong_answer
from benchmarks.loads import Prepared, Run, Target
from benchmarks.machine import BenchmarkError, Cores
from benchmarks.processes import Server, started
from benchmarks.scenarios import SCENARIOS, Inputs, Load, Scenario

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "suite"
READY_TIMEOUT_S = 90
WARM_UP_S = 1.0
AROUND_LOAD_S = 0.3
"""What a load takes beside its seconds: a generator to start, a first answer to check, clocks and memory to read."""

MORE_S = {"serial": 1.5, "beside": 4.0}
"""What some kinds of load take more: the last answer; the other load's first second, and answers that are late."""

MOST_WARM_UPS = 2
"""Sorts of request that a server is warmed up with; where there are more, they differ in size alone."""

SHORT = {"small": (1, 32), "script-plain": (32,), "trees": (32,)}
SHORT_SERVERS = ("null", "nginx", "raw", "ours", "azmlinfsrv", "fastapi", "litserve")


@dataclasses.dataclass(frozen=True)
class Start:
    """How a server came up, once."""

    server: str
    repeat: int
    failure: str | None = None
    first_answer_s: float = 0.0
    idle_memory_bytes: int = 0


@dataclasses.dataclass
class Results:
    """What is known of one scenario; the file's content."""

    scenario: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    started_at: str
    peers: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    starts: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    runs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def done(self) -> set[tuple[int, str]]:
        return {(start["repeat"], start["server"]) for start in self.starts}

    def drop_failed(self) -> None:
        """Forget every repeat of a server in which something failed."""
        failed = {(entry["repeat"], entry["server"]) for entry in (*self.starts, *self.runs) if entry["failure"]}
        self.starts = [entry for entry in self.starts if (entry["repeat"], entry["server"]) not in failed]
        self.runs = [entry for entry in self.runs if (entry["repeat"], entry["server"]) not in failed]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.scenario}.json"
        whole = target.with_suffix(".tmp")
        whole.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        whole.replace(target)  # a suite that is killed leaves the old file or the new one


def main() -> int:
    arguments = parse_arguments()
    try:
        plans = [plan(name, arguments) for name in chosen_scenarios(arguments)]
        check_tools()
    except BenchmarkError as error:
        print(f"suite: {error}", file=sys.stderr)
        return 2
    minutes = sum(estimate_s(each) for each in plans) / 60
    for each in plans:
        print(
            f"{each.results.scenario}: {len(each.todo)} starts, about {estimate_s(each) / 60:.0f} min", file=sys.stderr
        )
        for name, why in each.results.absent.items():
            print(f"  without {name}: {why}", file=sys.stderr)
    print(f"in all about {minutes:.0f} min; results go to {arguments.results}", file=sys.stderr)
    if not arguments.plan:
        for each in plans:
            measure(each, arguments.results)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="minutes in place of an hour, for a first look")
    parser.add_argument("--only", action="append", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--server", action="append", metavar="NAME", help="only this one; repeatable")
    parser.add_argument(
        "--load", action="append", metavar="NAME", help='only this one, e.g. "32 connections"; repeatable'
    )
    parser.add_argument("--repeats", type=int, help="in place of the scenarios' own")
    parser.add_argument(
        "--seconds", type=float, help="of each load, in place of the scenarios' own; wrk takes whole ones"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--retry-failed", action="store_true", help="measure again what failed")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and how long it would take")
    return parser.parse_args()


def chosen_scenarios(arguments: argparse.Namespace) -> list[str]:
    every = list(SHORT if arguments.short else SCENARIOS)
    unknown = [name for name in arguments.only or () if name not in every]
    if unknown:
        raise BenchmarkError(f"there is no {unknown[0]} here; there are: {', '.join(every)}")
    known = {*servers.SERVERS, *servers.LOOPS, *(name for each in SCENARIOS.values() for name in each.scorers)}
    unknown = [name for name in arguments.server or () if name not in known]
    if unknown:
        raise BenchmarkError(f"no server is called {unknown[0]}; there are: {', '.join(sorted(known))}")
    return arguments.only or every


def check_tools() -> None:
    for tool, target in (("wrk", "apt"), ("taskset", "apt")):
        if shutil.which(tool) is None:
            raise BenchmarkError(f"{tool} is missing: make {target}")


# What is to be done --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Plan:
    scenario: Scenario
    results: Results
    loads: Sequence[Load]
    seconds: float
    cores: Cores
    todo: Sequence[tuple[int, str]]
    """(repeat, server), in order."""


def plan(name: str, arguments: argparse.Namespace) -> Plan:
    """What is left to do of a scenario, and what has been done."""
    scenario = SCENARIOS[name]
    repeats = arguments.repeats or (3 if arguments.short else scenario.repeats)
    seconds = arguments.seconds or (2.0 if arguments.short else scenario.seconds)
    chosen = [load for load in scenario.loads if not arguments.short or load.connections in SHORT[name]]
    chosen = [load for load in chosen if arguments.load is None or load.name in arguments.load]
    if not chosen:
        raise BenchmarkError(f"{name} has no such load; it has: {', '.join(load.name for load in scenario.loads)}")
    wanted = [*scenario.scorers, *scenario.servers]
    if arguments.short:
        wanted = [server for server in wanted if server in SHORT_SERVERS]
    absent = dict(scenario.absent)
    for server in list(wanted):
        if server in servers.SERVERS and not servers.SERVERS[server].installed():
            absent[server] = "not installed: make bench-setup"
            wanted.remove(server)
    cores = machine.pick_cores(scenario.server_cores)
    settings = {
        "repeats": repeats,
        "seconds": seconds,
        "loads": [dataclasses.asdict(load) for load in chosen],
        "cores": dataclasses.asdict(cores),
    }
    results = earlier(name, settings, arguments) or Results(
        name, settings, machine.describe(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    results.absent = absent
    if arguments.retry_failed:
        results.drop_failed()
    selected = [server for server in wanted if arguments.server is None or server in arguments.server]
    everything = [(repeat, server) for repeat in range(1, repeats + 1) for server in selected]
    done = results.done()
    return Plan(scenario, results, chosen, seconds, cores, [each for each in everything if each not in done])


def earlier(name: str, settings: dict[str, Any], arguments: argparse.Namespace) -> Results | None:
    """What was measured before in the same way, or None."""
    file = arguments.results / f"{name}.json"
    if arguments.fresh or not file.exists():
        return None
    found = Results(**json.loads(file.read_text()))
    now = json.loads(json.dumps(machine.describe()))
    differing = [key for key in now if found.machine.get(key) != now[key]]
    differing += [key for key in settings if found.settings.get(key) != json.loads(json.dumps(settings[key]))]
    if not differing:
        return found
    if arguments.server is not None:
        raise BenchmarkError(
            f"{file} was measured otherwise ({', '.join(differing)}): servers of it cannot be added to. "
            "Measure all of them, or take --fresh or another --results"
        )
    print(f"{name}: measured anew, as {', '.join(differing)} differ from what {file} says", file=sys.stderr)
    return None


def estimate_s(each: Plan) -> float:
    """How long the plan takes, about; what ends early, as rising rates do, is counted whole."""
    return sum(estimate_one_s(each, server) for _, server in each.todo)


def estimate_one_s(each: Plan, server: str) -> float:
    if server in servers.LOOPS:
        return len(looped(each)) * (each.seconds + servers.START_AND_STOP_S[server])
    name, scorers = as_started(each.scenario, server)
    start_s = servers.START_AND_STOP_S[name] + servers.MORE_SCORERS_S * (scorers - 1)
    loaded_s = sum(load.seconds or each.seconds for load in each.loads)
    around_s = sum(AROUND_LOAD_S + MORE_S.get(load.kind, 0.0) for load in each.loads)
    return start_s + servers.SERVERS[name].settle_s + len(warmed_up(each)) * WARM_UP_S + loaded_s + around_s


def as_started(scenario: Scenario, server: str) -> tuple[str, int]:
    """The server that a name in this scenario stands for, and its scorers."""
    return ("ours", scenario.scorers[server]) if server in scenario.scorers else (server, 1)


def looped(each: Plan) -> list[str]:
    """The requests that a floor without HTTP is measured with."""
    return list(dict.fromkeys(load.request for load in each.loads))


def warmed_up(each: Plan) -> list[Load]:
    """A load of each sort of request that many ask at a time, and at least one."""
    kinds = {load.request: load for load in each.loads if load.kind == "closed"}
    return list(kinds.values())[:MOST_WARM_UPS] or [each.loads[0]]


# Measuring -----------------------------------------------------------------------------------------------------------


def measure(each: Plan, folder: Path) -> None:
    results = each.results
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for place, (repeat, server) in enumerate(each.todo, 1):
            label = f"{results.scenario} {place}/{len(each.todo)} (repeat {repeat}) {server}"
            try:
                start, runs = measure_one(each, repeat, server, Path(scratch))
            except Exception as error:  # noqa: BLE001 - the hours before and after are not to be lost by it
                traceback.print_exc()
                start, runs = Start(server, repeat, f"the suite itself failed: {error!r}"), []
            results.starts.append(dataclasses.asdict(start))
            results.runs += [dataclasses.asdict(run) for run in runs]
            if server in servers.SERVERS:
                results.peers[server] = machine.packages(servers.SERVERS[server].prefix())
            results.write(folder)
            if start.failure:
                print(f"{label}: FAILED: {start.failure.splitlines()[0]}", file=sys.stderr)
            for run in runs:
                print(f"{label}, {run.load}: {told(run)}", file=sys.stderr)


def told(run: Run) -> str:
    if run.failure:
        return f"FAILED: {run.failure}"
    return (
        f"{run.cpu_ns / run.requests / 1000:.1f} us CPU, {run.requests_per_s:,.0f}/s, "
        f"p50 {run.p50_us / 1000:.2f} ms, p99 {run.p99_us / 1000:.2f} ms"
    )


def measure_one(each: Plan, repeat: int, server: str, scratch: Path) -> tuple[Start, list[Run]]:
    """One server of a scenario, once, from its start to its end. What fails is recorded, and does not end the suite."""
    if server in servers.LOOPS:
        return Start(server, repeat), [loop(each, repeat, server, request, scratch) for request in looped(each)]
    name, scorers = as_started(each.scenario, server)
    spec = servers.SERVERS[name]
    kind = each.scenario.kind
    model = model_of(each.scenario)
    prepared, expected = requests_for(each, spec.dialects[kind], spec.calls_it(model), scratch)
    words, environment, port = spec.command("onnx" if kind == "binary" else kind, model, scorers)
    first = prepared[each.loads[0].request].messages[0]
    is_ready = functools.partial(unready, port, first, spec.dialects[kind], expected[each.loads[0].request])
    target = Target(port, each.cores, spec.keeps_connections)
    runs: list[Run] = []
    try:
        with started(
            server, words, each.cores.server, is_ready, environment=environment, ready_timeout_s=READY_TIMEOUT_S
        ) as running:
            first_answer_s = running.elapsed_s()
            time.sleep(spec.settle_s)
            start = Start(server, repeat, None, round(first_answer_s, 3), running.memory_bytes())
            warm_up(running, target, repeat, each, prepared)
            for load in each.loads:
                seconds = load.seconds or each.seconds
                if (
                    wrong := wrong_before(port, prepared[load.request], spec.dialects[kind], expected[load.request])
                ) is None:
                    run = loads.measure(running, target, repeat, load, prepared, seconds)
                else:
                    run = Run(server, repeat, load.name, f"wrong answer before the load: {wrong}")
                runs.append(run)
                if running.root.poll() is not None:
                    break
                if run.failure and load.kind == "open":
                    break  # rates rise: the next ones are more than it stands, too
    except BenchmarkError as error:
        start = Start(server, repeat, str(error))
    missing = each.loads[len(runs) :]
    why = "it did not start" if start.failure else loads.NOT_ASKED
    return start, runs + [Run(server, repeat, load.name, why) for load in missing]


def warm_up(running: Server, target: Target, repeat: int, each: Plan, prepared: Mapping[str, Prepared]) -> None:
    """Whatever a server does late (imports, caches, learning what costs what) is not what is measured."""
    for load in warmed_up(each):
        asked = dataclasses.replace(load, kind="closed", connections=min(32, max(8, load.connections)))
        loads.measure(running, target, repeat, asked, prepared, WARM_UP_S)


def unready(port: int, message: Message, dialect: str, expected: Sequence[Inputs]) -> str | None:
    """None when the server answers, and right; else what it says. A wrong answer is never going to be right."""
    answer = loads.ask(port, message)
    if answer is None or answer[0] != 200:
        return f"POST {message.path}: {answer}"
    wrong = wrong_answer(DIALECTS[dialect], answer[1], expected[0])
    if wrong is not None:
        raise BenchmarkError(f"it answers wrong: {wrong}")
    return None


def wrong_before(port: int, prepared: Prepared, dialect: str, expected: Sequence[Inputs]) -> str | None:
    """Every request of a load is answered right, before it is measured."""
    for message, wanted in zip(prepared.messages, expected, strict=True):
        answer = loads.ask(port, message)
        if answer is None or answer[0] != 200:
            return f"{answer}"[:300]
        if (wrong := wrong_answer(DIALECTS[dialect], answer[1], wanted)) is not None:
            return wrong
    return None


def loop(each: Plan, repeat: int, name: str, request: str, scratch: Path) -> Run:
    """A floor without HTTP, on the server's cores."""
    dialect = "v2-binary" if each.scenario.kind == "binary" else "plain"
    prepared, _ = requests_for(each, dialect, "model", scratch)
    load = scenarios.loop_of(request)
    words = [sys.executable, "-P", str(HERE / "loops.py"), name, "--model", str(model_of(each.scenario))]
    words += ["--body", str(prepared[request].bodies[0]), "--seconds", str(each.seconds)]
    words += ["--cores", json.dumps(each.cores.server)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=each.seconds + 120, check=True)
    except subprocess.CalledProcessError as error:
        return Run(name, repeat, load, f"it ended with {error.returncode}: {error.stderr.strip()[-300:]}")
    except subprocess.TimeoutExpired:
        return Run(name, repeat, load, "it did not end")
    return Run(name, repeat, load, **json.loads(done.stdout))


# Requests and right answers ------------------------------------------------------------------------------------------


def model_of(scenario: Scenario) -> Path:
    """The file that is served; a relative path is one of an installed package."""
    if scenario.model.is_absolute():
        return scenario.model
    package, *rest = scenario.model.parts
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise BenchmarkError(f"package {package}, which carries a model, is not installed: make bench-setup")
    return Path(found.submodule_search_locations[0], *rest)


_PREPARED: dict[tuple[str, str, str], tuple[dict[str, Prepared], dict[str, list[Inputs]]]] = {}


def requests_for(
    each: Plan, dialect: str, model_name: str, scratch: Path
) -> tuple[dict[str, Prepared], dict[str, list[Inputs]]]:
    """The scenario's requests in a dialect, in files, and what is right to answer."""
    key = (each.results.scenario, dialect, model_name)
    if key not in _PREPARED:
        inputs = scenarios.requests(each.results.scenario)
        prepared = {
            name: loads.prepare(
                [DIALECTS[dialect].encode(one, model_name) for one in many], scratch / f"{dialect}-{model_name}-{name}"
            )
            for name, many in inputs.items()
        }
        _PREPARED[key] = prepared, {name: [right(each.scenario, one) for one in many] for name, many in inputs.items()}
    return _PREPARED[key]


def right(scenario: Scenario, inputs: Inputs) -> Inputs:
    if scenario.expected is not None:
        return scenario.expected(inputs)
    session, types = _session(model_of(scenario))
    arrays: Inputs = {name: array.astype(types[name]) for name, array in inputs.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, arrays), strict=True))


@functools.cache
def _session(model: Path) -> tuple[Any, dict[str, Any]]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    types = {tensor.name: np.int64 if "int64" in tensor.type else np.float32 for tensor in session.get_inputs()}
    return session, types


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit("suite: stopped; the same command goes on from here")
