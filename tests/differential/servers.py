"""Starts the incumbent and ours with the same script, in a folder of its own, and stops them again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import environments, wire

SCRIPTS = Path(__file__).parent / "scripts"
START_S = 90.0

INCUMBENT = "incumbent"
"""The name of the server that ours is compared with; ours is named by the environment that the script runs in."""


@dataclass(frozen=True)
class Setup:
    """A script, the files beside it and the environment variables that a server is started with."""

    script: str
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """The packages that the script imports."""


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log_path: Path) -> None:
        self.process = process
        self.port = port
        self._log_path = log_path

    @property
    def log(self) -> str:
        return self._log_path.read_text("utf-8", "replace")

    def ask(self, request: wire.Request) -> wire.Answer:
        try:
            return wire.exchange(self.port, request)
        except TimeoutError:
            raise AssertionError(f"no answer to {request.data[:200]!r}; the log:\n{self.log}") from None


@contextmanager
def running(setup: Setup, name: str, folder: Path) -> Iterator[Server]:
    """A server that is ready: the incumbent, or ours with the script in the environment `name`."""
    process, port, log_path = start(setup, name, folder)
    server = Server(process, port, log_path)
    try:
        _wait_until_ready(server, b"/" if name == INCUMBENT else b"/readyz")
        yield server
    finally:
        stop(process, signal.SIGKILL if name == INCUMBENT else signal.SIGTERM)


def start(
    setup: Setup, name: str, folder: Path, arguments: tuple[str, ...] = ("--entry_script", "score.py")
) -> tuple["subprocess.Popen[bytes]", int, Path]:
    """A server that is starting: its process, its port, its log."""
    work = folder / "work"
    work.mkdir(parents=True)
    if setup.script:
        shutil.copyfile(SCRIPTS / setup.script, work / "score.py")
    for path, text in setup.files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text, "utf-8")
    port = _free_port()
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TZ") if key in os.environ}
    # gunicorn keeps a socket in the home folder: two servers of one user fight for it.
    environ = {**kept, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), **setup.environ}
    options = [*arguments, "--port", str(port)]
    if name == INCUMBENT:
        command = [str(environments.INCUMBENT / "bin" / "azmlinfsrv"), *options]
    else:
        environ.update(SCORING_PYTHON=environments.pythons()[name], SCORING_DRAIN_GRACE_S="0")
        command = [sys.executable, "-I", "-m", "scoring_runtime.azmlinfsrv", *options]
    log_path = folder / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=work,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, port, log_path


def stop(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    """End a server and everything that it started in its session."""
    if how is not signal.SIGKILL:
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def _wait_until_ready(server: Server, path: bytes) -> None:
    probe = b"GET %b HTTP/1.1\r\nHost: score.example\r\n\r\n" % path
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"it ended with {server.process.returncode}:\n{server.log}"
        with suppress(OSError):
            if wire.exchange(server.port, wire.Request(probe)).status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready after {START_S:g} s:\n{server.log}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
