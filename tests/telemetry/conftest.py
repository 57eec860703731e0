"""An ingestion endpoint of Application Insights on this machine, and servers that tell it things."""

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY = "01234567-89ab-cdef-0123-456789abcdef"
WAIT_S = 60.0

_COMMAND = Path(sys.executable).with_name("scoring-runtime")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


class Ingestion:
    """What was sent to the endpoint, item by item."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.calls = 0
        ingestion = self

        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                try:
                    items = json.loads(data)
                except ValueError:  # one document a line
                    items = [json.loads(line) for line in data.splitlines()]
                ingestion.items += items
                ingestion.calls += 1
                answer = {"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def connection_string(self) -> str:
        address = f"http://127.0.0.1:{self._server.server_port}/"
        return f"InstrumentationKey={KEY};IngestionEndpoint={address};LiveEndpoint={address}"

    def data(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of a kind: RequestData, MessageData, ExceptionData."""
        return [item["data"]["baseData"] for item in self.items if item["data"]["baseType"] == kind]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")
def open_ingestion() -> Callable[[], AbstractContextManager[Ingestion]]:
    @contextmanager
    def open_one() -> Iterator[Ingestion]:
        ingestion = Ingestion()
        try:
            yield ingestion
        finally:
            ingestion.close()

    return open_one


@pytest.fixture
def ingestion(open_ingestion: Callable[[], AbstractContextManager[Ingestion]]) -> Iterator[Ingestion]:
    with open_ingestion() as opened:
        yield opened


class Server:
    """A server of a score.py."""

    def __init__(self, folder: Path, script: str, environ: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (folder / "score.py").write_text(script, "utf-8")
        self._log_path = folder / "server.log"
        command = [str(_COMMAND)] if _COMMAND.exists() else [sys.executable, "-I", "-m", "scoring_runtime"]
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "score.py", "--port", str(self.port), "--drain-grace-s", "0"],
                cwd=folder,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ} | environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log_path.read_text("utf-8", "backslashreplace")

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            with suppress(ConnectionError):
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        pytest.fail(f"not ready: {self.log}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0, self.log


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Server]]:
    """`with serve(script, NAME="value") as server:` in a plain environment."""

    @contextmanager
    def start(script: str, **environ: str) -> Iterator[Server]:
        server = Server(tmp_path_factory.mktemp("server"), script, environ)
        try:
            yield server
        finally:
            with suppress(ProcessLookupError):
                server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.process.pid, signal.SIGKILL)
                server.process.wait()

    return start
