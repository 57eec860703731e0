"""Where log lines leave the process: whole, in order, and without ever waiting for whoever reads them.

A pipe whose reader has stopped takes 64 KiB and then blocks the writer. So before each write the kernel is asked whether
there is room; what finds none waits here, up to a bound, and what is more is dropped by whole lines and counted. Where
lines are missing, one line says how many, as soon as the log flows again.

Descriptors 1 and 2 are shared with other processes: O_NONBLOCK would be theirs as well, so it is not set. A pipe that has
room takes at least PIPE_BUF bytes, all or none of them: a write is as many whole lines as fit into that. One that is
empty takes all that it can hold.
"""

import contextlib
import fcntl
import os
import select
import stat
import termios
import threading
import time
from collections import deque

MAX_WAITING_BYTES = 1 << 20
"""Kept of each stream while nobody reads it."""

CROWDED_BYTES = MAX_WAITING_BYTES // 2

PATIENCE_S = 1.0
"""So long, once, whoever can wait with writing is asked to: for a reader that is slow but there, nothing is lost."""

LAST_WORDS_S = 2.0
"""So long a process that ends waits for what it has said to be read."""

_lock = threading.RLock()
"""One for all: between the question for room and the write, no other thread may take the room."""


class Sink:
    """One descriptor that log lines go to. For any thread; no method but `drain` waits."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0  # lines, since the process began
        self._descriptor = descriptor
        self._poll = None if _is_file(descriptor) else select.poll()
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLOUT)
        self._capacity_bytes = _pipe_capacity_bytes(descriptor)
        self.forget()

    def forget(self) -> None:
        """Drop what waits: it is another process's."""
        self._waiting: deque[tuple[int, bytes]] = deque()  # lines, and how many were dropped before them
        self._waiting_bytes = 0
        self._missing = 0  # lines that were dropped behind what waits
        self._crowded_since: float | None = None
        self._busy = False

    @property
    def waiting(self) -> bool:
        """Is there something that `flush` would try to write?"""
        return bool(self._waiting) or self._missing > 0

    @property
    def crowded(self) -> bool:
        """So much waits that it would be better to write no more for a while; True for PATIENCE_S at most."""
        since = self._crowded_since
        return since is not None and time.monotonic() - since < PATIENCE_S

    def write(self, lines: bytes) -> None:
        """Write whole lines, now if there is room, else later. The question for room costs 0.7 us."""
        with _lock:
            if self._waiting or self._missing:
                self.flush()
            written = 0
            if not (self._waiting or self._missing or self._busy):
                try:
                    written = self._put(lines)
                except OSError:  # nobody can read it any more, or the disk is full
                    self._drop(lines)
                    return
            if written < len(lines):
                self._keep(lines, written)

    def flush(self) -> None:
        """Write of what waits as much as there is room for."""
        if not self.waiting or self._busy:
            return
        with _lock:
            try:
                self._flush()
            except OSError:  # as above
                for missing, lines in self._waiting:
                    self._missing += missing
                    self._drop(lines)
                self._waiting.clear()
                self._waiting_bytes = 0
            if self._waiting_bytes <= CROWDED_BYTES:
                self._crowded_since = None

    def drain(self, timeout_s: float) -> None:
        """Write what waits; returns when that is done, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        self.flush()
        while self._waiting and self._poll is not None and (left_s := deadline - time.monotonic()) > 0:
            self._poll.poll(left_s * 1000)
            self.flush()

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting:
            missing, lines = waiting[0]
            if missing:
                notice = missing_notice(missing, time.time())
                written = self._put(notice)
                if not written:
                    return
                lines = notice[written:] + lines
                self._waiting_bytes += len(notice) - written
                waiting[0] = (0, lines)
            written = self._put(lines)
            self._waiting_bytes -= written
            if written < len(lines):
                waiting[0] = (0, lines[written:])
                return
            waiting.popleft()
        if self._missing:
            missing, self._missing = self._missing, 0
            waiting.append((missing, b""))
            self._flush()

    def _put(self, lines: bytes) -> int:
        """Write while there is room; how many bytes have gone."""
        poll = self._poll
        size = len(lines)
        start = 0
        self._busy = True
        try:
            while start < size:
                end = size
                if poll is not None:
                    if not poll.poll(0):
                        break
                    if size - start > select.PIPE_BUF:
                        room = self._capacity_bytes if self._is_empty() else select.PIPE_BUF
                        if size - start > room:
                            end = lines.rfind(b"\n", start, start + room) + 1 or start + room
                start += os.write(self._descriptor, lines[start:end])
        except BlockingIOError:
            pass  # somebody else has made it non-blocking, and it is full
        finally:
            self._busy = False
        return start

    def _is_empty(self) -> bool:
        """Is it a pipe whose reader has read everything? A write for each PIPE_BUF bytes would wake it as often."""
        return self._capacity_bytes > 0 and fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0") == b"\0\0\0\0"

    def _keep(self, lines: bytes, written: int) -> None:
        """Let what is not written wait, as far as there is room for whole lines; a line that was begun is ended."""
        begun = written > 0 and lines[written - 1 : written] != b"\n"
        lines = lines[written:]
        room = MAX_WAITING_BYTES - self._waiting_bytes
        if self._missing and self._waiting_bytes > CROWDED_BYTES:
            room = 0  # one gap rather than many
        end = len(lines) if len(lines) <= room else lines.rfind(b"\n", 0, max(room, 0)) + 1
        if begun:
            end = max(end, lines.find(b"\n") + 1)
        if end:
            self._waiting.append((self._missing, lines[:end]))
            self._missing = 0
            self._waiting_bytes += end
            if self._crowded_since is None and self._waiting_bytes > CROWDED_BYTES:
                self._crowded_since = time.monotonic()
        if end < len(lines):
            self._drop(lines[end:])

    def _drop(self, lines: bytes) -> None:
        count = lines.count(b"\n") + (lines[-1:] not in (b"\n", b""))
        self._missing += count
        self.dropped += count


def missing_notice(count: int, now: float) -> bytes:
    """The line that stands in the place of so many."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    return (
        f"{when},{int(now * 1000) % 1000:03d} W [{os.getpid()}] scoring_runtime.log - {count} lines were dropped here, "
        "because nobody read the log or it could not be written.\n"
    ).encode()


def _pipe_capacity_bytes(descriptor: int) -> int:
    """What a pipe holds; 0 for what is no pipe, or where the system does not say."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
    except (AttributeError, OSError):
        return 0


def _is_file(descriptor: int) -> bool:
    with contextlib.suppress(OSError):  # there is none: each write will say so
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    return False


STDOUT, STDERR = STREAMS = (Sink(1), Sink(2))
"""Those of this process."""


def drain(timeout_s: float) -> None:
    """Write what waits for either of them; returns after `timeout_s` at the latest."""
    deadline = time.monotonic() + timeout_s
    for sink in STREAMS:
        sink.drain(deadline - time.monotonic())


def _begin_anew() -> None:
    global _lock
    _lock = threading.RLock()  # it may have been held by a thread that is not in this process
    for sink in STREAMS:
        sink.forget()


os.register_at_fork(after_in_child=_begin_anew)
