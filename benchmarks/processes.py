"""Servers as trees of processes: start one on its cores, read its clocks and its memory, end all of it."""

import contextlib
import ctypes
import dataclasses
import functools
import itertools
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from benchmarks.machine import BenchmarkError

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
READY_POLL_S = 0.01
_PR_SET_CHILD_SUBREAPER = 36


_PORTS = range(28000, 29000)  # below those that Linux hands out, from 32768 on
_NEXT_PORT = itertools.cycle(_PORTS)
_MARK = "BENCHMARK_SERVER"


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs. Its processes are all that the root has started, however indirectly."""

    name: str
    command: list[str]
    root: psutil.Popen
    mark: str
    """In the environment of each of its processes."""

    begun: float
    """When it was started, on time.monotonic()."""

    def processes(self) -> list[psutil.Process]:
        """The root, its descendants, and orphans of its that this process has adopted."""
        members: dict[int, psutil.Process] = {self.root.pid: self.root}
        for child in psutil.Process().children():
            if child.pid == self.root.pid or _carries(child.pid, f"{_MARK}={self.mark}"):
                members.setdefault(child.pid, child)
                members.update({below.pid: below for below in child.children(recursive=True)})
        return [member for member in members.values() if _lives(member)]

    def cpu_clocks_ns(self) -> dict[int, int]:
        """Return pid -> CPU time so far, for each of its processes."""
        return {member.pid: cpu_clock_ns(member.pid) for member in self.processes()}

    def elapsed_s(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.begun

    def memory_bytes(self) -> int:
        """What its processes have for themselves, and their shares of what several have (PSS)."""
        return sum(int(member.memory_full_info().pss) for member in self.processes())

    def stop(self) -> None:
        """SIGTERM to the root; what is left after a while is killed."""
        members = self.processes()
        if self.root.poll() is None:
            self.root.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self.root.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
        members += [member for member in self.processes() if member not in members]
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs([self.root, *members], timeout=STOP_TIMEOUT_S)


@contextlib.contextmanager
def started(
    name: str,
    words: Sequence[str],
    cores: Sequence[int],
    is_ready: Callable[[], str | None],
    *,
    environment: Mapping[str, str] | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> Iterator[Server]:
    """Start a server on its cores and wait until it is ready; at the end stop it, with whatever it has started.

    `is_ready` returns None when the server answers as it should, else what it says instead. BenchmarkError, with the
    server's output, when it ends or is not ready in time.
    """
    if shutil.which(words[0]) is None:
        raise BenchmarkError(f"{name}: there is no {words[0]}")
    _adopt_orphans()
    mark = uuid.uuid4().hex
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores)), *words]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        begun = time.monotonic()
        process = psutil.Popen(
            pinned,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {}), _MARK: mark},
            cwd=folder,  # what a server leaves in its working directory goes with it
            start_new_session=True,
        )
        server = Server(name, list(words), process, mark, begun)
        try:
            _wait_until_ready(server, log, is_ready, begun + ready_timeout_s)
            yield server
        finally:
            server.stop()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that the kernel gives to no client in the time until a slow server opens them.

    Each is taken once in a thousand: connections of the server before may still linger on its own.
    """
    found: list[int] = []
    for _ in _PORTS:
        port = next(_NEXT_PORT)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            found.append(port)
        if len(found) == count:
            return found
    raise BenchmarkError(f"no free port between {_PORTS[0]} and {_PORTS[-1]}")


def _wait_until_ready(server: Server, log: IO[bytes], is_ready: Callable[[], str | None], deadline: float) -> None:
    while (answer := is_ready()) is not None:
        died = server.root.poll() is not None
        if died or time.monotonic() > deadline:
            what = f"ended with status {server.root.poll()}" if died else "was not ready in time"
            log.seek(0)
            output = log.read().decode(errors="replace")[-4000:]
            raise BenchmarkError(f"{server.name} {what}: {answer}\n{shlex.join(server.command)}\n{output}")
        time.sleep(READY_POLL_S)


@functools.cache
def _adopt_orphans() -> None:
    """From now on a process whose parent has ended becomes a child of this one.

    Some servers start processes through others that end at once. Without this they would belong to nobody: their CPU
    time would not be counted, and nobody would end them.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _carries(pid: int, variable: str) -> bool:
    try:
        return variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def cpu_clock_ns(pid: int) -> int:
    """Return the CPU time, user and system, that all threads of a process have used, those that ended included.

    This is the scheduler's own clock, exact to the nanosecond; the times in /proc/PID/stat come in steps of 10 ms.
    """
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise ProcessLookupError(error, os.strerror(error), str(pid))
    return time.clock_gettime_ns(clock.value)
