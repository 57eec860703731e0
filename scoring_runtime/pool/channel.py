"""The front's end of the stream socket to one scorer."""

import asyncio
from collections.abc import Callable
from typing import cast

from ..scorer import frames

JOIN_BELOW_BYTES = 262_144
"""Pieces that are smaller together are copied into one write; larger ones go as they are."""


class Channel(asyncio.Protocol):
    """Cuts what comes in into frames and hands them on; `on_closed` is called once, with the error if there was one.

    A frame that cannot be read closes the channel: whatever follows it means nothing.
    """

    def __init__(self, on_frame: Callable[[frames.Frame], None], on_closed: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._decoder = frames.Decoder()
        self._transport: asyncio.Transport | None = None
        self.closed = False  # by us
        self.fault: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._on_frame(frame)
        except frames.FrameError as error:
            self.fault = str(error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None  # uvloop raises where something is written to it now
        self._on_closed()

    def send(self, pieces: list[frames.Blob]) -> None:
        """Write a frame; to nobody when the scorer has hung up: its end is noticed soon."""
        if self._transport is None:
            return
        size = sum(map(len, pieces))
        if size < JOIN_BELOW_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    def close(self) -> None:
        """Write what is left, then close: the scorer reads the end of the stream and exits."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
