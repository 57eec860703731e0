"""Load on a server that runs: what the generators are told, and what they and the server's clocks said."""

import contextlib
import dataclasses
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.dialects import Message
from benchmarks.machine import Cores
from benchmarks.open_loop import quantile
from benchmarks.processes import Server
from benchmarks.scenarios import Load

HERE = Path(__file__).resolve().parent
ANSWER_TIMEOUT_S = 60
TARGET_MS = 1000
NOT_ASKED = "not asked: the load before had failed"
LEAST_SHARE_KEPT = 0.95
"""An open load that gets fewer of its answers than this within a second is more than the server stands."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One server under one load, once. Where `failure` says something, the numbers mean nothing."""

    server: str
    repeat: int
    load: str
    failure: str | None = None
    requests: int = 0
    cpu_ns: int = 0  # of all processes of the server together
    wall_ns: int = 0
    processes: int = 0
    memory_bytes: int = 0  # after the load
    requests_per_s: float = 0.0
    p50_us: float = 0.0
    p90_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    max_us: float = 0.0


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a load goes, and the cores of both sides."""

    port: int
    cores: Cores
    keeps_connections: bool


class GeneratorError(Exception):
    """The client itself failed; the message says how."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The requests of a scenario in a server's dialect, and the files that hold them."""

    messages: Sequence[Message]
    headers: Path
    bodies: Sequence[Path]


def prepare(messages: Sequence[Message], folder: Path) -> Prepared:
    folder.mkdir(exist_ok=True)
    headers = folder / "headers"
    headers.write_text("".join(f"{name}: {value}\n" for name, value in messages[0].headers.items()))
    bodies = []
    for number, message in enumerate(messages):
        bodies.append(folder / f"body-{number}")
        bodies[-1].write_bytes(message.body)
    return Prepared(messages, headers, bodies)


def ask(port: int, message: Message) -> tuple[int, bytes] | None:
    """POST one request. Return status and body of the answer, or None where there is none yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("POST", message.path, message.body, dict(message.headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def measure(
    server: Server,
    target: Target,
    repeat: int,
    load: Load,
    prepared: Mapping[str, Prepared],
    seconds: float,
) -> Run:
    """Load the server for so many seconds and take the difference of its CPU clocks."""
    try:
        before_ns = server.cpu_clocks_ns()
        begun_ns = time.monotonic_ns()
        seen = _KINDS[load.kind](target, load, prepared, seconds)
        wall_ns = time.monotonic_ns() - begun_ns
        after_ns = server.cpu_clocks_ns()
        memory_bytes = server.memory_bytes()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return Run(server.name, repeat, load.name, "a process of the server ended")
    except GeneratorError as error:
        return Run(server.name, repeat, load.name, str(error))
    failure = seen.pop("failure", None)
    if failure is None and before_ns.keys() != after_ns.keys():
        failure = "the server's processes changed"
    return Run(
        server.name,
        repeat,
        load.name,
        failure,
        cpu_ns=sum(after_ns.values()) - sum(before_ns.values()),
        wall_ns=wall_ns,
        processes=len(after_ns),
        memory_bytes=memory_bytes,
        **seen,
    )


def _closed(target: Target, load: Load, prepared: Mapping[str, Prepared], seconds: float) -> dict[str, Any]:
    command = wrk(target.port, load.connections, prepared[load.request], seconds)
    output = _output_of(["taskset", "--cpu-list", str(target.cores.client), *command], seconds)
    seen: dict[str, Any] = json.loads(output.partition("result ")[2])
    errors = {kind: count for kind, count in seen.pop("errors").items() if count}
    duration_s = seen.pop("duration_us") / 1e6
    if errors:
        seen["failure"] = "errors: " + ", ".join(f"{count} {kind}" for kind, count in errors.items())
    elif seen["requests"] == 0:
        seen["failure"] = "no request was answered"
    return {**seen, "requests_per_s": round(seen["requests"] / duration_s, 1)}


def wrk(port: int, connections: int, requests: Prepared, seconds: float) -> list[str]:
    """The command of a closed load."""
    words = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    url = f"http://127.0.0.1:{port}{requests.messages[0].path}"
    files = [str(requests.headers), *map(str, requests.bodies)]
    return [*words, "--timeout", f"{ANSWER_TIMEOUT_S}s", "--script", str(HERE / "load.lua"), url, "--", *files]


def _serial(target: Target, load: Load, prepared: Mapping[str, Prepared], seconds: float) -> dict[str, Any]:
    """One after the other, the last one to its end: wrk would break off, and a part of a second's work is much of it."""
    own_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {target.cores.client})
    try:
        took_s: list[float] = []
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            answer = ask(target.port, prepared[load.request].messages[0])
            if answer is None or answer[0] != 200:
                return {"requests": len(took_s), "failure": f"errors: {'lost' if answer is None else answer[0]}"}
            took_s.append(time.monotonic() - now)
        whole_s = time.monotonic() - begun
    finally:
        os.sched_setaffinity(0, own_cores)
    quantiles = {_key(name): round(quantile(took_s, share) * 1e6, 1) for name, share in _SHARES.items()}
    return {"requests": len(took_s), "requests_per_s": round(len(took_s) / whole_s, 3), **quantiles}


def _open(
    target: Target, load: Load, prepared: Mapping[str, Prepared], seconds: float, *, keeps_up: bool = True
) -> dict[str, Any]:
    """A server that does not keep up has failed, as what it says then depends on how long the load lasts."""
    requests = prepared[load.request]
    command = [sys.executable, "-P", str(HERE / "open_loop.py"), "--port", str(target.port), "--rate", str(load.rate)]
    command += ["--seconds", str(seconds), "--connections", str(load.connections), "--target-ms", str(TARGET_MS)]
    command += ["--path", requests.messages[0].path, "--headers", str(requests.headers)]
    command += [] if target.keeps_connections else ["--fresh-connections"]
    command += [word for body in requests.bodies for word in ("--body", str(body))]
    seen = json.loads(_output_of(["taskset", "--cpu-list", str(target.cores.client), *command], seconds))
    statuses = seen[requests.messages[0].path]["status"]
    good = statuses.get("200", {"count": 0})
    bad = {status: entry["count"] for status, entry in statuses.items() if status != "200"}
    result: dict[str, Any] = {"requests": good["count"], "requests_per_s": round(good["count"] / seconds, 1)}
    if bad:
        named = ", ".join(f"{count} {'lost' if status == '0' else status}" for status, count in bad.items())
        return {**result, "failure": f"errors: {named}"}
    if seen["client_busy"] > 0.9:
        return {**result, "failure": f"the generator was busy {seen['client_busy']:.0%} of the time"}
    in_time = seen[requests.messages[0].path]["good_per_s"] * seconds
    if not good["count"] or (keeps_up and in_time < LEAST_SHARE_KEPT * good["count"]):
        return {**result, "failure": f"more than it stands: not {LEAST_SHARE_KEPT:.0%} answered within {TARGET_MS} ms"}
    return {**result, **{_key(name): good[f"{name}_ms"] * 1000 for name in _SHARES}}


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def _key(share: str) -> str:
    """The field of a run that has the times below which so large a share lies."""
    return f"{share.replace('.', '')}_us"


def _beside(target: Target, load: Load, prepared: Mapping[str, Prepared], seconds: float) -> dict[str, Any]:
    with _posting(target, prepared[load.beside], seconds) as large:
        seen = _open(target, load, prepared, seconds, keeps_up=False)
        if large.poll() is not None:
            raise GeneratorError(f"the large requests ended early: {large.stderr.read() if large.stderr else ''}")
    return seen


@contextlib.contextmanager
def _posting(target: Target, requests: Prepared, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """One connection that posts all the time. It gives way to the other generator, which shares its core."""
    command = [
        "taskset",
        "--cpu-list",
        str(target.cores.client),
        "nice",
        "-n",
        "19",
        *wrk(target.port, 1, requests, seconds + 60),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as large:
        try:
            time.sleep(1)
            yield large
        finally:
            large.kill()


def _output_of(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + ANSWER_TIMEOUT_S + 30,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise GeneratorError(f"the client failed: {(error.stderr or error.stdout).strip()[-300:]}") from None
    except subprocess.TimeoutExpired:
        raise GeneratorError("the client did not end") from None
    return done.stdout


_KINDS = {"closed": _closed, "serial": _serial, "open": _open, "beside": _beside}
