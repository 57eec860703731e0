"""What becomes of requests when a server is broken under load? The same faults for ours and for others.

One client sends 100 requests a second, each with a number that its answer must repeat, on a connection of its own. After
1.5 s the fault strikes, and the load goes on. Every fault gets a server that was freshly started.
"""

import argparse
import asyncio
import datetime as dt
import importlib.metadata
import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..machine import describe as describe_machine
from .faults import FAULTS, TOLD_AFTER_S, Fault
from .load import ANSWER_WITHIN_S, Client, Reply, recovery_s
from .subjects import ROOT, SUBJECTS, WORKERS, Running, SubjectError, started

RATE = 100
BEFORE_S = 1.5
AFTER_S = 5.0
SETTLED_S = 0.5
"""What was sent this long before the fault has its answer, if the server can hold the load."""
WARM_UP = 50
LOOK_EVERY_S = 0.05


@dataclass
class Run:
    """One fault, one server, once. Without a `failure` everything was measured."""

    server: str
    fault: str
    repeat: int
    failure: str | None = None
    sent: int = 0
    right: int = 0
    error: int = 0
    lost: int = 0
    lost_before_start: int | None = None  # None: it is not known what had begun
    wrong: int = 0
    run_twice: int | None = None
    guilty: list[str] = field(default_factory=list)  # what the request that asked for harm was told
    details: dict[str, int] = field(default_factory=dict)  # of errors, lost and wrong ones
    recovery_s: float | None = None  # None: not within AFTER_S, or the server was told to end
    full_strength_s: float | None = None  # as many workers as before, ready
    exit_code: int | None = None
    load_average: float = (
        0.0  # of the machine, before: above the number of cores others were at work, and times are too long
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        "make bench-reliability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1, help="runs of each fault (default: %(default)s)")
    parser.add_argument("--server", action="append", choices=SUBJECTS, help="only this one; repeatable")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run, the settings and the machine here")
    arguments = parser.parse_args()
    began_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    runs = []
    for repeat in range(1, arguments.repeats + 1):
        for fault in arguments.fault or FAULTS:
            for server in arguments.server or SUBJECTS:
                if applies(server, FAULTS[fault]):
                    runs.append(measure(server, fault, repeat))
                    print(text(runs[-1]), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report(runs, began_at, arguments), indent=1) + "\n", "utf-8")
    return 1 if any(run.failure for run in runs) else 0


def applies(server: str, fault: Fault) -> bool:
    """A model has no code that could do harm; where workers speak HTTP themselves, one of them was killed already."""
    subject = SUBJECTS[server]
    return not (fault.scripts_only and not subject.scripted) and not (
        fault.needs_answerer and subject.answers_in_workers
    )


def measure(server: str, fault: str, repeat: int) -> Run:
    """One fault on a fresh server."""
    try:
        with started(SUBJECTS[server]) as running:
            run = Run(server, fault, repeat, load_average=round(os.getloadavg()[0], 1))
            return asyncio.run(_measure(running, run, FAULTS[fault]))
    except SubjectError as error:
        return Run(server, fault, repeat, failure=str(error))


async def _measure(running: Running, run: Run, fault: Fault) -> Run:
    client = Client(running.port, running.subject.scripted)
    await _warm_up(client)
    stop = asyncio.Event()
    load = asyncio.create_task(client.send_steadily(RATE, stop))
    await asyncio.sleep(BEFORE_S)
    struck_at = time.monotonic()
    steady = [reply.outcome for reply in client.book.replies if reply.sent_at < struck_at - SETTLED_S]
    await fault.strike(running, client)
    strength = asyncio.create_task(_watch_strength(running, struck_at)) if not fault.ends_server else None
    await asyncio.sleep(TOLD_AFTER_S if run.fault == "terminate" else AFTER_S)
    stop.set()
    until = time.monotonic()
    await load
    await client.settle()
    if steady.count("right") < 0.9 * (BEFORE_S - SETTLED_S) * RATE:
        run.failure = f"{steady.count('right')} right answers before the fault: it cannot hold the load"
    _count(run, client.book.replies, running)
    run.guilty = [f"{reply.outcome} {reply.detail}".strip() for reply in client.book.guilty]
    if strength is not None:
        strength.cancel()
        run.full_strength_s = await strength
        run.recovery_s = recovery_s(client.book.replies, struck_at, until)
    if fault.ends_server:
        run.exit_code = await asyncio.to_thread(_exit_code, running)
    return run


async def _warm_up(client: Client) -> None:
    for _ in range(WARM_UP):
        client.send()
        await client.settle()
    client.book.replies.clear()


def _count(run: Run, replies: list[Reply], running: Running) -> None:
    outcomes = Counter(reply.outcome for reply in replies)
    run.sent = len(replies)
    run.right, run.error, run.lost, run.wrong = (outcomes[name] for name in ("right", "error", "lost", "wrong"))
    run.details = dict(Counter(f"{each.outcome}: {each.detail}" for each in replies if each.outcome != "right"))
    if running.subject.scripted:
        noted = Counter(running.noted())
        run.lost_before_start = sum(1 for each in replies if each.outcome == "lost" and each.number not in noted)
        run.run_twice = sum(1 for count in noted.values() if count > 1)


async def _watch_strength(running: Running, struck_at: float) -> float | None:
    """Seconds until all workers were there again, for good; None when they are not when this is cancelled."""
    back_at: float | None = 0.0
    try:
        while True:
            there = len(await asyncio.to_thread(running.workers))
            if there < WORKERS:
                back_at = None
            elif back_at is None:
                back_at = round(time.monotonic() - struck_at, 2)
            await asyncio.sleep(LOOK_EVERY_S)
    except asyncio.CancelledError:
        return back_at


def _exit_code(running: Running) -> int | None:
    try:
        return int(running.process.wait(15))
    except Exception:  # noqa: BLE001 - psutil's or subprocess's own time-out
        return None


def text(run: Run) -> str:
    """One line for a person who waits."""
    if run.failure:
        return f"{run.fault:16} {run.server:24} failed: {run.failure}"
    return (
        f"{run.fault:16} {run.server:24} sent {run.sent:5} right {run.right:5} error {run.error:3} lost {run.lost:3} "
        f"(before start: {run.lost_before_start}) wrong {run.wrong} twice {run.run_twice} recovery {run.recovery_s} "
        f"strength {run.full_strength_s} exit {run.exit_code} guilty {run.guilty}"
    )


def report(runs: list[Run], began_at: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, for results/."""
    return {
        "benchmark": "reliability",
        "started_at": began_at,
        "settings": {
            "repeats": arguments.repeats,
            "rate_per_s": RATE,
            "before_s": BEFORE_S,
            "after_s": AFTER_S,
            "answer_within_s": ANSWER_WITHIN_S,
            "commands": {
                name: {
                    "command": " ".join(subject.command).replace(f"{ROOT}/", ""),
                    "environ": {key: value.replace(f"{ROOT}/", "") for key, value in subject.environ.items()},
                    "scripted": subject.scripted,
                }
                for name, subject in SUBJECTS.items()
            },
            "faults": {
                name: {"text": fault.text, "ends_server": fault.ends_server, "note": fault.note}
                for name, fault in FAULTS.items()
            },
        },
        "machine": describe_machine(),
        "versions": {
            "azureml-inference-server-http": _version(SUBJECTS["azmlinfsrv"].venv, "azureml-inference-server-http"),
            "litserve": _version(SUBJECTS["LitServe"].venv, "litserve"),
        },
        "runs": [asdict(run) for run in runs],
    }


def _version(venv: Path, package: str) -> str | None:
    paths = [str(path) for path in venv.glob("lib/python*/site-packages")]
    found = list(importlib.metadata.distributions(name=package, path=paths))
    return found[0].version if found else None


if __name__ == "__main__":
    sys.exit(main())
