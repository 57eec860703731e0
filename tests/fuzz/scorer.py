"""A front whose scorer sends any frames at all, well-formed ones and others, at any time of its life.

- Nothing raises: a frame is one that can be, or it ends the channel.
- What one client is answered was said of its own request; each is answered at most once, in HTTP.
- When the scorer has ended, nothing of it is left, and another one can take its place.
"""

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from scoring_runtime.front import server as servers
from scoring_runtime.pool import launcher
from scoring_runtime.pool.launch import LaunchPlan, Wires
from scoring_runtime.pool.launcher import Launched
from scoring_runtime.pool.life import State
from scoring_runtime.pool.process import Scorer
from scoring_runtime.scorer import frames

from ..front import conftest as fronts
from .connection import InlineControl
from .draw import Draw, cut

NOBODY = (1 << 31) - 1
"""The id of no process: greater than any that Linux gives."""

TOKENS = (
    *(
        b'{"headers": "all"',
        b'{"headers": "none"}',
        b'{"headers": ["x-a"]}',
        b'"methods": ["GET", "POST"]',
        b'"swagger": {',
    ),
    *(b'"versions": ["2.0"]', b'"name": "x"', b'"sample": ', b'"inputs": []', b'{"message": "m", "traceback": "t"}'),
    *(b'"headers": 5', b'"methods": ["G\\r\\nX: y"]', b'"methods": 3', b'"versions": 5', b'"swagger": 3'),
    *(b"content-type: a/b\nx-a: 1\n", b"\xc8\0", b"\x08\0", b"\x10\0", b"null", b"[]", b"1"),
)


def seed(*steps: bytes) -> bytes:
    """An input for `check`: its options, then steps."""
    return b"".join(steps)


def said(payload: bytes, kind: int = 0) -> bytes:
    """The scorer says READY (0) or FATAL (1) with this payload."""
    return bytes([1 + kind, len(payload)]) + payload


def reply(which: int, flags: int = 2, status: int = 200, head: bytes = b"") -> bytes:
    """A reply to one of those in flight."""
    return bytes([3, 0]) + entry(which, flags, status, head) + bytes([1, 9])


def entry(which: int, flags: int = 2, status: int = 200, head: bytes = b"") -> bytes:
    """One reply of a frame."""
    return bytes([which, flags]) + status.to_bytes(2, "little") + bytes([7, len(head)]) + head


_AHEAD = said(b'{"headers": "none", "ahead": 1, "stops": true}')
ASK, DOC, LEAVE, STALL = b"\4", b"\5\0", b"\6\0", b"\7\0"
TIME, RAW, END, DRAIN, TWO = b"\x08\x01", b"\x09", b"\x0a\0\2", b"\x0b", b"\x0c"
_READY = said(b'{"headers": "none", "engine": "x"}')
SEEDS = (
    seed(b"\0", _READY, ASK, reply(0), ASK, DOC, reply(0)),
    seed(
        b"\1", ASK, ASK, said(b'{"headers": "all", "methods": ["GET"]}'), ASK, reply(1), reply(0, 8), reply(0, 0), DOC
    ),
    seed(b"\0", _READY, ASK, reply(0, 8), STALL, reply(0, 8), STALL, LEAVE, reply(0, 24), ASK, reply(0)),
    seed(b"\0", _READY, ASK, reply(0, 2, 999, b"x-a: b\nconnection: close\nbroken"), ASK, reply(0, 8, 100), END),
    seed(b"\1", said(b'{"message": "no model", "traceback": "..."}', 1), END, TIME, _READY, ASK, reply(0)),
    seed(b"\0", _READY, ASK, RAW, b"\x14", frames.HEADER.pack(b"SR", 1, 5, 0, 0, 0), b"\0", ASK, END, TIME, TIME),
    seed(b"\0", _READY, ASK, END, TIME, _READY, ASK, reply(0), DRAIN, END),
    seed(b"\0", _READY, ASK, ASK, b"\3\1", entry(0), b"\0", entry(0), b"\1\0", ASK, reply(0)),  # two to one request
    seed(b"\0", _READY, RAW, b"\x14", frames.HEADER.pack(b"SR", 1, 5, 0, 0, 0), b"\0", ASK, END),  # idle, and hung up
    seed(b"\0", said(b'{"headers": 5}'), ASK, END),
    seed(b"\0", said(b'{"methods": ["G\\r\\nX: y"]}'), ASK, b"\5\2", END),
    seed(b"\0", said(b'{"swagger": {"versions": 5}}'), DOC, END),
    seed(b"\0", _READY, ASK, ASK, TWO, reply(0), ASK, reply(9)),
    seed(b"\4", _AHEAD, ASK, reply(0), ASK, TWO, reply(0), reply(0), ASK, reply(0)),
    seed(b"\4", _AHEAD, ASK, reply(0), ASK, TWO, LEAVE, b"\6\1", b"\6\2", reply(1), reply(0), END),
    seed(b"\4", _AHEAD, ASK, reply(0), ASK, TWO, DRAIN, reply(0), reply(0), reply(0), END),
    seed(b"\4", _AHEAD, ASK, reply(0), ASK, TWO, reply(0, 8), END, TIME, _AHEAD, reply(0)),
)


class Loop(fronts.Loop):
    """A loop whose timers fire when the input says so, and that connects nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        self.timers.append((callback, arguments))

    def create_task(self, coroutine: Any) -> None:
        coroutine.close()

    def fire(self) -> None:
        """All timers that there are now."""
        timers, self.timers = self.timers, []
        for callback, arguments in timers:
            callback(*arguments)
        self.run()


class Pipe:
    """The transport of a channel: keeps what the front sends."""

    def __init__(self, scorer: Scorer, loop: Loop) -> None:
        self.scorer = scorer
        self.loop = loop
        self.decoder = frames.Decoder()
        self.closed = self.lost = False

    def write(self, data: Any) -> None:
        assert not self.lost, "uvloop's transports raise when they are closed"
        if self.closed:
            return
        for frame in self.decoder.feed(bytes(data)):
            if frame.kind == frames.REQUESTS:
                _asked.update((request.id, bytes(request.body)) for request in frames.decode_requests(frame))
            else:
                frames.decode_control(frame)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self._lose)

    def _lose(self) -> None:
        self.lost = True
        self.scorer._channel.connection_lost(None)

    abort = close


class Process:
    """In the place of the scorer's process."""

    pid = NOBODY

    def __init__(self) -> None:
        self._returncode: int | None = None
        self._on_ended: Callable[[], None] | None = None

    def watch(self, on_ended: Callable[[], None]) -> None:
        self._on_ended = on_ended

    def reap(self, on_reaped: Callable[[int | None], None]) -> None:
        on_reaped(self._returncode)

    def end(self, returncode: int) -> None:
        """It ends; nothing happens when it has already."""
        on_ended, self._on_ended = self._on_ended, None
        if on_ended is not None:
            self._returncode = returncode
            on_ended()


class Mark:
    """In the place of the progress mark."""

    begun = 0

    def read(self) -> int:
        return self.begun

    def kept(self) -> list[Any]:
        return []

    def close(self) -> None:
        """Nothing is open."""


_asked: dict[int, bytes] = {}
_control = lru_cache(InlineControl)


class Play:
    """One front and its only scorer's life."""

    def __init__(self, options: int) -> None:
        _asked.clear()
        self.loop = Loop()
        hello = {"engine": "script"} if options & 1 else {"engine": "onnx"}
        limits: dict[str, Any] = {"max_batch_size": 2} if options & 4 else {}  # so few that full frames are sent ahead
        with patch.object(servers, "ControlPlane", _control):  # making one takes longer than all the rest
            self.front = fronts.Front(0, hello={**hello, "target": "score.py"}, log_level="warning", **limits)
        self.server = self.front.server
        self.front.loop = self.server.loop = self.loop  # type: ignore[assignment]
        self.server.scoring._loop = self.server.pool._loop = self.loop  # type: ignore[assignment]
        self.server.pool._booted = bool(options & 2)
        self.processes: list[Process] = []
        self.mark = Mark()
        self.pipe: Pipe | None = None
        self.clients: list[fronts.Client] = []
        self.methods: dict[fronts.Client, str] = {}
        self.left: list[fronts.Client] = []
        self.start(self.server.pool.start)

    def start(self, step: Callable[[], None]) -> None:
        """Do what may start a scorer, with a process that is none."""
        with patch.object(launcher, "start", self._launch):
            step()
        scorer = self.scorer
        if scorer is not None and (self.pipe is None or self.pipe.scorer is not scorer):
            self.pipe = Pipe(scorer, self.loop)
            scorer._channel.connection_made(cast(Any, self.pipe))

    def _launch(self, plan: LaunchPlan, loop: object, seat: int) -> Launched:
        self.processes.append(Process())
        wires = SimpleNamespace(channel=None, progress=self.mark, outputs=[])
        return Launched(self.processes[-1], cast(Wires, wires))

    @property
    def scorer(self) -> Scorer | None:
        return self.server.pool._seats[0].scorer

    def say(self, data: bytes, cuts: list[int]) -> None:
        """The scorer sends bytes."""
        for piece in cut(data, cuts):
            scorer, pipe = self.scorer, self.pipe
            if scorer is None or pipe is None or pipe.closed or pipe.scorer is not scorer:
                return
            scorer._channel.data_received(piece)
            self.loop.run()

    def ask(self, request: bytes) -> None:
        if len(self.clients) < 12:
            client = self.front.connect()
            self.clients.append(client)
            self.methods[client] = request.partition(b" ")[0].decode()
            client.send(request.replace(b"NUMBER", b"%02d" % len(self.clients)))

    def end(self, returncode: int) -> None:
        """The process ends."""
        self.processes[-1].end(returncode)
        for _ in range(3):
            self.start(self.loop.fire)


POST = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nNUMBER"
GETS = (
    b"GET /swagger.json HTTP/1.1\r\n\r\n",
    b"GET /v2/models/x HTTP/1.1\r\n\r\n",
    b"GET /score?a=1 HTTP/1.1\r\n\r\n",
    b"GET /readyz?verbose HTTP/1.1\r\n\r\n",
    b"OPTIONS /score HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n\r\n",
    b"HEAD /score HTTP/1.1\r\n\r\n",
    b"POST /score HTTP/1.0\r\nContent-Length: 2\r\n\r\nNUMBER",
)


def check(data: bytes) -> None:
    logging.disable(logging.CRITICAL)
    try:
        _check(data)
    finally:
        logging.disable(logging.NOTSET)


def _check(data: bytes) -> None:
    draw = Draw(data)
    play = Play(draw.byte())
    for _ in range(60):
        if draw.empty:
            break
        step(play, draw)
    finish(play)


def step(play: Play, draw: Draw) -> None:
    """One thing that can happen."""
    scorer = play.scorer
    what = draw.below(13)
    if what in (1, 2):
        payload = draw.piece()
        kind = frames.READY if what == 1 else frames.FATAL
        play.say(frames.HEADER.pack(b"SR", 1, kind, 0, 0, len(payload)) + payload, [])
    elif what == 3:
        ids = [*((*scorer.in_flight, *scorer.ahead) if scorer is not None else ()), 1 << 40]
        entries = []
        for _ in range(1 + draw.below(4)):
            number = ids[draw.below(len(ids))]
            flags = draw.byte()
            entries.append((number, draw.number(2), flags, draw.byte(), draw.piece(), b"for %d" % number))
            if draw.below(2):
                break
        play.say(b"".join(frames.encode_replies(entries, draw.byte())), [])
    elif what == 4:
        play.ask(POST)
    elif what == 5:
        play.ask(GETS[draw.below(len(GETS))])
    elif what == 6 and play.clients:
        play.left.append(play.clients[draw.below(len(play.clients))])
        play.left[-1].leave()
    elif what == 7 and play.clients:
        client = play.clients[draw.below(len(play.clients))]
        if not client.wire.closed:
            stalled = client.connection.write_stalled_at != float("inf")
            (client.connection.resume_writing if stalled else client.connection.pause_writing)()
            play.loop.run()
    elif what == 8:
        play.loop.passed_s += draw.byte()
        play.start(play.server._tick)
        play.loop.run()
    elif what == 9:
        play.say(draw.piece(), draw.cuts())
    elif what == 10:
        play.mark.begun = draw.byte()
        play.end((0, 1, -9)[draw.below(3)])
    elif what == 11 and not play.server.draining:
        play.server.draining = play.server.closing = True
        play.server.pool.drain()
        play.loop.run()
    elif what == 12:
        for _ in range(2):
            play.ask(POST)
    assert_right(play)


def assert_right(play: Play) -> None:
    scorer = play.scorer
    if scorer is not None:
        assert (scorer.state is State.BUSY) == (bool(scorer.in_flight) and scorer.state is not State.DRAINING)
        assert scorer.in_flight or not scorer.ahead
        assert (scorer in play.server.pool.idle) == (scorer.state is State.READY and not scorer.leaving)
    for number, client in enumerate(play.clients, 1):
        sent = bytes(client.wire.sent)
        head, _, body = sent.partition(b"\r\n\r\n")
        told = re.fullmatch(rb"for (\d+)", body)
        if told is not None:
            assert _asked[int(told[1])] in (b"", b"%02d" % number), "another's answer"
            whole = b"Content-Length" in head and scorer is not None
            has = {**scorer.in_flight, **scorer.ahead} if scorer is not None else {}
            assert not whole or int(told[1]) not in has, "answered, and still under way"
        if head:
            assert head.startswith(b"HTTP/1.1 "), head
            assert all(fronts.HEADER_LINE.fullmatch(line) for line in head.split(b"\r\n")[1:]), head


def finish(play: Play) -> None:
    """The end: the scorer is gone, and every client has its answer or has left."""
    play.server.closing = True
    play.server.pool.kill("the end")
    play.end(-9)
    assert play.server.pool.empty
    for _ in range(2):
        play.loop.passed_s += 1e6
        play.start(play.server._tick)
        play.loop.run()
    for client in play.clients:
        assert client.wire.lost
        if client.wire.aborted or client in play.left:
            continue
        assert len(client.responses(play.methods[client])) <= 1
    assert not play.server.connections
    assert play.server.scoring.queue.count == 0
