"""The real server, started for one measurement: `scoring-runtime serve` on a free port of this machine, and its end."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import settings as table

_START = """
import sys
from scoring_runtime import cli
from scoring_runtime.scorer.process import die_with_parent
die_with_parent(int(sys.argv[1]))
sys.exit(cli.main(sys.argv[2:]))
"""
"""The command, but that the server dies with us. In the server itself: a preexec_fn would run what is registered for forks
in this process, too, where an interrupt that comes in that moment is lost."""

END_S = 5.0
"""How long a server may take to end by itself."""
_POLL_S = 0.02

APART = (
    *("entry_script", "host", "port", "health_port", "api_keys_file", "tls_cert", "tls_key", "tls_client_ca"),
    *("appinsights_connection_string", "appinsights_log_response", "appinsights_log_model_data", "log_level"),
    *("drain_grace_s", "debug_port"),
)
"""Settings that the servers which are measured do not share with the one to come: who may reach it, and whom it tells."""


class ServerEndedError(Exception):
    """The server did not get ready, or ended; the text says why."""


class Server:
    """One server, as a context: it is ready inside, and gone after."""

    def __init__(self, target: Path, settings: Mapping[str, Any], folder: Path, ready_by: float) -> None:
        """`ready_by`: by the monotonic clock. `folder`: for its log."""
        self.port = _free_port()
        self._log_path = folder / "server.log"
        self._ready_by = ready_by
        self._arguments = command(target, settings, self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is ours to act on
            )
        try:
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of the answer to one request; ServerEndedError when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=max(0.1, timeout_s))
        try:
            connection.request("POST", "/score", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            raise ServerEndedError(f"a single request was not answered within {timeout_s:.1f} s") from None
        except (OSError, http.client.HTTPException):
            raise ServerEndedError(self.last_words() or "the server closed the connection") from None
        finally:
            connection.close()

    def last_words(self) -> str:
        """What it said of its end."""
        lines = self._log_path.read_text("utf-8", "backslashreplace").strip().splitlines()
        errors = [line.partition("error: ")[2] for line in lines if line.startswith("scoring-runtime: error: ")]
        return (errors or lines or [""])[-1]

    def _wait_ready(self) -> None:
        assert self._process is not None
        while self._process.poll() is None:
            if time.monotonic() > self._ready_by:
                raise ServerEndedError("it was not ready in the time there was for it")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    connection.close()
                    return
            connection.close()
            time.sleep(_POLL_S)
        raise ServerEndedError(self.last_words() or f"it exited with code {self._process.returncode}")

    def _end(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # its scorers die with it
            self._process.wait()


def command(target: Path, settings: Mapping[str, Any], port: int) -> Sequence[str]:
    """The command line of a server with these settings, but for those that are APART."""
    flags = [part for name, value in shared(settings).items() for part in (table.flag(name), _text(value))]
    own = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--drain-grace-s", "0")
    return (sys.executable, "-I", "-c", _START, str(os.getpid()), "serve", str(target), *flags, *own)


def shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `settings` that hold in the server to come, too."""
    return {name: value for name, value in settings.items() if name not in APART and value not in (None, "")}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
