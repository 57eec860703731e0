"""Real servers: the installed command, a real port, a folder of their own, and a log that is read."""

import asyncio
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from .targets import write_target
from .wire import Answer, Cut, connect, encode, read_answer

COMMAND = Path(sys.executable).with_name("scoring-runtime")
SCORERS = 2
HEAD_TIMEOUT_S = 3
MAX_CONNECTIONS = 400
FLAGS = {
    "--scorers": SCORERS,
    "--scoring-timeout-ms": 1000,
    "--head-timeout-s": HEAD_TIMEOUT_S,
    "--max-connections": MAX_CONNECTIONS,
    "--drain-grace-s": 0.3,
    "--drain-timeout-s": 10,
}
READY_WITHIN_S = 60.0
ENDED_WITHIN_S = 30.0
COMPLAINT_LINES = 30

_MARK = "CHAOS_TREE"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_COMPLAINT = re.compile(rb" [WEC] \[\d+\] asyncio - |Task exception was never retrieved|Exception in worker process")
_REQUEST_LINE = re.compile(rb"gunicorn\.access - | azmlinfsrv - ")


class Server:
    """One server through the whole run, whatever becomes of its processes."""

    def __init__(self, name: str, engine: str, folder: Path) -> None:
        self.name = name
        self.engine = engine
        self.folder = folder
        self.port = free_port()
        self.mark = uuid.uuid4().hex
        self.complaints: list[str] = []
        """What of the log no fault explains: the front's own exceptions, with the lines that follow them."""

        self.last_lines: deque[bytes] = deque(maxlen=300)
        """Of the log, without those that every request leaves."""

        folder.mkdir()
        (folder / "tmp").mkdir()
        self._target = write_target(engine, folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = -1
        self._unfinished = b""
        self._log_paused = False
        self._complaining = 0

    # Life

    def start(self) -> None:
        """Start it; returns at once."""
        self._log, theirs = os.pipe()
        os.set_blocking(self._log, False)
        flags = [str(word) for pair in FLAGS.items() for word in pair]
        self._process = subprocess.Popen(
            [str(COMMAND), "serve", str(self._target), "--port", str(self.port), *flags],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(theirs)
        self.resume_log()

    def _environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return inherited | {_MARK: self.mark, "TMPDIR": str(self.folder / "tmp")}

    async def recovered(self, pids: frozenset[int] = frozenset(), within_s: float = READY_WITHIN_S) -> bool:
        """Wait until every scorer is ready, and none of `pids` is there any more. False when that takes too long."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if not pids & set(self.scorer_pids()) and await self.scorers_live() == SCORERS:
                return True
            await asyncio.sleep(0.05)
        return False

    async def scorers_live(self) -> int:
        """As /metrics says; 0 when there is no answer."""
        answer = await self.get("/metrics")
        found = re.search(rb"^scoring_scorers_live (\d+)", answer.body, re.MULTILINE) if answer else None
        return int(found[1]) if found else 0

    async def get(self, path: str) -> Answer | None:
        """One request on its own connection; None when there is no answer."""
        try:
            async with asyncio.timeout(2), connect(self.port) as (reader, writer):
                writer.write(encode("GET", path, headers=["Connection: close"]))
                return await read_answer(reader)
        except (Cut, TimeoutError):
            return None

    async def stop(self) -> str:
        """SIGTERM, as an orchestrator ends it; what is wrong with how it ended, or nothing."""
        self.signal(signal.SIGTERM)
        code = await self.ended()
        if code is None:
            return f"it had not ended {ENDED_WITHIN_S:g} s after SIGTERM"
        if code != 0:
            return f"it ended with exit code {code}"
        return await self.left_behind()

    async def ended(self) -> int | None:
        """The exit code, when it has ended in time."""
        assert self._process is not None
        deadline = time.monotonic() + ENDED_WITHIN_S
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                return code
            await asyncio.sleep(0.02)
        return None

    async def left_behind(self) -> str:
        """What a server that has ended left, or nothing."""
        deadline = time.monotonic() + ENDED_WITHIN_S
        while left := [process.pid for process in processes(self.mark)]:
            if time.monotonic() > deadline:
                return f"processes are left: {left}"
            await asyncio.sleep(0.02)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                return f"port {self.port} is not free: {error}"
        files = [path.name for path in (self.folder / "tmp").iterdir() if path.name != ".ses"]  # ONNX Runtime's
        return f"files are left: {files}" if files else ""

    def kill_everything(self) -> None:
        """Leave nothing, whatever happened."""
        while left := list(processes(self.mark)):
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        if self._process is not None:
            self._process.wait()
        self.pause_log()

    # Its processes

    @property
    def arbiter_pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """To the arbiter."""
        assert self._process is not None
        self._process.send_signal(number)

    def front_pids(self) -> list[int]:
        """One, but for the moments after it ended or while a new one takes over."""
        return children(self.arbiter_pid)

    def scorer_pids(self) -> list[int]:
        """Children of the fronts."""
        return [pid for front in self.front_pids() for pid in children(front)]

    # Its log

    def pause_log(self) -> None:
        """Stop reading what it prints."""
        if self._log >= 0 and not self._log_paused:
            asyncio.get_running_loop().remove_reader(self._log)
        self._log_paused = True

    def resume_log(self) -> None:
        """Read what it prints."""
        self._log_paused = False
        asyncio.get_running_loop().add_reader(self._log, self._read_log, self._log)

    def _read_log(self, log: int) -> None:
        data = os.read(log, 1 << 16)
        if not data:
            asyncio.get_running_loop().remove_reader(log)
            os.close(log)
            if log == self._log:
                self._log = -1
            return
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = self._unfinished[-4096:]
        for line in lines:
            if _COMPLAINT.search(line):
                self.complaints.append("")
                self._complaining = COMPLAINT_LINES
            if self._complaining:
                self._complaining -= 1
                self.complaints[-1] += line.decode("utf-8", "replace") + "\n"
            if not _REQUEST_LINE.search(line):
                self.last_lines.append(line[:500])

    # What ran

    def runs(self) -> Iterator[int]:
        """The numbers of the requests that began to run in its scorers."""
        for path in sorted((self.folder / "runs").iterdir()):
            data = path.read_bytes()
            for (number,) in struct.iter_unpack("<q", data[: len(data) // 8 * 8]):
                yield int(number)


def processes(mark: str) -> Iterator[psutil.Process]:
    """Every process alive that was started with the mark, whoever its parent is now."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def children(pid: int) -> list[int]:
    """Of a process that may have gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def sample(pid: int) -> dict[str, float] | None:
    """What a process holds; None when it has gone."""
    try:
        process = psutil.Process(pid)
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        sockets = sum(link.startswith("socket:") for link in links)
        return {
            "rss_bytes": process.memory_info().rss,
            "descriptors": len(links) - sockets,
            "sockets": sockets,
            "memfds": sum(link.startswith("/memfd:") for link in links),
            "threads": process.num_threads(),
            "children": len(children(pid)),
        }
    except (psutil.Error, OSError):
        return None


def free_port() -> int:
    """Below those that the system gives to outgoing connections: whoever waits for it must not connect to itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
