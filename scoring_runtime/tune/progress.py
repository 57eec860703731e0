"""How far a search is: a bar that renews itself on a terminal, plain lines elsewhere."""

import os
import time
from typing import TextIO

WIDTH = 24


class Progress:
    """Of one search, on one stream."""

    def __init__(self, stream: TextIO, ends_at: float) -> None:
        """`ends_at`: by the monotonic clock."""
        self._stream = stream
        self._renews = stream.isatty()
        self._ends_at = ends_at
        self._done = self._of = 0
        self._what = ""

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def step(self, number: int, of: int, what: str) -> None:
        """The next measurement begins."""
        self._done, self._of, self._what = number - 1, of, what
        if self._renews:
            self.detail("starts")
        else:
            self.say(f"[{number}/{of}, {self._left()} left] {what}")

    def detail(self, text: str) -> None:
        """What the measurement has come to; shown on a terminal only."""
        if self._renews:
            line = f"{bar(self._done, self._of)} {self._done + 1}/{self._of}, {self._left()} left  {self._what}: {text}"
            self._clear()
            self._stream.write(line[: _columns(self._stream) - 1])
            self._stream.flush()

    def end(self) -> None:
        """No more bar."""
        self._clear()

    def _clear(self) -> None:
        if self._renews:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def _left(self) -> str:
        return f"{max(0.0, self._ends_at - time.monotonic()):.0f} s"


def bar(done: int, of: int) -> str:
    """`[#####-------]`."""
    filled = WIDTH * done // of if of else 0
    return f"[{'#' * filled}{'-' * (WIDTH - filled)}]"


def _columns(stream: TextIO) -> int:
    try:
        return max(20, os.get_terminal_size(stream.fileno()).columns)
    except OSError:
        return 80
