"""What a scorer prints, on its way to the container's log: in whole lines, whoever else prints at the same time."""

import asyncio
import os
from collections.abc import Callable

from ..telemetry.sink import Sink

READ_BYTES = 65536
MAX_LINE_BYTES = 1 << 20
"""A line that is longer is passed on in parts."""
LOOK_AGAIN_S = 0.01


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
    """Copies one pipe of a scorer to a sink, from the event loop. `tap` sees the whole lines, too.

    While the sink is crowded nothing is read, and a scorer that prints on has to wait. That ends soon, whether the log is
    read or not: then the sink drops what is too much, and run() goes on.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: int, sink: Sink, tap: Callable[[bytes], None] | None = None
    ) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
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
        if self._open and self._sink.crowded:
            self._loop.remove_reader(self._source)
            self._loop.call_later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        if not self._open:
            return
        self._sink.flush()
        if self._sink.crowded:
            self._loop.call_later(LOOK_AGAIN_S, self._look_again)
        else:
            self._loop.add_reader(self._source, self._on_readable)

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
        if data:
            self._sink.write(data)
