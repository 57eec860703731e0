"""How a process fares, as Linux shows it: whether it is stopped, and how much memory it holds.

Elsewhere there is nothing to read, and nothing is found.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

STOPPED_S = 1.0
"""A process that is stopped this long (SIGSTOP, a terminal) will not go on by itself in time for anybody."""

DESCENT_EVERY_S = 1.0
"""What a process has started is looked for thread by thread: 0.7 ms where there are 64."""

MAX_DESCENDANTS = 1000

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Vitals(NamedTuple):
    """What /proc/PID/stat says."""

    stopped: bool
    """By a signal. A debugger's stop is another state, and is left alone."""
    resident_bytes: int


def parse(stat: bytes) -> Vitals:
    """From the text of /proc/PID/stat. The name of the program, in brackets, may hold anything."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Vitals(fields[0] == b"T", int(fields[21]) * _PAGE_BYTES)


def read(pid: int) -> Vitals | None:
    """None where it cannot be read: the process is gone, or this is no Linux. 10 us."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        return parse(os.read(descriptor, 4096))
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)


def read_shared(pid: int) -> int:
    """The resident bytes that are shared memory; 0 where it cannot be read. 30 us."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"RssShmem:"):
                return int(line.split()[1]) << 10
    return 0


def descendants(pid: int) -> Iterator[int]:
    """What `pid` has started, and what that has, a thousand at most. A process whose parent has ended is not found."""
    parents = [pid]
    for parent in parents:  # grows on the way
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                with contextlib.suppress(OSError):
                    parents += map(int, (thread / "children").read_bytes().split())
        if len(parents) > MAX_DESCENDANTS:
            break
    yield from parents[1:]


class Watch:
    """Looks at one process again and again, and at what it has started once a second.

    max_memory_bytes: 0 for any size. arena_bytes: says how much memory the arena holds; what of it the process has mapped
    is not its own.
    """

    def __init__(self, pid: int, max_memory_bytes: int, arena_bytes: Callable[[], int] = int) -> None:
        self.stopped_s = 0.0
        """How long it has been seen to be stopped, without a break."""
        self.excess_bytes = 0
        """What it, or the largest of what it has started, holds, if that is above the limit; else 0."""
        self._pid = pid
        self._max_memory_bytes = max_memory_bytes
        self._arena_bytes = arena_bytes
        self._stopped_at = 0.0
        self._next_descent_s = 0.0

    def look(self, now: float) -> None:
        """Find out. `now` in seconds of a monotonic clock."""
        vitals = read(self._pid) or _NONE
        self._stopped_at = (self._stopped_at or now) if vitals.stopped else 0.0
        self.stopped_s = now - self._stopped_at if vitals.stopped else 0.0
        if self._max_memory_bytes:
            pids = [self._pid]
            if now >= self._next_descent_s:
                self._next_descent_s = now + DESCENT_EVERY_S
                pids += descendants(self._pid)
            self.excess_bytes = self._largest_excess(pids)

    def _largest_excess(self, pids: Iterable[int]) -> int:
        """What the largest of these processes holds, if above the limit. Not the sum: what they share would count for each."""
        largest_bytes = 0
        for pid in pids:
            vitals = read(pid) or _NONE
            own_bytes = vitals.resident_bytes
            if own_bytes > self._max_memory_bytes:
                own_bytes -= min(read_shared(pid), self._arena_bytes())
            if own_bytes > self._max_memory_bytes:
                largest_bytes = max(largest_bytes, own_bytes)
        return largest_bytes


_NONE = Vitals(False, 0)
