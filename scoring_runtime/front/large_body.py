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

RECEIVE_BYTES = 1 << 22
"""Of one read, which is more than a socket mostly has: where it has less, the loop goes on to the other sockets at once, and
else reads it 32 times in a row. Beside bodies of 50 MB the p99 of small requests is 7 ms, with 64 KiB it is 11."""

FLOWS_BYTES = 1 << 16
"""After a read of so much, memory for as much again is asked for at once."""

HEAD_BYTES = 1 << 14
"""Of the first read behind a large body, which is often the head of another: what comes with it is copied twice."""

_head = memoryview(bytearray(HEAD_BYTES))
"""For all connections: what is read here is taken out before anything else is read."""


def place(connection: "Connection", arena: Arena, size_bytes: int) -> "LargeBody | None":
    """A place for a body of that size; None when there is no room for it."""
    block = arena.take(size_bytes)
    if block is None:
        return None
    if connection.large_reader is None:
        connection.large_reader = LargeBody(connection)
    connection.large_reader.begin(block)
    return connection.large_reader


class LargeBody(asyncio.BufferedProtocol):
    """Receives the large bodies of its connection, one after the other.

    It goes on reading behind a body: a client that sends one sends more of them, and then 602 kB take 70 us less than
    where the connection reads each head and the first 256 KiB of each body.
    """

    __slots__ = ("_block", "_connection", "_reading", "_received_bytes")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._reading = False  # in the place of its connection
        self._block: Block | None = None  # of the body that is coming in
        self._received_bytes = 0  # by the last read

    def begin(self, block: Block) -> None:
        """A body is announced."""
        self._block = block
        self._received_bytes = 0

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
        if self._block is not None and not self._reading:
            self._reading = True
            self._hand_reading_to(self)

    def end(self) -> None:
        """The connection reads again. uvloop's transports keep the last protocol of this kind: it must keep no memory."""
        self._block = None
        self._connection.large_body = None
        if self._reading:
            self._reading = False
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
        if block is None:
            return _head
        if self._received_bytes >= FLOWS_BYTES:  # what is announced is paid for only where it comes
            block.warm(self._received_bytes)
        return block.room(RECEIVE_BYTES)

    def buffer_updated(self, nbytes: int) -> None:
        block = self._block
        if block is None:
            self._connection.data_received(bytes(_head[:nbytes]))
            if self._connection.large_body is None:
                self.end()
        else:
            self._received_bytes = nbytes
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
            self._block = connection.large_body = None
            connection.large_body_complete(block)
