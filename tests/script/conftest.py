"""Scorers of the script engine, driven with real frames: started by whatever interpreters this machine has."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import hypothesis
import pytest

import scoring_runtime.scorer
from scoring_runtime.scorer import frames, progress
from scoring_runtime.scorer.frames import METHODS, Reply, Request

# A slow example says something about a busy machine, not about the code.
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

MAIN = Path(scoring_runtime.scorer.__file__).parent / "__main__.py"
PACKAGES = ("flask", "inference-schema", "numpy", "pandas")
WAIT_S = 30
OWN_VERSION = f"3.{sys.version_info.minor}"


class Scorer:
    """A running scorer."""

    def __init__(self, python: str, main: Path, hello: dict[str, Any], environ: dict[str, str], folder: Path) -> None:
        ours, theirs = socket.socketpair()
        shared_file = progress.create_shared_file()
        self.log_path = folder / "scorer.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [python, str(main), str(theirs.fileno()), str(shared_file)],
                pass_fds=(theirs.fileno(), shared_file),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environ,
                start_new_session=True,
            )
        theirs.close()
        self.progress = progress.ProgressReader(shared_file)
        os.close(shared_file)
        self._socket = ours
        self._socket.settimeout(WAIT_S)
        self._decoder = frames.Decoder()
        self._frames: list[frames.Frame] = []
        self._last_id = 0
        self._socket.sendall(frames.encode_json(frames.HELLO, hello))
        first = self.receive()
        self.kind = first.kind
        self.info = frames.decode_json(first)

    def receive(self) -> frames.Frame:
        while not self._frames:
            data = self._socket.recv(1 << 20)
            assert data, "the scorer closed its channel; its log:\n" + self.log
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    def send(self, *requests: Request) -> None:
        self._socket.sendall(b"".join(frames.encode_requests(requests)))

    def control(self, kind: int, number: int) -> None:
        self._socket.sendall(frames.encode_control(kind, number))

    def request(
        self, body: bytes = b"", method: str = "POST", target: str = "/score", headers: str = "", timeout_ms: int = 0
    ) -> Request:
        """A request, with a head as the front sends it: the parts that this scorer asked for."""
        self._last_id += 1
        wanted = self.info["headers"]
        lines = headers.splitlines()
        if wanted == "all":
            lines = [":remote-addr: 1.2.3.4", ":scheme: http", *lines]
        elif wanted != "none":
            lines = [line for line in lines if line.partition(":")[0].lower() in wanted]
        has_head = wanted != "none" or method == "GET"
        head = "\n".join([target, *lines]).encode("latin-1") if has_head else b""
        return Request(self._last_id, timeout_ms, frames.ROUTE_SCORE, METHODS[method], head, body)

    def replies(self, count: int) -> list[Reply]:
        got: list[Reply] = []
        while len(got) < count:
            got += (Reply(*reply) for reply in frames.decode_replies(self.receive()))
        assert len(got) == count
        return got

    def ask(self, body: bytes = b"", **how: Any) -> Reply:
        request = self.request(body, **how)
        self.send(request)
        (reply,) = self.replies(1)
        assert reply.id == request.id
        return reply

    def json(self, body: bytes = b"", **how: Any) -> Any:
        """The answer to a request that must succeed, with a plain value."""
        reply = self.ask(body, **how)
        assert (reply.status, bytes(reply.head)) == (200, b""), (reply, self.log)
        return json.loads(bytes(reply.body))

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8")

    def close(self) -> int:
        """Hang up as the front does; the exit code."""
        self._socket.close()
        self.progress.close()
        try:
            return self.process.wait(WAIT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # what it started may have outlived it
            self.process.wait()


StartScorer = Callable[..., Scorer]


@pytest.fixture
def start(tmp_path: Path, bare_pythons: Callable[[str], str]) -> Iterator[StartScorer]:
    """Start a scorer for the text of a score.py, in a bare environment unless `python` names another.

    Its folder is `tmp_path`, where nothing else need be.
    """
    started: list[Scorer] = []

    def start_scorer(
        script: str | None, python: str | None = None, environ: Any = None, main: Path = MAIN, **hello: Any
    ) -> Scorer:
        target = tmp_path / "score.py"
        if script is not None:
            target.write_text(dedent(script), "utf-8")
        message = {
            "engine": "script",
            "target": str(target),
            "name": "score",
            "app_root": str(tmp_path),
            "source_dir": None,
            "model_dir": None,
            "scoring_timeout_ms": 3600000,
            "log_level": "info",
            "scorers": 1,
            "max_batch_size": 128,
            **hello,
        }
        scorer = Scorer(python or bare_pythons(OWN_VERSION), main, message, {**os.environ, **(environ or {})}, tmp_path)
        started.append(scorer)
        return scorer

    yield start_scorer
    for scorer in started:
        scorer.close()


@pytest.fixture
def ready(start: StartScorer) -> StartScorer:
    """As `start`, for scripts that load."""

    def start_ready(*args: Any, **kwargs: Any) -> Scorer:
        scorer = start(*args, **kwargs)
        assert scorer.kind == frames.READY, scorer.info
        return scorer

    return start_ready


@pytest.fixture
def fails(start: StartScorer) -> Callable[..., tuple[str, str]]:
    """As `start`, for scripts that do not load: the message and the traceback of FATAL."""

    def start_failing(*args: Any, **kwargs: Any) -> tuple[str, str]:
        scorer = start(*args, **kwargs)
        assert scorer.kind == frames.FATAL, scorer.info
        assert scorer.close() == 1
        return scorer.info["message"], scorer.info["traceback"]

    return start_failing


@pytest.fixture(scope="session")
def equipped_python(pytestconfig: pytest.Config) -> str:
    """The interpreter of a virtual environment with the packages that score scripts are built on; made once."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"script-{OWN_VERSION}-" + "-".join(PACKAGES))
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        complete.touch()
    return str(python)
