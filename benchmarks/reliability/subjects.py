"""The servers that are broken, each with two workers, and how to find their processes."""

import contextlib
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
TARGETS = Path(__file__).resolve().parent / "targets"
WORKERS = 2
TIMEOUT_S = 1
HANGS_AFTER_S = 0.5
READY_WITHIN_S = 60.0
ENDED_WITHIN_S = 15.0

_OURS = [str(Path(sys.executable).with_name("scoring-runtime")), "serve"]
_FLAGS = ["--port", "{port}", "--scorers", str(WORKERS), "--scoring-timeout-ms", str(1000 * TIMEOUT_S)]
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Subject:
    """How one server is started. A time-out of one second for run() is set where there is a setting for it."""

    command: list[str]
    scripted: bool = True
    environ: dict[str, str] = field(default_factory=dict)
    answers_in_workers: bool = False
    """HTTP is spoken by the workers themselves."""

    venv: Path = field(default_factory=lambda: Path(sys.prefix))


SUBJECTS = {
    "scoring-runtime, script": Subject([*_OURS, str(TARGETS / "score.py"), *_FLAGS]),
    "scoring-runtime, ONNX": Subject([*_OURS, str(TARGETS / "numbers.onnx"), *_FLAGS], scripted=False),
    "azmlinfsrv": Subject(
        [str(ROOT / ".venv-incumbent/bin/azmlinfsrv"), "--entry_script", str(TARGETS / "score.py"), "--port", "{port}"],
        environ={
            "WORKER_COUNT": str(WORKERS),
            "SCORING_TIMEOUT_MS": str(1000 * TIMEOUT_S),
            "WORKER_TIMEOUT": str(2 * TIMEOUT_S),
            "AML_APP_ROOT": str(TARGETS),
        },
        answers_in_workers=True,
        venv=ROOT / ".venv-incumbent",
    ),
    "LitServe": Subject(
        [str(ROOT / ".venv-litserve/bin/python"), str(TARGETS / "litserve_app.py"), "{port}"],
        venv=ROOT / ".venv-litserve",
    ),
}


class SubjectError(Exception):
    """A server cannot be measured; the message says what to do."""


class Running:
    """A server that runs, with its processes."""

    def __init__(self, subject: Subject, process: "psutil.Popen", port: int, folder: Path) -> None:
        self.subject = subject
        self.process = process
        self.port = port
        self.folder = folder

    def workers(self) -> list[int]:
        """Those that have loaded and can work, oldest first."""
        if not self.subject.scripted:
            return self._live_scorers()
        noted = self.folder / "workers"
        pids = [int(line) for line in noted.read_text().split()] if noted.exists() else []
        return [pid for pid in pids if _can_work(pid) and not self._hangs(pid)]

    def _hangs(self, pid: int) -> bool:
        """A run of some milliseconds has taken far too long."""
        noted = self.folder / f"busy-{pid}"
        since = float(noted.read_text() or 0) if noted.exists() else 0.0
        return since > 0 and time.monotonic() - since > HANGS_AFTER_S

    def _live_scorers(self) -> list[int]:
        """Of ours, as its own /metrics counts them: a model leaves no note when it has loaded."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/metrics", headers={"Connection": "close"})
            found = re.search(rb"^scoring_scorers_live (\d+)", connection.getresponse().read(), re.MULTILINE)
        except (OSError, http.client.HTTPException):
            return []
        finally:
            connection.close()
        pids = [pid for pid in self._children_of_children() if _can_work(pid)]
        return pids[: int(found[1])] if found else []

    def _children_of_children(self) -> list[int]:
        with contextlib.suppress(psutil.Error):
            return [grandchild.pid for child in self.process.children() for grandchild in child.children()]
        return []

    def answerer(self) -> int:
        """The process that speaks HTTP: the one, no worker, that holds the port and is not the first."""
        workers = self.workers()
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                held = {connection.laddr.port for connection in child.net_connections()}
                if child.pid not in workers and self.port in held:
                    return child.pid
        raise SubjectError("no process holds the port")

    def noted(self) -> list[int]:
        """The numbers of the requests that began to run."""
        path = self.folder / "begun"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@contextlib.contextmanager
def started(subject: Subject) -> Iterator[Running]:
    """Start a server and wait until both workers have loaded; at the end leave nothing of it."""
    port = _free_port()
    command = [word.replace("{port}", str(port)) for word in subject.command]
    if shutil.which(command[0]) is None:
        raise SubjectError(f"there is no {command[0]}: make bench-reliability")
    with tempfile.TemporaryDirectory(prefix="reliability-") as name, tempfile.TemporaryFile() as log:
        environ = {each: os.environ[each] for each in _INHERITED if each in os.environ}
        environ |= subject.environ | {"RELIABILITY_FOLDER": name, "PYTHONDONTWRITEBYTECODE": "1"}
        process = psutil.Popen(
            command,
            cwd=name,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running = Running(subject, process, port, Path(name))
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while len(running.workers()) < WORKERS or not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SubjectError(f"{command} does not start:\n{log.read().decode(errors='replace')[-4000:]}")
                time.sleep(0.05)
            yield running
        finally:
            _end(process, name)


def _end(process: "psutil.Popen", mark: str) -> None:
    """Kill what is left, also what has lost its parent: it is known by its folder."""
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if each.environ().get("RELIABILITY_FOLDER") == mark:
                each.send_signal(signal.SIGKILL)
    process.wait(ENDED_WITHIN_S)


def _can_work(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED, psutil.STATUS_DEAD)
    return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _free_port() -> int:
    """Below those that the system gives to outgoing connections: whoever waits for it must not connect to itself."""
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
