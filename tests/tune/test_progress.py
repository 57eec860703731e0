"""The bar on a terminal, and lines elsewhere."""

import io
import time

from scoring_runtime.tune.progress import Progress, bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_each_step_is_a_line():
    stream = io.StringIO()
    progress = Progress(stream, time.monotonic() + 60)
    progress.say("hello")
    progress.step(3, 14, "cpu")
    progress.detail("half way")
    progress.end()

    first, second = stream.getvalue().splitlines()
    assert first == "hello"
    assert second in ("[3/14, 60 s left] cpu", "[3/14, 59 s left] cpu")


def test_on_a_terminal_one_line_is_renewed():
    stream = Terminal()
    progress = Progress(stream, time.monotonic() + 60)
    progress.step(8, 14, "cpu")
    progress.detail("4 clients: 1,000/s")
    progress.end()

    assert "\n" not in stream.getvalue()
    shown = stream.getvalue().split("\r\x1b[2K")
    assert shown[1].startswith(f"{bar(7, 14)} 8/14, ")
    assert "4 clients" in shown[2]
    assert all(len(line) < 80 for line in shown)
    assert shown[-1] == ""


def test_the_bar_fills():
    assert bar(0, 10) == "[" + "-" * 24 + "]"
    assert bar(5, 10) == "[" + "#" * 12 + "-" * 12 + "]"
    assert bar(10, 10) == "[" + "#" * 24 + "]"
    assert bar(0, 0) == "[" + "-" * 24 + "]"
