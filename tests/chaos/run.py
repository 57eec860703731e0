"""The whole run: servers up, clients and faults on, samples meanwhile, everything down, books closed."""

import asyncio
import datetime as dt
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from .clients import KINDS, SCRIPTS_ONLY, Place, keep_visiting
from .faults import FAULTS, Scene, Stroke, schedule
from .growth import LIMITS, growth
from .ledger import Ledger
from .servers import Server, sample

SERVERS = {
    # name: engine, and what of it may be killed. Growth is seen in what lives through the whole run.
    "script": ("raw", ""),
    "model": ("onnx", ""),
    "mortal-script": ("plain", "front"),
    "mortal-model": ("onnx", "arbiter"),
}
CLIENTS_OF_A_KIND = 1
SAMPLES = 400
LONGEST_RECOVERY_S = 60.0
IDLE_WITHIN_S = 15.0

Tell = Callable[[str], None]
Samples = dict[tuple[str, str, int], list[dict[str, float]]]
"""By server, role and pid."""


async def run(seed: int, length_s: float, tell: Tell) -> dict[str, Any]:
    """Everything that happened, as JSON; "violations" is empty when all was well."""
    began_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    began = time.monotonic()

    def clock() -> float:
        return time.monotonic() - began

    ledger = Ledger()
    ledger.violations.tell = tell
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        servers = {name: Server(name, engine, Path(folder) / name) for name, (engine, _) in SERVERS.items()}
        places = {name: Place(name, each.engine, each.port, ledger, clock) for name, each in servers.items()}
        try:
            strokes, samples = await _under_load(seed, length_s, servers, places, tell)
            await _stop(servers, ledger)
            ledger.close({name: server.runs() for name, server in servers.items() if places[name].scripted})
        finally:
            for server in servers.values():
                server.kill_everything()
        growths = _check_growth(samples, ledger)
        for server in servers.values():
            for line in server.complaints:
                ledger.violations.add("the front complains", f"{server.name}: {line}")
        logs = {
            name: [line.decode("utf-8", "replace") for line in server.last_lines] for name, server in servers.items()
        }
    return {
        "program": "chaos",
        "started_at": began_at,
        "seed": seed,
        "length_s": length_s,
        "machine": _machine(),
        "requests": ledger.total,
        "outcomes": [[*key[:2], key[2].name.lower(), count] for key, count in sorted(ledger.counts.items())],
        "reasons": [[*key, count] for key, count in sorted(ledger.reasons.items())],
        "longest_answer_s": {name: round(longest_s, 3) for name, longest_s in ledger.longest_s.items()},
        "faults": strokes,
        "growth": growths,
        "violations": dict(ledger.violations.counts),
        "details": ledger.violations.details,
        "logs": logs if ledger.violations.counts else {},
    }


async def _under_load(
    seed: int, length_s: float, servers: dict[str, Server], places: dict[str, Place], tell: Tell
) -> tuple[list[dict[str, Any]], Samples]:
    for server in servers.values():
        server.start()
    for server in servers.values():
        if not await server.recovered():
            raise RuntimeError("\n".join([f"{server.name} does not start", *map(repr, server.last_lines)]))
    tell("the servers are ready")
    idle = _sample_all(servers)
    stopping = asyncio.Event()
    began = time.monotonic()
    samples: Samples = {}
    strokes: list[dict[str, Any]] = []
    async with asyncio.TaskGroup() as tasks:
        clients = [
            tasks.create_task(
                keep_visiting(place, kind, random.Random(f"{seed} {place.name} {kind} {index}"), stopping)
            )
            for place in places.values()
            for kind in KINDS
            if place.scripted or kind not in SCRIPTS_ONLY
            for index in range(CLIENTS_OF_A_KIND)
        ]
        sampler = tasks.create_task(_keep_sampling(servers, samples, max(0.2, length_s / SAMPLES)))
        faults = [
            tasks.create_task(
                _strike_all(
                    server,
                    places[name],
                    schedule(random.Random(f"{seed} {name}"), server.engine, SERVERS[name][1], length_s),
                    began + length_s,
                    strokes,
                    tell,
                )
            )
            for name, server in servers.items()
        ]
        await asyncio.wait(faults)
        await asyncio.sleep(max(0.0, began + length_s - time.monotonic()))
        stopping.set()
        await asyncio.wait(clients)
        sampler.cancel()
    await _check_idle(servers, idle, next(iter(places.values())).ledger)
    return strokes, samples


def _sample_all(servers: dict[str, Server]) -> dict[tuple[str, str, int], dict[str, float]]:
    """What arbiters and fronts hold now."""
    samples = {}
    for server in servers.values():
        for role, pids in (("arbiter", [server.arbiter_pid]), ("front", server.front_pids())):
            for pid in pids:
                held = sample(pid)
                if held is not None:
                    samples[server.name, role, pid] = held
    return samples


async def _check_idle(
    servers: dict[str, Server], before: dict[tuple[str, str, int], dict[str, float]], ledger: Ledger
) -> None:
    """The clients have gone: so must have their connections, in what lived through the whole run."""
    deadline = time.monotonic() + IDLE_WITHIN_S
    while True:
        now = _sample_all(servers)
        left = {key: held["sockets"] - before[key]["sockets"] for key, held in now.items() if key in before}
        if all(more <= 0 for more in left.values()):
            return
        if time.monotonic() > deadline:
            text = ", ".join(f"{more:g} of the {role} of {name}" for (name, role, _), more in left.items() if more > 0)
            ledger.violations.add("sockets are left", text)
            return
        await asyncio.sleep(0.1)


async def _strike_all(
    server: Server, place: Place, planned: list[Stroke], until: float, done: list[dict[str, Any]], tell: Tell
) -> None:
    """One fault after the other; the next one waits until the server has recovered."""
    first = place.clock()
    for stroke in planned:
        await asyncio.sleep(max(0.0, first + stroke.at_s - place.clock()))
        if time.monotonic() > until:
            return
        fault = FAULTS[stroke.fault]
        began = place.clock()
        harms = server.engine in fault.harms
        window = place.ledger.begin(server.name, stroke.fault, began, harms=harms, cuts=fault.cuts)
        try:
            gone = await fault.strike(Scene(server, place, random.Random(stroke.seed)))
        except Exception as error:
            place.ledger.violations.add("a fault of the program itself", f"{stroke.fault} on {server.name}: {error!r}")
            gone = frozenset()
        struck = place.clock()
        recovered = await server.recovered(gone, LONGEST_RECOVERY_S)
        window.ended = place.clock()
        recovery_s = window.ended - struck
        if not recovered:
            detail = f"{server.name} after {stroke.fault}, {recovery_s:.1f} s, scorers {server.scorer_pids()}"
            place.ledger.violations.add("no recovery", detail)
        tell(
            f"{began:8.1f} s  {server.name:14} {stroke.fault:26} {struck - began:5.1f} s, recovered in {recovery_s:5.2f} s"
        )
        done.append(
            {
                "at_s": round(began, 3),
                "planned_at_s": stroke.at_s,
                "server": server.name,
                "fault": stroke.fault,
                "seed": stroke.seed,
                "lasted_s": round(struck - began, 3),
                "recovery_s": round(recovery_s, 3) if recovered else None,
            }
        )


async def _stop(servers: dict[str, Server], ledger: Ledger) -> None:
    for server in servers.values():
        wrong = await server.stop()
        if wrong:
            ledger.violations.add("a bad end", f"{server.name}: {wrong}")


async def _keep_sampling(servers: dict[str, Server], samples: Samples, every_s: float) -> None:
    while True:
        for key, held in _sample_all(servers).items():
            samples.setdefault(key, []).append(held)
        await asyncio.sleep(every_s)


def _check_growth(samples: Samples, ledger: Ledger) -> list[dict[str, Any]]:
    """Of each role of each server, the process that lived longest."""
    oldest: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (server, role, _), series in samples.items():
        if len(series) > len(oldest.get((server, role), ())):
            oldest[server, role] = series
    found = []
    for (server, role), series in sorted(oldest.items()):
        for what, limit in LIMITS.items():
            grown = growth([held[what] for held in series])
            if grown is None:
                continue
            within = limit.allows(grown.before, grown.after)
            if not within:
                text = f"{what} of the {role} of {server}: {grown.before:g}, then {grown.after:g}"
                ledger.violations.add("growth", text)
            found.append(
                {
                    "server": server,
                    "role": role,
                    "what": what,
                    "samples": len(series),
                    "before": grown.before,
                    "after": grown.after,
                    "within": within,
                }
            )
    return found


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
