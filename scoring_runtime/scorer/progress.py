"""Which request a scorer began last, in eight shared bytes that outlive it.

When a scorer dies, the front must know which requests of its frame may have run: those are answered with an error, the
others go to another scorer. Both map the same unlinked file; a mark costs about 0.1 microseconds and no system call.
"""

import mmap
import os
import struct
import tempfile

_ID = struct.Struct("<Q")


def create_shared_file() -> int:
    """A descriptor of an anonymous file of one id, to be inherited by the scorer. Linux: memfd; elsewhere: unlinked."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("scoring-runtime-progress", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(descriptor, _ID.size)
    return descriptor


class Progress:
    """The shared id. The scorer marks, the front reads. Id 0 means: nothing begun."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, _ID.size)

    def mark(self, request_id: int) -> None:
        """Say that `request_id` begins now."""
        _ID.pack_into(self._map, 0, request_id)

    def read(self) -> int:
        """The id that was marked last."""
        return int(_ID.unpack_from(self._map, 0)[0])

    def close(self) -> None:
        """Unmap."""
        self._map.close()
