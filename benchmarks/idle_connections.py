"""How much memory does an open connection cost the front, before its first request and after one?

Each repeat starts a server of its own, opens connections step by step, and reads the resident memory of the front process
(the only one that knows of connections) before, while they are idle, and after each has had one answer.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import resource
import selectors
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
BODY = b'{"data": [[5.1,3.5,1.4,0.2]]}'
REQUEST = (
    b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: idle\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
PER_SOURCE = 5000
"""Connections from one address, so that its ports suffice: 127.0.0.1, 127.0.0.2, ..."""
LIMIT_S = 120.0


def main() -> int:
    """Measure, print, and keep."""
    arguments = parse_arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < max(arguments.connections) + 200:
        print(f"This process may open {hard} files: too few. Raise `ulimit -Hn`.", file=sys.stderr)
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    runs = []
    for repeat in range(1, arguments.repeats + 1):
        for count in arguments.connections:
            run = {"repeat": repeat, **measure(arguments.command, count)}
            runs.append(run)
            print(
                f"{repeat}  {count:>6} connections: {run['idle_bytes_each']:>6} bytes each before a request, "
                f"{run['used_bytes_each']:>6} after one; front {run['rss_used_bytes'] / 1e6:.1f} MB",
                flush=True,
            )
    for count in arguments.connections:
        of_count = [run for run in runs if run["connections"] == count]
        medians = {
            key: statistics.median(run[key] for run in of_count) for key in ("idle_bytes_each", "used_bytes_each")
        }
        print(f"median  {count:>6} connections: {medians}")
    if arguments.json:
        document = {
            "benchmark": "idle_connections",
            "started_at": started_at,
            "settings": {
                "repeats": arguments.repeats,
                "connections": arguments.connections,
                "command": arguments.command,
            },
            "machine": describe_machine(),
            "runs": runs,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[1000, 10_000], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run in it")
    own = Path(sys.executable).parent / "scoring-runtime"
    parser.add_argument(
        "--command",
        default=shlex.join([str(own), "serve", str(HERE / "models" / "iris.onnx")])
        + " --max-connections 20000 --port {port}",
        help="the server; {port} stands for a free port",
    )
    return parser.parse_args()


def measure(command: str, count: int) -> dict[str, int]:
    """One server, `count` connections."""
    with serving(command) as (front, port), contextlib.ExitStack() as opened:
        warm = opened.enter_context(socket.create_connection(("127.0.0.1", port), 60))
        for _ in range(200):
            exchange([warm])
        empty = front.memory_info().rss
        connections = [
            opened.enter_context(
                socket.create_connection(("127.0.0.1", port), 60, (f"127.0.0.{1 + number // PER_SOURCE}", 0))
            )
            for number in range(count)
        ]
        exchange([warm])  # the front has seen them all: it takes connections in their order
        idle = settled_rss(front)
        for begin in range(0, count, 100):
            exchange(connections[begin : begin + 100])
        used = settled_rss(front)
    return {
        "connections": count,
        "rss_empty_bytes": empty,
        "rss_idle_bytes": idle,
        "rss_used_bytes": used,
        "idle_bytes_each": (idle - empty) // count,
        "used_bytes_each": (used - empty) // count,
    }


def exchange(connections: list[socket.socket]) -> None:
    """One request on each, and its answer."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.sendall(REQUEST)
            selector.register(connection, selectors.EVENT_READ)
        waiting = len(connections)
        while waiting:
            ready = selector.select(60)
            if not ready:
                raise TimeoutError("no answer within 60 s")
            for key, _ in ready:
                answer = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not answer.startswith(b"HTTP/1.1 200 "):
                    raise RuntimeError(f"not a good answer: {answer[:200]!r}")
                selector.unregister(key.fileobj)
                waiting -= 1


def settled_rss(front: psutil.Process) -> int:
    """Resident memory once it has stopped to change."""
    before = 0
    deadline = time.monotonic() + 10
    while (now := front.memory_info().rss) != before and time.monotonic() < deadline:
        before = now
        time.sleep(0.5)
    return int(now)


@contextlib.contextmanager
def serving(command: str) -> Iterator[tuple[psutil.Process, int]]:
    """A server that is ready: its front process and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(shlex.split(command.format(port=port)), stdout=log, stderr=log)
        try:
            wait_until_ready(process, port)
            (front,) = psutil.Process(process.pid).children()
            yield front, port
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Until /readyz is 200."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n")
            if connection.recv(100).startswith(b"HTTP/1.1 200 "):
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not become ready")


def describe_machine() -> dict[str, object]:
    """Where the numbers come from."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("gunicorn", "httptools", "uvloop")},
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
    }


def git(*arguments: str) -> str | None:
    """What git says, if it can."""
    ended = subprocess.run(["git", "-C", HERE, *arguments], capture_output=True, text=True, check=False)
    return ended.stdout.strip() if ended.returncode == 0 else None


if __name__ == "__main__":
    raise SystemExit(main())
