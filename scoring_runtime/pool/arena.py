"""Memory that the front shares with its scorers: large request bodies lie in it, and frames only say where.

It is one anonymous file, much larger than what it holds: a page of it costs memory from when something is written there
until it is given back. The kernel writes bodies straight into it (`front/large_body.py`), and a scorer reads them where
they lie (`scorer/arena.py`): nothing of them goes over a channel.

User code runs in scorers. They get a descriptor that can only be read, and the file can neither be cut (whoever reads a
map beyond its file is killed) nor grow nor, by who is not root, be opened for writing again.
"""

import contextlib
import fcntl
import logging
import mmap
import os
from pathlib import Path
from typing import Any

from ..scorer import frames
from .extents import Extents

logger = logging.getLogger("scoring_runtime.pool")

SIZE_BYTES = 16 << 30
"""Of addresses, not of memory. Where it is all taken, a body comes in on the heap and goes over the channel."""

WARM_BYTES = 64 << 20
"""The lowest part keeps its memory between bodies: a page that is there already costs 0.1 us to fill, a new one 3."""

WARM_S = 5.0
"""For so long after the last large body."""

GIVE_BACK_BYTES = 16 << 20
"""What a tick gives back, at most: 1 ms of the event loop."""

_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")

_PAGE_BYTES = mmap.PAGESIZE

_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4  # F_ADD_SEALS; F_SEAL_SEAL, F_SEAL_SHRINK and F_SEAL_GROW
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14


class Block(frames.SharedBody):
    """A part of the arena: the place of one body. It is free again when nobody refers to it any more.

    Whoever may still read it must therefore hold it. A scorer is spoken for by the tickets that it has (`in_flight`, `ahead`),
    which it keeps until its reply has come or its process is gone.
    """

    __slots__ = ("_arena", "_warm_bytes", "filled_bytes")

    def __init__(self, arena: "Arena", offset: int, size: int, warm_bytes: int) -> None:
        super().__init__(offset, size)
        self._arena = arena
        self._warm_bytes = warm_bytes
        self.filled_bytes = 0

    def write(self, data: Any) -> None:
        """Copy `data` behind what is there."""
        left = memoryview(data)
        if self.filled_bytes + len(left) <= self._warm_bytes:
            self.room(len(left))[:] = left
            self.filled_bytes += len(left)
            return
        # Through the file: a page that cannot be had is an OSError then, and not a signal that ends us.
        while left:
            count = os.pwrite(self._arena.descriptor, left, self.offset + self.filled_bytes)
            self.filled_bytes += count
            left = left[count:]

    def warm(self, more_bytes: int) -> None:
        """Get memory for what is to be written next, at most so much: for pages together it takes half as long."""
        end = min(self.filled_bytes + more_bytes, self.size)
        if end > self._warm_bytes:
            begin = self._warm_bytes - self._warm_bytes % _PAGE_BYTES
            self._arena.warm(self.offset + begin, end - begin)
            self._warm_bytes = end

    @property
    def touched_bytes(self) -> int:
        """How much of it may hold memory."""
        return max(self.filled_bytes, self._warm_bytes)

    def room(self, max_bytes: int) -> memoryview:
        """What is to be written next, at most `max_bytes`; `filled_bytes` has to be told how much was."""
        begin = self.offset + self.filled_bytes
        return self._arena.view[begin : min(begin + max_bytes, self.offset + self.size)]

    def __getitem__(self, part: slice) -> bytes:
        """A copy of a part, as of bytes."""
        begin, end, step = part.indices(self.size)
        return bytes(self._arena.view[self.offset + begin : self.offset + max(begin, end) : step])

    def __bytes__(self) -> bytes:
        return self[:]

    def __del__(self) -> None:
        self._arena.release(self)


class Arena:
    """Hands out blocks, the lowest first, and gives memory back that none of them has.

    descriptor: of the file. reader: another one, for scorers. view: all of it.
    """

    def __init__(self, descriptor: int, reader: int, mapped: mmap.mmap) -> None:
        self.descriptor = descriptor
        self.reader = reader
        self.view = memoryview(mapped)
        self._map = mapped
        self._free = Extents()
        self._free.add(0, len(mapped))
        self._touched = Extents()  # may hold memory, taken or free
        self._taken = False  # something, since the last tick
        self._quiet_since = 0.0

    def take(self, size_bytes: int) -> Block | None:
        """A block of this size; None when there is no room."""
        begin = self._free.find(_whole_pages(size_bytes))
        if begin is None:
            return None
        self._free.remove(begin, begin + _whole_pages(size_bytes))
        self._taken = True
        return Block(self, begin, size_bytes, min(size_bytes, self._touched.reach(begin) - begin))

    def release(self, block: Block) -> None:
        """Called by a block that nobody refers to any more."""
        begin = block.offset
        self._touched.add(begin, begin + _whole_pages(block.touched_bytes))
        self._free.add(begin, begin + _whole_pages(block.size))

    def warm(self, begin: int, size_bytes: int) -> None:
        """Get memory for a part of it; whole pages are, and where the kernel has no such call, nothing happens."""
        with contextlib.suppress(OSError):
            self._map.madvise(_POPULATE_WRITE, begin, size_bytes)

    @property
    def resident_bytes(self) -> int:
        """The memory that it holds."""
        return os.fstat(self.descriptor).st_blocks * 512

    def tick(self, now: float) -> None:
        """Give memory back, bit by bit. To be called a few times a second."""
        if self._taken:
            self._taken = False
            self._quiet_since = now
        keep_bytes = WARM_BYTES if now - self._quiet_since < WARM_S else 0
        left_bytes = GIVE_BACK_BYTES
        while left_bytes and (part := self._free.last_of_both(self._touched, keep_bytes)):
            begin, end = max(part[0], part[1] - left_bytes), part[1]
            self._map.madvise(mmap.MADV_REMOVE, begin, end - begin)
            self._touched.remove(begin, end)
            left_bytes -= end - begin

    def close(self) -> None:
        """Let go of the file; its memory is free when the last block is, and the last scorer."""
        os.close(self.descriptor)
        os.close(self.reader)
        with contextlib.suppress(BufferError):  # somebody has a part of it still
            self.view.release()
            self._map.close()


def create() -> Arena | None:
    """The arena of a server; None where the system has no such thing, and bodies take the way over the channel."""
    try:
        if _OVERCOMMIT.read_text().strip() == "2":
            raise OSError("a page that cannot be had would end us with SIGBUS: vm.overcommit_memory is 2")
        with contextlib.ExitStack() as on_failure:
            descriptor = os.memfd_create("scoring-runtime-bodies", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            on_failure.callback(os.close, descriptor)
            os.ftruncate(descriptor, SIZE_BYTES)
            fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
            os.fchmod(descriptor, 0o400)
            reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
            on_failure.callback(os.close, reader)
            mapped = mmap.mmap(descriptor, SIZE_BYTES)
            mapped.madvise(mmap.MADV_DONTDUMP)  # what clients send is not for core dumps
            on_failure.pop_all()
            return Arena(descriptor, reader, mapped)
    except (AttributeError, OSError, OverflowError, ValueError) as error:  # no Linux, or a sandbox, or ulimit -v
        logger.info("Large bodies go to scorers over their channels: this system shares no memory (%s).", error)
        return None


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES
