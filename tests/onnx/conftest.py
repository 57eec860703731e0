"""A way to score without a front."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest

from scoring_runtime.onnx.engine import Engine, load
from scoring_runtime.scorer.frames import ROUTE_SCORE, Request


class Answer(NamedTuple):
    """A reply, its body parsed."""

    status: int
    body: Any
    run_us: int


class RecordingOutbox:
    """Keeps what an engine answers. A second answer to a request is an error."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}

    def add(self, request_id: int, status: int, body: Any, head: bytes = b"", flags: int = 0, run_us: int = 0) -> None:
        assert request_id not in self.answers
        assert head == b""
        assert flags == 0
        self.answers[request_id] = Answer(status, json.loads(bytes(body)), run_us)

    def add_all(self, request_ids: Sequence[int], bodies: Sequence[bytes], run_us: int) -> None:
        for request_id, body in zip(request_ids, bodies, strict=True):
            self.add(request_id, 200, body, run_us=run_us)

    def flush_if_due(self) -> None:
        """Nothing waits here."""


Score = Callable[[Engine, Sequence[Any]], list[Answer]]
Load = Callable[..., Engine]


def score_frame(engine: Engine, bodies: Sequence[Any]) -> list[Answer]:
    """The answers to one frame. Bodies that are no bytes are sent as JSON."""
    outbox = RecordingOutbox()
    blobs = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    engine.score([Request(number, 0, ROUTE_SCORE, 2, b"", blob) for number, blob in enumerate(blobs)], outbox)
    return [outbox.answers[number] for number in range(len(blobs))]


def load_model(target: Path | onnx.ModelProto, folder: Path | None = None, **hello: Any) -> Engine:
    """An engine as the front would ask for it; a model in memory is first written into `folder`."""
    if isinstance(target, onnx.ModelProto):
        assert folder is not None
        path = folder / "model.onnx"
        path.write_bytes(target.SerializeToString())
        target = path
    return load({"engine": "onnx", "target": str(target), "scorers": 1, "threads": 1, **hello})


@pytest.fixture(scope="session")
def score() -> Score:
    return score_frame


@pytest.fixture(scope="session")
def load_engine() -> Load:
    return load_model


@pytest.fixture
def scratch(tmp_path: Path, score: Score) -> Callable[..., list[Answer]]:
    """Load a model in memory and score bodies with it, as one frame."""
    return lambda model, *bodies: score(load_model(model, tmp_path), bodies)


_NOBODY = 65534


@contextmanager
def run_as_somebody_else() -> Iterator[Path]:
    """Not to be root, whom no permission stops; a folder that is theirs."""
    folder = Path(tempfile.mkdtemp())
    before = os.geteuid()
    try:
        if before == 0:
            os.chown(folder, _NOBODY, -1)
            os.seteuid(_NOBODY)
        yield folder
    finally:
        os.seteuid(before)
        folder.chmod(0o700)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def somebody_else() -> Callable[[], AbstractContextManager[Path]]:
    return run_as_somebody_else


@pytest.fixture(scope="session")
def iris(trained: Any) -> Engine:
    return load_model(trained.iris, name="iris")
