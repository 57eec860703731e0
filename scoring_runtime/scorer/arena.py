"""The memory that the front shares with scorers (`pool/arena.py`), seen from a scorer: it can only be read.

The lowest part is mapped once and for all: nearly all bodies lie there. What lies above is mapped for as long as somebody
has it. To map all of it would take addresses that user code may have limited (RLIMIT_AS), and memory that is not ours would
count as ours.
"""

import os
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap

from .frames import FrameError

MAPPED_BYTES = 64 << 20


class Arena:
    """Finds bodies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        mapped_bytes = min(MAPPED_BYTES, self._size)
        self._lowest = memoryview(mmap(descriptor, mapped_bytes, access=ACCESS_READ))

    def find(self, offset: int, size: int) -> memoryview:
        """The body of `size` bytes at `offset`, where it lies; FrameError when there can be none.

        It is there until the request has its reply: whoever needs it for longer takes a copy.
        """
        end = offset + size
        if end > self._size:
            raise FrameError("a body of %d bytes at %d lies outside of the arena's %d" % (size, offset, self._size))
        if end <= len(self._lowest):
            return self._lowest[offset:end]
        if not size:
            return memoryview(b"")
        begin = offset - offset % ALLOCATIONGRANULARITY
        mapped = mmap(self._descriptor, end - begin, access=ACCESS_READ, offset=begin)
        return memoryview(mapped)[offset - begin :]  # the last view of it takes it along
