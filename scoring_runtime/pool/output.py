"""What a scorer prints, on its way to the container's log: in whole lines, whoever else prints at the same time."""

import asyncio
import contextlib
import os
from collections.abc import Callable

READ_BYTES = 65536
MAX_LINE_BYTES = 1 << 20
"""A line that is longer is passed on in parts."""


class LineCutter:
    """Cuts a stream of bytes into whole lines. Pure."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The whole lines that `data` completes, as one piece."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) > MAX_LINE_BYTES:
            end = len(data)
        self._rest = data[end:]
        return data[:end]

    def finish(self) -> bytes:
        """What is left of a last line, ended."""
        rest, self._rest = self._rest, b""
        return rest + b"\n" if rest else b""


class OutputPipe:
    """Copies one pipe of a scorer to a descriptor of ours, from the event loop. `tap` sees the whole lines, too."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: int, target: int, tap: Callable[[bytes], None] | None = None
    ) -> None:
        self._loop = loop
        self._source = source
        self._target = target
        self._tap = tap
        self._cutter = LineCutter()
        self._open = True
        os.set_blocking(source, False)
        loop.add_reader(source, self._on_readable)

    def close(self) -> None:
        """Copy what is still there, and let go; more may be written to the other end by processes that outlive it."""
        if self._open:
            for _ in range(64):  # 4 MiB: what a full pipe holds is far less
                if not self._copy():
                    break
        if self._open:
            self._close()

    def _on_readable(self) -> None:
        self._copy()

    def _copy(self) -> bool:
        """Copy one piece; False when there is none now."""
        try:
            data = os.read(self._source, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        self._write(self._cutter.feed(data))
        return True

    def _close(self) -> None:
        self._open = False
        self._loop.remove_reader(self._source)
        os.close(self._source)
        self._write(self._cutter.finish())

    def _write(self, data: bytes) -> None:
        if self._tap is not None:
            self._tap(data)
        # A log that nobody reads any more, or a full disk, must not take the server down.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._target, data) :]
