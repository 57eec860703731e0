"""The life of a scorer process: hello, load, ready, then frames of requests until the front closes the channel.

An engine is any object with

    info: Dict[str, Any]    what READY tells the front (JSON): at least "engine", "idempotent" and "headers"
    score(requests: List[Request], outbox: Outbox) -> None
    forked() -> None        only where it can be preloaded: called first in each process that was forked from it

`idempotent` true means that a request may be run again after a crash. `headers` is "none", "all" or a list of
lower-case names: what the front is to put into the head of each request. `score` adds exactly one reply for each
request to the outbox (`add`, or `stream` for a reply in pieces), in any order, and catches what user code raises. An
engine that streams takes the requests in their order, and finds the list shorter where the front has recalled the rest.
"""

import _socket  # the class behind socket.socket, whose methods user code cannot replace
import os
from itertools import repeat
from time import perf_counter
from traceback import format_exc
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from . import children, frames, nursery, process
from .arena import Arena
from .progress import Progress

RECEIVE_BYTES = 262144
FLUSH_AFTER_S = 0.001
"""Replies wait for company this long, so that a slow run() is answered at once and quick ones share a write."""

FLUSH_BYTES = 1 << 20
"""Replies of this size together do not wait: a frame must stay far below its limit."""
MAX_REPLY_BYTES = frames.MAX_PAYLOAD_BYTES - (1 << 24)

SLOW_RUN_US = 5000
HURRIED_REPLIES = 1000
"""Where one run() was slow the next one may be: for so many replies none waits for company behind it."""

_CONTROLS = frozenset((frames.PULL, frames.CANCEL, frames.RECALL))
OUTLIVED = _CONTROLS | {frames.STOP}
"""What these are about may be over when they are read: then they mean nothing."""

MAX_TEXT_BYTES = 1 << 18
"""Of a message or traceback in FATAL; escaped as JSON, both stay below the limit of a frame."""

EXIT_LOAD_FAILED = 1  # never 3 or 4: those would halt a process manager that reaps us


class LoadError(Exception):
    """The target cannot be served. The text names file, cause and cure; `traceback_text` is the user's, or empty."""

    def __init__(self, message: str, traceback_text: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.traceback_text = traceback_text


class ChannelClosedError(Exception):
    """The front has closed the channel: nobody waits for replies any more."""


_Reply = Tuple[int, int, int, int, bytes, frames.Blob]
"""As frames.Reply."""


class Outbox:
    """Collects the replies of one frame and writes them when they are due.

    progress: outlives this process; None for an engine whose requests may be run again.
    """

    def __init__(self, channel: "Channel", progress: Optional[Progress]) -> None:
        self._channel = channel
        self._progress = progress
        self._replies: List[_Reply] = []
        self._requests: List[frames.Request] = []
        self._kept = 0  # so many of them lie where they outlive us
        self._bytes = 0
        self._frame_began = 0.0
        self._held = False
        self._flushed = 0.0
        self._hurried = 0  # so many replies go at once

    def open(self, requests: List[frames.Request], held: bool = False) -> None:
        """A new frame was read: time counts from here. requests: the list that the engine goes through.

        held: another frame is not settled yet. Nothing is written, and time does not count, before `release`.
        """
        self._requests = requests
        self._held = held
        self._frame_began = self._flushed = perf_counter()

    def release(self) -> None:
        """The frame before is settled."""
        self._held = False
        self._frame_began = self._flushed = perf_counter()

    def begin(self, request_id: int) -> None:
        """Called by engines that are not idempotent, before anything of the request runs."""
        progress = self._progress
        if progress is None:
            return
        replies = self._replies
        while self._kept < len(replies):
            if not progress.keep(*replies[self._kept]):
                self.flush()
                break
            self._kept += 1
        progress.mark(request_id)

    def add(  # positional: this is the hot path
        self, request_id: int, status: int, body: frames.Blob, head: bytes = b"", flags: int = 0, run_us: int = 0
    ) -> None:
        """Settle one request; FrameError, and nothing is added, when no frame can hold the body."""
        size = len(body)
        if size > MAX_REPLY_BYTES:
            raise frames.FrameError("a reply of %d bytes is over the limit of %d" % (size, MAX_REPLY_BYTES))
        run_us = min(run_us, frames.MAX_U32)
        self._replies.append((request_id, status, flags, run_us, head, body))
        self._bytes += size
        if self._bytes > FLUSH_BYTES:
            self.flush()

    def add_all(self, request_ids: Sequence[int], bodies: Sequence[bytes], run_us: int) -> None:
        """Settle requests that ran together, each with status 200: 0.05 us for each of them, where add takes 0.3.

        FrameError, and nothing is added, when no frame can hold one of the bodies.
        """
        size = sum(map(len, bodies))
        if size > FLUSH_BYTES:
            largest = max(map(len, bodies))
            if largest > MAX_REPLY_BYTES:
                raise frames.FrameError("a reply of %d bytes is over the limit of %d" % (largest, MAX_REPLY_BYTES))
            for request_id, body in zip(request_ids, bodies):
                self.add(request_id, 200, body, run_us=run_us)
            return
        if (
            len(request_ids) == len(self._requests) and not self._replies and not self._held
        ):  # the whole frame: nothing is to come
            busy_us = int((perf_counter() - self._frame_began) * 1e6)
            self._channel.send(frames.encode_alike(request_ids, bodies, run_us, busy_us))
            return
        run_us = min(run_us, frames.MAX_U32)
        self._replies.extend(zip(request_ids, repeat(200), repeat(0), repeat(run_us), repeat(b""), bodies))
        self._bytes += size
        if self._bytes > FLUSH_BYTES:
            self.flush()

    def stream(  # as add
        self, request_id: int, status: int, head: bytes, flags: int, run_us: int, pieces: Iterator[bytes]
    ) -> Optional[BaseException]:
        """Settle one request piece by piece, each when the front asks for it; the pieces are not empty.

        What is raised before there is a first piece is raised here, and nothing is settled. What is raised later breaks
        the reply off and is returned.
        """
        piece = next(pieces, None)
        if piece is None:
            self.add(request_id, status, b"", head, flags, run_us)
            return None
        self.flush()
        self.add(request_id, status, piece, head, flags | frames.FLAG_MORE, run_us)
        self.flush()
        try:
            while self._channel.wants_more(request_id, self._give_back):
                piece = next(pieces, None)
                if piece is None:
                    break
                self.add(request_id, status, piece, flags=frames.FLAG_MORE)
                self.flush()
        except ChannelClosedError:
            raise
        except BaseException as error:  # SystemExit of user code included
            self.add(request_id, status, b"", flags=frames.FLAG_ABORT)
            self.flush()
            return error
        self.add(request_id, status, b"")
        self.flush()
        return None

    def _give_back(self, request_id: int) -> None:
        """The front wants what comes after this request. First it leaves the list: then it cannot run here any more."""
        requests = self._requests
        begun = [one.id for one in requests].index(request_id) + 1
        rest = [one.id for one in requests[begun:]]
        del requests[begun:]
        if rest:
            self._channel.send([frames.encode_returned(rest)])

    def flush_if_due(self) -> None:
        """Write what is there if the oldest of it has waited long enough."""
        if not self._replies:
            return
        if self._replies[-1][3] > SLOW_RUN_US:
            self._hurried = HURRIED_REPLIES
        if self._hurried or perf_counter() - self._flushed >= FLUSH_AFTER_S:
            self._hurried = max(0, self._hurried - 1)
            self.flush()

    def flush(self) -> None:
        """Write what is there; the front knows by the count when the frame is settled."""
        if not self._replies or self._held:
            return
        now = perf_counter()
        busy_us = int((now - self._frame_began) * 1e6)
        replies, self._replies = self._replies, []
        # What was held may be more than any frame can hold.
        parts = [replies] if self._bytes <= FLUSH_BYTES else _in_parts(replies)
        self._bytes = 0
        for part in parts:
            self._channel.send(frames.encode_replies(part, busy_us))
        if self._kept:
            self._kept = 0
            self._progress.forget()  # type: ignore[union-attr]  # it has kept them
        self._flushed = now


def _in_parts(replies: List[_Reply]) -> Iterator[List[_Reply]]:
    """The same in frames of usual size."""
    part: List[_Reply] = []
    size = 0
    for reply in replies:
        part.append(reply)
        size += len(reply[5])
        if size > FLUSH_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


class Channel:
    """The blocking end of the stream socket to the front."""

    def __init__(self, connection: _socket.socket) -> None:
        self._socket = connection
        self._decoder = frames.Decoder()
        self._waiting: List[frames.Frame] = []

    def receive(self) -> Optional[frames.Frame]:
        """The next frame; None when the front has closed the channel."""
        while not self._waiting:
            if not self.read():
                return None
        return self._waiting.pop(0)

    def read(self) -> bool:
        """Take in what has come, or wait for the next that comes; False when the front has closed the channel."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except ConnectionError:
            return False
        self._waiting += self._decoder.feed(data)
        return bool(data)

    @property
    def has_waiting(self) -> bool:
        """Whether there are frames that were taken in and not received."""
        return bool(self._waiting)

    def take_waiting(self) -> List[frames.Frame]:
        """The frames that were taken in and not received."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def fileno(self) -> int:
        """The descriptor, to wait for it beside others."""
        return self._socket.fileno()

    def wants_more(self, request_id: int, on_recall: Callable[[int], None]) -> bool:
        """Wait until the front pulls the next piece of a reply (True) or cancels it (False).

        on_recall: what to do when it recalls the requests behind this one. Frames of other kinds keep their turn.
        """
        held: List[frames.Frame] = []
        try:
            while True:
                frame = self.receive()
                if frame is None:
                    raise ChannelClosedError
                if frame.kind not in _CONTROLS:
                    held.append(frame)
                elif frames.decode_control(frame) == request_id:
                    if frame.kind != frames.RECALL:
                        return frame.kind == frames.PULL
                    on_recall(request_id)
        finally:
            self._waiting[:0] = held

    def send(self, pieces: List[frames.Blob]) -> None:
        """Write a frame; ChannelClosedError when the front does not read any more."""
        try:
            self._send(pieces)
        except ConnectionError:
            raise ChannelClosedError from None

    def _send(self, pieces: List[frames.Blob]) -> None:
        if len(pieces) == 1:
            self._socket.sendall(pieces[0])
            return
        # Small pieces travel as one write; large ones are not copied for that.
        small: List[frames.Blob] = []
        for piece in pieces:
            if len(piece) <= 65536:
                small.append(piece)
            else:
                self._socket.sendall(b"".join(small))
                small = []
                self._socket.sendall(piece)
        if small:
            self._socket.sendall(b"".join(small))


Serve = Callable[[Channel, Any, Optional[Progress], Optional[Arena]], None]
"""As `serve`."""


def main(load: Callable[[Dict[str, Any]], Any], arguments: List[str], serve_with: Optional[Serve] = None) -> int:
    """Run a scorer: `load` turns the front's HELLO into an engine. Returns the exit code.

    serve_with: answers frames in the place of `serve`.

    arguments: the descriptors of the channel, of the progress file, of the memory with large bodies (-1 for none), and for
    a preload process that of the control socket. Such a process serves nothing itself: this goes on in each of its forks.
    """
    process.prepare()
    connection = _adopt_socket(int(arguments[0]), _socket.SOCK_STREAM)
    progress = _adopt_progress(int(arguments[1]))
    arena = _adopt_arena(int(arguments[2])) if len(arguments) > 2 else None
    control = _adopt_socket(int(arguments[3]), _socket.SOCK_SEQPACKET) if len(arguments) > 3 else None
    try:
        return _live(load, connection, progress, arena, control, serve_with or serve)
    finally:
        # The interpreter may wait for threads and exit handlers of user code: the front does not.
        try:
            connection.close()
        except OSError:
            pass  # user code was quicker


def _live(
    load: Callable[[Dict[str, Any]], Any],
    connection: _socket.socket,
    progress: Progress,
    arena: Optional[Arena],
    control: Optional[_socket.socket],
    serve_with: Serve,
) -> int:
    channel = Channel(connection)
    children.disown(channel)
    hello = channel.receive()
    if hello is None:
        return 0
    try:
        engine = load(frames.decode_json(hello))
        ready = frames.encode_json(frames.READY, engine.info)
    except LoadError as error:
        return _fail(channel, error.message, error.traceback_text)
    except BaseException as error:  # SystemExit of user code included: the front must hear why
        return _fail(channel, "%s: %s" % (type(error).__name__, error), format_exc())
    try:
        channel.send([ready])
        if control is not None:
            born = nursery.raise_scorers(control, connection)
            if born is None:
                return 0
            channel, progress = Channel(connection), born  # the other one was the preload process's
            children.disown(channel)
            engine.forked()
            channel.send([ready])
    except ChannelClosedError:
        return 0
    serve_with(channel, engine, progress, arena)
    return 0


def _fail(channel: Channel, message: str, traceback: str) -> int:
    texts = {"message": message[:MAX_TEXT_BYTES], "traceback": traceback[-MAX_TEXT_BYTES:]}
    try:
        channel.send([frames.encode_json(frames.FATAL, texts)])
    except ChannelClosedError:
        pass  # the front did not wait for it
    return EXIT_LOAD_FAILED


def serve(channel: Channel, engine: Any, progress: Optional[Progress], arena: Optional[Arena] = None) -> None:
    """Answer frames until the front closes the channel."""
    find = None if arena is None else arena.find
    # What may be run again needs neither marks nor copies of replies.
    outbox = Outbox(channel, None if engine.info.get("idempotent") else progress)
    children.disown(outbox)
    while True:
        frame = channel.receive()
        if frame is None:
            return
        if frame.kind in OUTLIVED:
            continue  # it crossed with the end of what it was about
        requests = frames.decode_requests(frame, find)
        outbox.open(requests)
        try:
            engine.score(requests, outbox)
            outbox.flush()
        except ChannelClosedError:
            return


def _adopt_socket(descriptor: int, kind: int) -> _socket.socket:
    os.set_inheritable(descriptor, False)  # the user's subprocesses must not hold the channel open
    # Python 3.6 does not find family and kind out by itself.
    return _socket.socket(_socket.AF_UNIX, kind, 0, fileno=descriptor)


def _adopt_progress(descriptor: int) -> Progress:
    progress = Progress(descriptor)
    os.close(descriptor)
    return progress


def _adopt_arena(descriptor: int) -> Optional[Arena]:
    if descriptor < 0:
        return None
    os.set_inheritable(descriptor, False)
    return Arena(descriptor)
