"""Servers as people start them: the real command line, a real port, and nothing left behind."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

_INSTALLED = Path(sys.executable).with_name("scoring-runtime")
COMMAND = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-I", "-m", "scoring_runtime"]

WAIT_S = 60.0
"""Long enough for a busy machine; nobody waits this long unless something is wrong."""

_MARK = "LC_LIVE_TEST_TREE"
"""LC_: a name that the server leaves in the sealed environment of its own interpreters, too."""
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def environment(mark: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """A plain environment, in which a whole tree of processes can be found again by its mark.

    What one test kept would be another one's start: no server uses the user's cache unless it is told to.
    """
    plain = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return plain | {"SCORING_CACHE_DIR": "off"} | (more or {}) | {_MARK: mark}


def processes(mark: str) -> list[psutil.Process]:
    """Every process alive that was started with the mark, whoever its parent is now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(condition: Callable[[], Any], what: str = "", timeout_s: float = WAIT_S) -> Any:
    """Wait until `condition` is true; what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what or condition}"
        time.sleep(0.005)
    return value


def pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environ: dict[str, str] | None,
        command: Sequence[str],
        port: int,
        output: int | None = None,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.port = port or pick_port()
        self.command = [*command, *arguments, "--port", str(self.port)]
        self.folder = folder
        self._log_path = folder / "server.log"
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=folder,
                env=environment(self.mark, {"SCORING_DRAIN_GRACE_S": "0.1"} | (environ or {})),
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a test can press Ctrl-C without hitting itself
            )

    @property
    def log(self) -> str:
        return self._log_path.read_text("utf-8", "backslashreplace")

    @property
    def quiet_log(self) -> str:
        """The log without its line for every request."""
        lines = self.log.splitlines(keepends=True)
        return "".join(line for line in lines if "gunicorn.access" not in line and " POST /score 200 " not in line)

    # Asking it

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, {"Connection": "close"} | (headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def score(self, body: Any) -> Answer:
        return self.ask("POST", "/score", body if isinstance(body, bytes) else json.dumps(body).encode())

    def status(self, path: str) -> int:
        """0 when nobody listens."""
        try:
            return self.get(path).status
        except (ConnectionError, http.client.HTTPException):
            return 0

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "the server has ended"
        return self.status("/readyz") == 200

    def wait_ready(self) -> None:
        until(self.is_ready, "/readyz is not 200")

    # Its processes

    @property
    def front(self) -> psutil.Process:
        """Child of the process that was started. Orphans of a script's are its children too."""
        master = psutil.Process(self.process.pid)
        fronts = []
        for child in master.children():
            with suppress(psutil.NoSuchProcess):  # it has ended, as an orphan does
                if child.cmdline() == master.cmdline():
                    fronts.append(child)
        (front,) = fronts
        return front

    @property
    def scorers(self) -> list[psutil.Process]:
        """Children of the front."""
        return self.front.children()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it as an orchestrator does, unless it has ended, and see that it ended well."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.wait(WAIT_S) == 0
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        until(lambda: not processes(self.mark), "processes of the server are left", 10.0)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self.port))

    def reap(self) -> None:
        """Leave nothing, whatever happened."""
        reap(self.mark)
        self.process.wait(WAIT_S)


def reap(mark: str) -> None:
    while left := processes(mark):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()


Serve = Callable[..., AbstractContextManager[Server]]

_shown: list[Server] = []
"""The servers of the present test and those that outlive it: their logs are shown when it fails."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        for server in _shown:
            report.sections.append((f"log of {' '.join(server.command)}", server.quiet_log[-10_000:]))
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    _shown[:] = [server for server in _shown if server.process.poll() is None]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """`with serve(target, "--scorers", "2") as server:` starts a server; at the end it must stop well and leave nothing.

    ready=False: do not wait until it is ready. folder: its working directory. command: before the target. port: any free
    one, unless given. output: a descriptor for what it prints.
    """

    @contextmanager
    def start(
        target: Any,
        *flags: str,
        ready: bool = True,
        folder: Path | None = None,
        environ: Any = None,
        command: Sequence[str] = (*COMMAND, "serve"),
        port: int = 0,
        output: int | None = None,
    ) -> Iterator[Server]:
        folder = folder or tmp_path_factory.mktemp("server")
        server = Server([str(target), *flags], folder, environ, command, port, output)
        _shown.append(server)
        try:
            if ready:
                server.wait_ready()
            yield server
            server.stop()
        finally:
            server.reap()

    return start


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    output: str
    """stdout and stderr, in the order in which they were written."""

    @property
    def last_line(self) -> str:
        return self.output.rstrip().rpartition("\n")[2]


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Ended]:
    """Run `scoring-runtime ...` in `tmp_path` to its end, which leaves no process behind.

    program: another installation's.
    """

    def run(*arguments: Any, environ: dict[str, str] | None = None, program: Sequence[str] = COMMAND) -> Ended:
        mark = uuid.uuid4().hex
        try:
            ended = subprocess.run(
                [*program, *map(str, arguments)],
                cwd=tmp_path,
                env=environment(mark, environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=WAIT_S,
                check=False,
            )
            until(lambda: not processes(mark), "processes are left", 5.0)
        finally:
            reap(mark)
        return Ended(ended.returncode, ended.stdout.decode("utf-8", "backslashreplace"))

    return run


@pytest.fixture
def live_command(tmp_path: Path) -> Callable[..., Any]:
    """`with live_command("check", target) as process:` runs `scoring-runtime ...` meanwhile; it must leave no process."""

    @contextmanager
    def start(*arguments: Any) -> Iterator["subprocess.Popen[bytes]"]:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(mark),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
            until(lambda: not processes(mark), "processes are left", 5.0)
        finally:
            reap(mark)
            process.communicate()

    return start


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int) -> AsyncIterator["Client"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def post(self, body: bytes, path: str = "/score") -> Answer:
        """Send a request and read its answer; ConnectionError or EOFError when there is none."""
        self._writer.write(b"POST %b HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)))
        self._writer.write(body)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        content = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split()[1]), headers, content)


@pytest.fixture(scope="session")
def connect() -> Any:
    """`async with connect(port) as client: await client.post(body)`."""
    return Client.connect


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return until


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """A score.py of this text."""

    def write(text: str) -> Path:
        path = tmp_path / "score.py"
        path.write_text(text, "utf-8")
        return path

    return write
