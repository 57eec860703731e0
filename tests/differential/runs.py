"""Runs batteries and starts: each once per server, several at a time, and keeps what came of it."""

import signal
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from . import environments, logs, servers
from .cases import BATTERIES
from .starts import STARTS
from .wire import compared

AT_A_TIME = 3
"""Starting a server is work for one core, answering these requests is waiting."""

LOG_IS_WRITTEN_S = 0.5

READY = "ready for serving traffic"

OWN = "user-own"
"""The environment of the incumbent itself."""

Facts = dict[str, dict[str, object]]
"""What was answered to each case."""


class Runs:
    """The answers to every battery by every server; run when they are first asked for, or ahead of it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="differential-")
        self._executor = ThreadPoolExecutor(AT_A_TIME)
        self._answers: dict[tuple[str, str], Future[Facts]] = {}
        self._lock = threading.Lock()

    def prepare(self, battery: str, server: str) -> "Future[Facts]":
        """The answers, some time later."""
        with self._lock:
            key = battery, server
            if key not in self._answers:
                run = self._begin if battery in STARTS else self._run
                self._answers[key] = self._executor.submit(run, battery, server)
            return self._answers[key]

    def prepare_all(self, battery: str) -> None:
        """Begin with everything that one battery takes."""
        for server in (servers.INCUMBENT, *servers_of(battery)):
            self.prepare(battery, server)

    def answers(self, battery: str, server: str) -> Facts:
        return self.prepare(battery, server).result()

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _run(self, battery: str, name: str) -> Facts:
        chosen = BATTERIES[battery]
        folder = Path(self._folder.name, f"{battery} {name}".replace(" ", "_"))
        with servers.running(chosen.setup, name, folder) as server:
            facts = {case: compared(server.ask(request), request) for case, request in chosen.requests.items()}
            if chosen.compares_log:
                time.sleep(LOG_IS_WRITTEN_S)
                facts["log"] = logs.facts(server.log, {"PORT": str(server.port), "FOLDER": str(folder)})
        return facts

    def _begin(self, start: str, name: str) -> Facts:
        """How a start ends: the exit code, or that the server runs; and which texts are in the output."""
        chosen = STARTS[start]
        folder = Path(self._folder.name, f"start {start} {name}".replace(" ", "_"))
        process, _, log_path = servers.start(chosen.setup, name, folder, chosen.arguments)
        try:
            deadline = time.monotonic() + servers.START_S
            while process.poll() is None and READY not in log_path.read_text("utf-8", "replace"):
                assert time.monotonic() < deadline, "neither ready nor ended"
                time.sleep(0.05)
            outcome: dict[str, object] = {"exit code": "runs" if process.poll() is None else process.returncode}
        finally:
            servers.stop(process, signal.SIGKILL if name == servers.INCUMBENT else signal.SIGTERM)
        output = log_path.read_text("utf-8", "replace")
        return {start: outcome | {f"says {text}": text in output for text in chosen.texts}}


def servers_of(battery: str) -> list[str]:
    """The environments in which ours can run a battery: those that hold what its script imports."""
    if battery in STARTS:
        return [OWN]
    needs = BATTERIES[battery].setup.needs
    return [name for name in environments.pythons() if not (needs and name.startswith("bare-"))]
