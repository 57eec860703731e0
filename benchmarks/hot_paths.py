"""The hot functions of the server, driven without sockets and without other processes, so that they can be counted.

    valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file=F python -m benchmarks.hot_paths --batches 200

counts so many batches of each path, and of nothing else: into F.1 those of the first of PATHS, and so on. What stands for
the rest of the world does nothing: transports that keep what is written, a loop whose time stands still, a scorer that is
this program.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from benchmarks.callgrind import Callgrind
from scoring_runtime.front.connection import Connection
from scoring_runtime.front.server import Server
from scoring_runtime.onnx.codecs.json import JsonCodec
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan
from scoring_runtime.pool.launch import LaunchPlan
from scoring_runtime.scorer import frames, loop
from scoring_runtime.scorer.progress import Progress, create_shared_file
from scoring_runtime.scorer.script import call
from scoring_runtime.settings import Settings

MODELS = Path(__file__).resolve().parent / "models"
CONNECTIONS = 32
FIRST_BATCHES = 100
END_TIMEOUT_S = 10
BODY = b'{"data": [[5.1,3.5,1.4,0.2]]}'
REQUEST = (
    b"POST /score HTTP/1.1\r\nHost: 127.0.0.1:5001\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(BODY), BODY)
)
ANSWER = b'{"outputs":{"label":[0],"probabilities":[[0.9815729,0.018427137,1.4781146e-8]]}}'


class Transport(asyncio.Transport):
    """Keeps what was last written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def take(self) -> bytes:
        written, self.written = self.written, b""
        return written

    def write(self, data: Any) -> None:
        self.written = bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written = b"".join(list_of_data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""

    abort = close

    def pause_reading(self) -> None:
        raise AssertionError("nothing here is to be slow")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""


class Loop:
    """As much of an event loop as the front needs. `soon` is run by whoever drives it."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self.channel: asyncio.Protocol
        self.channel_transport = Transport()

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def call_later(self, _delay: float, _callback: Callable[..., object], *_arguments: Any) -> asyncio.Handle:
        return cast(asyncio.Handle, self)

    call_at = call_later

    def cancel(self) -> None:
        """Timers never ring here."""

    def add_reader(self, fd: int, callback: Callable[..., object], *arguments: Any) -> None:
        self.readers[fd] = (callback, arguments)

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def read_to_the_end(self) -> None:
        """Call readers until there are none: what they read has ended."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while self.readers and time.monotonic() < deadline:
            for fd in select.select(list(self.readers), (), (), 0.1)[0]:
                callback, arguments = self.readers[fd]
                callback(*arguments)
            self.turn()

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Handle:
        with contextlib.suppress(StopIteration):
            work.send(None)  # nothing here waits, so it ends at once
        return cast(asyncio.Handle, self)

    async def create_unix_connection(self, make: Callable[[], asyncio.Protocol], *, sock: Any) -> None:
        self.channel = make()
        sock.close()
        self.channel.connection_made(self.channel_transport)

    def turn(self) -> None:
        while self.soon:
            callback, arguments = self.soon.popleft()
            callback(*arguments)


class Front:
    """A server with one scorer, and clients that have connected."""

    def __init__(self) -> None:
        self.loop = Loop()
        plan = LaunchPlan(("/bin/sh", "-c", "exec sleep 1000"), {}, {"engine": "onnx", "target": "iris.onnx"})
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.server = Server(Settings(log_level="error", scorers=1), plan, loop, first_boot=False, on_boot_failed=_fail)
        self.server.pool.start()
        ready = {"engine": "onnx", "headers": "none", "methods": ["POST"], "idempotent": True}
        self.loop.channel.data_received(frames.encode_json(frames.READY, ready))
        self.clients = [(Connection(self.server), Transport()) for _ in range(CONNECTIONS)]
        for connection, transport in self.clients:
            connection.connection_made(transport)
        self.decoder = frames.Decoder()
        self.frames = 0

    def close(self) -> None:
        """End the process that stands for a scorer."""
        self.server.pool.drain()  # else another one would be started
        self.server.pool.kill("all is counted")
        self.loop.channel.connection_lost(None)
        self.loop.read_to_the_end()

    def batch(self) -> None:
        """From the bytes of a request on each connection to the response on each."""
        for connection, _ in self.clients:
            connection.data_received(REQUEST)
        self.loop.turn()
        self.frames = 0
        while sent := self.loop.channel_transport.take():
            self.frames += 1  # one, once the server has learned that a whole batch is quick
            [frame] = self.decoder.feed(sent)
            self.loop.channel.data_received(_replies([request.id for request in frames.decode_requests(frame)]))
            self.loop.turn()
        for _, transport in self.clients:
            response = transport.take()
            assert response.startswith(b"HTTP/1.1 200 "), response


def _fail(error: Exception) -> None:
    raise error


def _replies(ids: list[int]) -> bytes:
    return b"".join(frames.encode_replies([(number, 200, 0, 5, b"", ANSWER) for number in ids], 100))


def codecs() -> Callable[[], None]:
    """The engine's way from bodies to arrays and back, without the run between them."""
    session = open_session(SessionPlan(MODELS / "iris.onnx", 1))
    codec = JsonCodec(session.inputs, session.outputs)
    bodies = [BODY] * CONNECTIONS
    decoded = codec.decode_together(bodies)
    assert decoded is not None
    outputs = session.run(decoded[0])

    def both_ways() -> None:
        assert codec.decode_together(bodies) is not None
        assert codec.encode_apart(outputs, [1] * CONNECTIONS) is not None

    return both_ways


def framing() -> Callable[[], None]:
    """Both sides' packing and unpacking of one batch."""
    requests = [(number, 0, frames.ROUTE_SCORE, 2, b"", BODY) for number in range(1, CONNECTIONS + 1)]
    replies = [(number, 200, 0, 5, b"", ANSWER) for number in range(1, CONNECTIONS + 1)]

    def both_ways() -> None:
        [frame] = frames.Decoder().feed(b"".join(frames.encode_requests(requests)))
        assert len(frames.decode_requests(frame)) == CONNECTIONS
        [frame] = frames.Decoder().feed(b"".join(frames.encode_replies(replies, 100)))
        assert len(frames.decode_replies(frame)) == CONNECTIONS

    return both_ways


def script() -> Callable[[], None]:
    """The script engine's way from requests to the frame of their replies, with a run() that costs little."""
    engine = call.ScriptEngine(
        call.Script(_run, call.STRING, ["_raw_data"], ["_raw_data"], {}, wants_headers=False, flask_app=None),
        {},
        60_000,
        call.AsyncRunner(),
    )
    channel = Written()
    shared = create_shared_file()
    outbox = loop.Outbox(cast(loop.Channel, channel), Progress(shared))
    os.close(shared)
    requests = [frames.Request(number, 0, frames.ROUTE_SCORE, 2, b"", BODY) for number in range(1, CONNECTIONS + 1)]

    def score() -> None:
        outbox.open(list(requests))
        engine.score(requests, outbox)
        outbox.flush()
        assert channel.frames == 1
        channel.frames = 0

    return score


def stop_clocks() -> None:
    """When a script's replies are due depends on the time that its runs take: from now on none passes."""
    for module in (loop, call):
        vars(module)["perf_counter"] = itertools.repeat(0.0).__next__


def _run(_raw_data: str) -> dict[str, list[float]]:
    return {"sum": [1.0]}


class Written:
    """Counts what a scorer sends."""

    def __init__(self) -> None:
        self.frames = 0

    def send(self, _pieces: list[frames.Blob]) -> None:
        self.frames += 1


PATHS = ("front", "frames", "codecs", "script")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200)
    batches = parser.parse_args().batches
    tool = Callgrind()
    stop_clocks()
    front = Front()
    try:
        paths: dict[str, Callable[[], None]] = {
            "front": front.batch,
            "frames": framing(),
            "codecs": codecs(),
            "script": script(),
        }
        for name in PATHS:
            path = paths[name]
            for _ in range(FIRST_BATCHES):
                path()
            assert front.frames == 1, f"a batch goes out in {front.frames} pieces"
            gc.collect()
            gc.disable()  # when it runs depends on how many objects there are elsewhere
            tool.start()
            for _ in range(batches):
                path()
            tool.stop()
            gc.enable()
    finally:
        front.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
