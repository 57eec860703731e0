"""A large body on its way in: the kernel writes it to where a scorer reads it, and nothing in between holds it.

While one comes in it is the transport's protocol, in the place of its connection. Bodies whose length nobody has announced
(chunks) do not come this way.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from ..pool.arena import Arena, Block
from ..scorer.frames import LEAST_SHARED_BYTES

if TYPE_CHECKING:
    from .connection import Connection

LEAST_BYTES = LEAST_SHARED_BYTES

MAX_RECEIVE_BYTES = 1 << 16
"""Of one read. The loop reads a socket 32 times in a row at most: 2 MiB then take 0.5 to 1.5 ms, while others wait."""


def place(connection: "Connection", arena: Arena, size_bytes: int) -> "LargeBody | None":
    """A place for a body of that size; None when there is no room for it."""
    block = arena.take(size_bytes)
    return None if block is None else LargeBody(connection, block)


class LargeBody(asyncio.BufferedProtocol):
    """Receives one body for its connection."""

    __slots__ = ("_block", "_connection", "_flows", "_receiving")

    def __init__(self, connection: "Connection", block: Block) -> None:
        self._connection = connection
        self._block: Block | None = block
        self._flows = False  # there was as much to read as could be
        self._receiving = False

    def put(self, data: Any) -> int:
        """Take what has come already, behind what the parser has handed out; returns how much of it is of the body."""
        block = self._block
        assert block is not None
        pieces, self._connection.body = self._connection.body, []
        for piece in pieces:
            block.write(piece)
        count = min(len(data), block.size - block.filled_bytes)
        block.write(data[:count])
        self._advanced(block)
        return count

    def receive(self) -> None:
        """Let the rest come here."""
        self.put(b"")
        self._receiving = True
        self._hand_reading_to(self)

    def end(self) -> None:
        """The connection reads again. uvloop's transports keep the last protocol of this kind: it must keep no memory."""
        self._block = None
        self._connection.large_body = None
        if self._receiving:
            self._hand_reading_to(self._connection)

    def _hand_reading_to(self, protocol: asyncio.BaseProtocol) -> None:
        connection = self._connection
        transport = connection.transport
        if transport.is_closing():
            return
        if connection.reading:  # uvloop goes on in the old way until reading begins anew
            transport.pause_reading()
        transport.set_protocol(protocol)
        if connection.reading:
            transport.resume_reading()

    # The transport's side

    def get_buffer(self, sizehint: int) -> memoryview:
        block = self._block
        assert block is not None
        if self._flows:  # what is announced is paid for only where it comes
            block.warm(MAX_RECEIVE_BYTES)
        return block.room(MAX_RECEIVE_BYTES)

    def buffer_updated(self, nbytes: int) -> None:
        block = self._block
        if block is not None:
            self._flows = nbytes == MAX_RECEIVE_BYTES
            block.filled_bytes += nbytes
            self._advanced(block)

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def _advanced(self, block: Block) -> None:
        connection = self._connection
        if block.filled_bytes:
            connection.expects_continue = False
        connection.body_bytes = block.filled_bytes
        if block.filled_bytes == block.size:
            self.end()
            connection.large_body_complete(block)
