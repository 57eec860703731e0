"""The scorer as the front starts it: a process of its own that speaks frames."""

import os
import socket
import subprocess
import sys

import pytest

from scoring_runtime.scorer import frames, progress


class Scorer:
    """A running scorer process and our end of its channel."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        shared = progress.create_shared_file()
        # -I: what stands in the environment or in the working directory must not reach this process.
        command = [sys.executable, "-I", "-m", "scoring_runtime.onnx", str(theirs.fileno()), str(shared)]
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(), shared), stderr=subprocess.PIPE)
        theirs.close()
        os.close(shared)
        self.channel = ours
        self.channel.settimeout(60)
        self._decoder = frames.Decoder()

    def send(self, *pieces: frames.Blob) -> None:
        for piece in pieces:
            self.channel.sendall(piece)

    def receive(self) -> frames.Frame:
        while True:
            data = self.channel.recv(65536)
            assert data, "the scorer closed the channel"
            found = self._decoder.feed(data)
            if found:
                return found[0]

    def end(self) -> int:
        self.channel.close()
        _, errors = self.process.communicate(timeout=30)
        assert errors == b""
        return self.process.returncode


@pytest.fixture
def scorer(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    running = Scorer()
    yield running
    running.channel.close()
    running.process.kill()
    running.process.communicate()


def hello(target: object) -> bytes:
    message = {"engine": "onnx", "target": str(target), "name": "m", "scorers": 1, "threads": 0, "max_batch_size": 128}
    return frames.encode_json(frames.HELLO, {**message, "log_level": "info"})


def test_ready_replies_and_a_quiet_end(scorer, trained):
    scorer.send(hello(trained.iris))
    ready = scorer.receive()
    assert ready.kind == frames.READY
    assert frames.decode_json(ready)["batchable"] is True
    bodies = [b'{"data": [[5.1, 3.5, 1.4, 0.2]]}', b"rubbish"]
    requests = [frames.Request(number, 0, frames.ROUTE_SCORE, 2, b"", body) for number, body in enumerate(bodies, 7)]
    scorer.send(*frames.encode_requests(requests))
    replies: list[frames.Reply] = []
    while len(replies) < len(requests):
        replies += [frames.Reply(*reply) for reply in frames.decode_replies(scorer.receive())]
    assert {reply.id: reply.status for reply in replies} == {7: 200, 8: 400}
    assert scorer.end() == 0


def test_a_model_that_cannot_be_loaded_is_fatal_with_one_message(scorer, tmp_path):
    scorer.send(hello(tmp_path / "no.onnx"))
    fatal = scorer.receive()
    assert fatal.kind == frames.FATAL
    assert frames.decode_json(fatal) == {
        "message": f"{tmp_path}/no.onnx: there is no such file: check the path",
        "traceback": "",
    }
    assert scorer.end() == 1


def test_onnx_runtime_reports_to_nobody(scorer, trained, tmp_path):
    """Its Linux builds start a reporter when they are imported, which leaves a file in the temporary folder."""
    scorer.send(hello(trained.iris))
    assert scorer.receive().kind == frames.READY
    assert list(tmp_path.iterdir()) == []
