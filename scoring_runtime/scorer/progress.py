"""What outlives a scorer: which request it began last, and the replies that it had not sent yet.

When a scorer dies, the front must know which requests of its frame may have run: those are answered with an error, the
others go to another scorer. The scorer maps an unlinked file; a mark costs about 0.1 microseconds and no system call.

Replies wait in a scorer for company. So that a request that takes the scorer down does not take their answers along, they
are copied here before it begins, at 0.7 us each, and forgotten when they have been sent. A request that travels alone, or
behind which nothing waits to be sent, pays nothing.

A process can be killed between any two instructions, so each field of the head is stored whole, by itself, in the byte
order of the machine: Struct.pack_into would write zeros first, and zero means that nothing has begun.

    offset 0           8              12
           +-----------+--------------+---------------------------------------------------------+
           | begun u64 | kept bytes   | id u64, status u16, flags u16, run_us u32,              |
           |           | u32          | head bytes u32, body bytes u32, head, body; and so on   |
           +-----------+--------------+---------------------------------------------------------+
"""

import io
import os
import sys
import tempfile
from mmap import mmap
from struct import Struct
from typing import List, Tuple, Union

_Blob = Union[bytes, bytearray, memoryview]

_HEAD = Struct("=QI")
_ENTRY = Struct("<QHHIII")
_ENTRIES_AT = _HEAD.size
_ID_BYTES = 8
FILE_BYTES = 65536
MAX_ID = (1 << 64) - 1


def create_shared_file() -> int:
    """A descriptor of an anonymous file, to be inherited by the scorer. Linux: memfd; elsewhere: unlinked."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("scoring-runtime-progress", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(descriptor, FILE_BYTES)
    return descriptor


class Progress:
    """The scorer's side of the shared file. Id 0 means: nothing begun."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap(descriptor, FILE_BYTES)
        head = memoryview(self._map)[:_ENTRIES_AT]
        self._begun_at, self._kept_at = head[:_ID_BYTES].cast("Q"), head[_ID_BYTES:].cast("I")
        self._end = _ENTRIES_AT

    def mark(self, request_id: int) -> None:
        """Say that `request_id` begins now, and that what was kept before counts."""
        # In this order: who ends in between has answered the request before, and its reply is found.
        self._kept_at[0] = self._end - _ENTRIES_AT
        self._begun_at[0] = request_id

    def keep(self, request_id: int, status: int, flags: int, run_us: int, head: bytes, body: _Blob) -> bool:
        """Copy a reply that is not sent yet; it counts from the next mark on. False when there is no room for it."""
        at = self._end
        end = at + _ENTRY.size + len(head) + len(body)
        if end > FILE_BYTES:
            return False
        self._map[at:end] = _ENTRY.pack(request_id, status, flags, run_us, len(head), len(body)) + head + body
        self._end = end
        return True

    def forget(self) -> None:
        """What was kept has been sent."""
        self._end = _ENTRIES_AT
        self._kept_at[0] = 0


class ProgressReader:
    """The front's side. It does not map the file: user code may cut it, and who reads a map beyond its file is killed."""

    def __init__(self, descriptor: int) -> None:
        self._file = io.FileIO(os.dup(descriptor))

    def read(self) -> int:
        """The id that was marked last; where it cannot be told, an id above all others."""
        data = os.pread(self._file.fileno(), _HEAD.size, 0)
        return int(_HEAD.unpack(data)[0]) if len(data) == _HEAD.size else MAX_ID

    def kept_behind(self, request_id: int) -> List[Tuple[int, int, int, int, bytes, bytes]]:
        """The replies that wait behind a run that goes on, as `kept`; nothing when `request_id` is not what runs.

        The scorer writes meanwhile. It adds replies only before it marks another id, and takes the count back before it
        writes over old ones: what is read between two equal heads is whole.
        """
        head = os.pread(self._file.fileno(), _HEAD.size, 0)
        if head[:_ID_BYTES] != request_id.to_bytes(_ID_BYTES, sys.byteorder) or not any(head[_ID_BYTES:]):
            return []
        replies = self.kept()
        return replies if os.pread(self._file.fileno(), _HEAD.size, 0) == head else []

    def kept(self) -> List[Tuple[int, int, int, int, bytes, bytes]]:
        """The replies, as frames.Reply; ValueError when it is nonsense: user code may have written there."""
        data = os.pread(self._file.fileno(), FILE_BYTES, 0)
        if len(data) != FILE_BYTES:
            raise ValueError("the file was cut")
        replies: List[Tuple[int, int, int, int, bytes, bytes]] = []
        at = _ENTRIES_AT
        end = at + int(_HEAD.unpack_from(data)[1])
        while at < end <= FILE_BYTES:
            if at + _ENTRY.size > end:
                raise ValueError("a kept reply breaks off")
            request_id, status, flags, run_us, head_bytes, body_bytes = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            head, body = data[at : at + head_bytes], data[at + head_bytes : at + head_bytes + body_bytes]
            at += head_bytes + body_bytes
            replies.append((request_id, status, flags, run_us, head, body))
        if at != end:
            raise ValueError("the kept replies do not fill their room")
        return replies

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
