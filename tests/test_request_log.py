"""The lines that requests leave in the log, and the lines that scorers print: whole, whoever else prints."""

import asyncio
import itertools
import os
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.pool.output import MAX_LINE_BYTES, LineCutter, OutputPipe
from scoring_runtime.telemetry.requests import RequestLog, describe
from scoring_runtime.telemetry.sink import Sink


def logged(write: Callable[[RequestLog], None], at: float = 1763828766.964) -> list[str]:
    source, target = os.pipe()
    scheduled: list[Callable[[], None]] = []
    log = RequestLog(scheduled.append, Sink(target), lambda: at)
    write(log)
    for flush in scheduled:
        flush()
    os.close(target)
    with os.fdopen(source) as lines:
        return lines.read().splitlines()


def test_the_lines_of_a_request() -> None:
    def write(log: RequestLog) -> None:
        score = describe(b"POST", b"/score", False, b"", b"curl/7.88.1")
        log.scored(score, 200, 0.000625, 10)
        log.scored(score, 200, 1.0, None)
        log.answered(score, b"127.0.0.1", 200, 10)
        log.scored_and_answered(score, b"127.0.0.1", 200, 0.000625, 10)
        log.answered(describe(b"GET", b"/", False, b"", b"probe"), b"127.0.0.1", 200, 7)

    pid = os.getpid()
    access = '127.0.0.1 - - [22/Nov/2025:16:26:06 +0000] "POST /score HTTP/1.1" 200 10 "-" "curl/7.88.1"'
    assert logged(write) == [
        f"2025-11-22 16:26:06,964 I [{pid}] azmlinfsrv - POST /score 200 0.625ms 10",
        f"2025-11-22 16:26:06,964 I [{pid}] azmlinfsrv - POST /score 200 1000.000ms N/A",
        f"2025-11-22 16:26:06,964 I [{pid}] gunicorn.access - {access}",
        f"2025-11-22 16:26:06,964 I [{pid}] azmlinfsrv - POST /score 200 0.625ms 10",
        f"2025-11-22 16:26:06,964 I [{pid}] gunicorn.access - {access}",
    ]


def test_a_header_cannot_end_its_quotes() -> None:
    (line,) = logged(lambda log: log.answered(describe(b"GET", b"/x", True, b'a"b', b"c\\"), b"::1", 404, 3))
    assert line.endswith('"GET /x HTTP/1.0" 404 3 "a\\"b" "c\\\\"')


def test_no_target_or_header_breaks_the_access_line() -> None:
    text = describe(b"GET", b'/x?a"b', True, b"caf\xe9", b"\x9b31m\xff")
    (line,) = logged(lambda log: log.answered(text, b"::1", 404, 3))
    assert line.endswith('"GET /x?a\\"b HTTP/1.0" 404 3 "caf\\xe9" "\\x9b31m\\xff"')


def test_the_time_of_a_line_is_its_own() -> None:
    moments = iter([1763828766.9994, 1763828766.9996, 1763828767.0001, 1763828767.0001])
    source, target = os.pipe()
    log = RequestLog(lambda _: None, Sink(target), lambda: next(moments))
    log.warned(b"a")
    log.warned(b"b")
    log.answered(describe(b"GET", b"/x", False, b"", b""), b"::1", 200, 3)
    log.flush()
    os.close(target)
    with os.fdopen(source) as lines:
        text = lines.read().splitlines()
    assert [line[11:23] for line in text] == ["16:26:06,999", "16:26:06,999", "16:26:07,000"]
    assert "[22/Nov/2025:16:26:07 +0000]" in text[2]


def test_lines_of_one_turn_are_one_write() -> None:
    scheduled: list[Callable[[], None]] = []
    log = RequestLog(scheduled.append, clock=lambda: 0.0)
    for _ in range(3):
        log.warned(b"x")
    assert len(scheduled) == 1


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 400)))
def test_a_cutter_gives_whole_lines_however_the_stream_is_split(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines) + b"rest"
    cutter = LineCutter()
    out = []
    marks = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(marks):
        piece = cutter.feed(stream[start:end])
        assert piece == b"" or piece.endswith(b"\n")
        out.append(piece)
    out.append(cutter.finish())
    assert b"".join(out) == stream + b"\n"


def test_a_line_without_an_end_is_passed_on_in_parts() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"x" * MAX_LINE_BYTES) == b""
    assert len(cutter.feed(b"x")) == MAX_LINE_BYTES + 1


def test_a_full_disk_under_the_log_raises_nothing() -> None:
    """It once left a scorer's place empty for ever: the error came out while the scorer's end was being dealt with."""

    async def write(full: int) -> None:
        loop = asyncio.get_running_loop()
        source, writer = os.pipe()
        pipe = OutputPipe(loop, source, Sink(full))
        os.write(writer, b"one\ntwo")
        os.close(writer)
        pipe.close()
        log = RequestLog(loop.call_soon, Sink(full))
        log.warned(b"x")
        log.flush()

    full = os.open("/dev/full", os.O_WRONLY)
    try:
        asyncio.run(write(full))
    finally:
        os.close(full)


def test_what_a_dead_writer_left_in_its_pipe_is_copied() -> None:
    async def copy() -> bytes:
        source, writer = os.pipe()
        reader, target = os.pipe()
        pipe = OutputPipe(asyncio.get_running_loop(), source, Sink(target))
        os.write(writer, b"one\ntwo")
        pipe.close()
        pipe.close()
        os.close(writer)
        os.close(target)
        with os.fdopen(reader, "rb") as copied:
            return copied.read()

    assert asyncio.run(copy()) == b"one\ntwo\n"
