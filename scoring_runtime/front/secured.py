"""A connection over TLS.

uvloop's TLS transport encrypts whatever it is given at once, and hands it to the socket's transport, whose backlog it
does not count and does not tell of. So a large answer is handed over in slices: behind the first, what waits is counted,
and what is not is a few slices at most.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from .connection import Connection
from .phases import NEVER

SLICE_BYTES = 1 << 16


class SlicedTransport:
    """A TLS transport that takes no more than the client reads; as much of `asyncio.Transport` as a connection uses."""

    __slots__ = (
        "_closing",
        "_left",
        "_left_bytes",
        "_secured",
        "pause_reading",
        "paused",
        "resume_reading",
        "set_protocol",
    )

    def __init__(self, secured: asyncio.Transport) -> None:
        self._secured = secured
        self._left: list[memoryview] = []  # not handed over yet, last first
        self._left_bytes = 0
        self._closing = False  # after what is left
        self.paused = False
        secured.set_write_buffer_limits(SLICE_BYTES)
        self.pause_reading = secured.pause_reading
        self.resume_reading = secured.resume_reading
        self.set_protocol = secured.set_protocol

    def write(self, data: Any) -> None:
        """Bytes for the client."""
        if not self._left and len(data) <= SLICE_BYTES:
            self._secured.write(data)
        else:
            self.writelines((data,))

    def writelines(self, pieces: Iterable[Any]) -> None:
        """Bytes for the client, in pieces."""
        if self._closing:
            return
        slices = []
        for piece in pieces:
            view = memoryview(piece).cast("B")
            self._left_bytes += len(view)
            slices += [view[begin : begin + SLICE_BYTES] for begin in range(0, len(view), SLICE_BYTES)]
        self._left = slices[::-1] + self._left
        self.hand_over()

    def hand_over(self) -> bool:
        """As many slices as the transport takes; True when none is left."""
        while self._left and not self.paused and not self._secured.is_closing():
            data = self._left.pop()
            self._left_bytes -= len(data)
            self._secured.write(data)
        if self._closing and not self._left:
            self._secured.close()
        return not self._left

    def close(self) -> None:
        """Close when all is written; nothing more is read."""
        if self._left and not self._secured.is_closing():
            self._closing = True
            self._secured.pause_reading()
        else:
            self._secured.close()

    def abort(self) -> None:
        """Close now."""
        self._left.clear()
        self._left_bytes = 0
        self._secured.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be when all is written."""
        return self._closing or self._secured.is_closing()

    def can_write_eof(self) -> bool:
        """No: TLS ends in both directions."""
        return False

    def get_write_buffer_size(self) -> int:
        """Bytes that wait, as far as is known."""
        return self._left_bytes + self._secured.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        """What the transport knows."""
        return self._secured.get_extra_info(name)


class SecuredConnection(Connection):
    """A connection whose transport takes slices."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, SlicedTransport(cast(asyncio.Transport, transport))))

    def pause_writing(self) -> None:
        cast(SlicedTransport, self.transport).paused = True
        if self.write_stalled_at == NEVER:  # between two slices the answer's time goes on
            super().pause_writing()

    def resume_writing(self) -> None:
        transport = cast(SlicedTransport, self.transport)
        transport.paused = False
        if transport.hand_over() and not transport.paused:
            super().resume_writing()
