"""Log lines on their way out: in order, whole, and never waited for."""

import fcntl
import os
import re
import select
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.telemetry import sink as sinks
from scoring_runtime.telemetry.sink import CROWDED_BYTES, MAX_WAITING_BYTES, Sink, missing_notice

NOTICE = re.compile(rb".{23} W \[\d+\] scoring_runtime\.log - (\d+) lines were dropped here, because .*\n")
LINE = b"%07d " + b"x" * 991 + b"\n"


class Pipe:
    """A pipe of the least size, and what was read of it."""

    def __init__(self) -> None:
        self.source, self.target = os.pipe()
        fcntl.fcntl(self.target, fcntl.F_SETPIPE_SZ, 4096)
        self.sink = Sink(self.target)
        self.data = b""

    def read(self) -> bool:
        """What the pipe holds, at most; was there anything?"""
        if not select.select([self.source], [], [], 0)[0]:
            return False
        self.data += os.read(self.source, 65536)
        return True

    def read_all(self) -> bytes:
        """Read until nothing is left to come."""
        while self.read() or self.sink.waiting:
            self.sink.flush()
        return self.data

    def close(self) -> None:
        os.close(self.target)
        os.close(self.source)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_what_there_is_room_for_is_written_at_once(pipe: Pipe):
    pipe.sink.write(b"one\ntwo\n")
    assert pipe.read()
    assert pipe.data == b"one\ntwo\n"
    assert not pipe.sink.waiting


def test_nothing_waits_for_a_reader_and_what_was_missed_is_said_where_it_is_missing(pipe: Pipe):
    lines = [LINE % number for number in range(3 * MAX_WAITING_BYTES // 1000)]
    for line in lines:
        pipe.sink.write(line)
    dropped = pipe.sink.dropped
    assert 0 < dropped < len(lines)
    pipe.read()
    pipe.sink.write(b"too early\n")  # there is room, but not for more gaps
    assert pipe.sink.dropped == dropped + 1
    while len(pipe.data) <= CROWDED_BYTES + 100_000:
        pipe.sink.flush()
        pipe.read()
    pipe.sink.write(b"again\n")
    data = pipe.read_all()
    kept = lines[: len(lines) - dropped]
    assert data.startswith(b"".join(kept))
    notice = NOTICE.fullmatch(data[1000 * len(kept) :].removesuffix(b"again\n"))
    assert notice
    assert int(notice[1]) == dropped + 1
    pipe.sink.write(b"after\n")
    assert pipe.read_all() == data + b"after\n"


def test_lines_that_are_missing_at_the_end_are_told_too(pipe: Pipe):
    pipe.sink.write(b"x\n" * MAX_WAITING_BYTES)
    data = pipe.read_all()
    kept, _, _ = data.rpartition(b"x\n")
    notice = NOTICE.fullmatch(data.removeprefix(kept + b"x\n"))
    assert notice
    assert data.count(b"x\n") + int(notice[1]) == MAX_WAITING_BYTES
    assert int(notice[1]) == pipe.sink.dropped


def test_a_line_that_is_longer_than_a_pipe_is_not_torn(pipe: Pipe):
    long = b"y" * 20_000 + b"\n"
    pipe.sink.write(long)
    for number in range(2 * MAX_WAITING_BYTES // 1000):
        pipe.sink.write(LINE % number)
    assert pipe.read_all().startswith(long + LINE % 0 + LINE % 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.integers(1, 9000), st.none()), max_size=60))
def test_without_a_gap_everything_comes_in_order_whenever_it_is_read(steps):
    pipe = Pipe()
    try:
        written = b""
        for number, step in enumerate(steps):
            if step is None:
                pipe.read()
            else:
                lines = (b"%d " % number * step)[:step] + b"\n"
                pipe.sink.write(lines)
                written += lines
        assert pipe.read_all() == written
    finally:
        pipe.close()


def test_whole_lines_only_reach_a_pipe_that_others_write_to_as_well(pipe: Pipe):
    """Each write is as many whole lines as the pipe takes in one piece: another process's line never falls into one."""
    fcntl.fcntl(pipe.target, fcntl.F_SETPIPE_SZ, 8192)  # one part for each of the two
    for number in range(400):
        pipe.sink.write(LINE % number)
    while pipe.sink.waiting:
        pipe.read()
        os.write(pipe.target, b"another's\n")
        pipe.sink.flush()
    pipe.read_all()
    lines = pipe.data.splitlines(keepends=True)
    assert lines.count(b"another's\n") > 4
    assert [line for line in lines if line != b"another's\n"] == [LINE % number for number in range(400)]


def test_the_descriptor_stays_as_it_is_for_those_who_share_it(pipe: Pipe):
    pipe.sink.write(b"x\n" * 10_000)
    assert os.get_blocking(pipe.target)


def test_a_descriptor_that_somebody_made_non_blocking(pipe: Pipe):
    os.set_blocking(pipe.target, False)
    pipe.sink.write(LINE % 1 * 100)
    assert pipe.read_all() == LINE % 1 * 100


def test_it_is_crowded_for_a_while_only(pipe: Pipe, monkeypatch):
    pipe.sink.write(b"x" * 99 + b"\n")
    assert not pipe.sink.crowded
    while not pipe.sink.crowded:
        pipe.sink.write(LINE % 0 * 100)
    monkeypatch.setattr(sinks, "PATIENCE_S", 0.0)
    assert not pipe.sink.crowded
    monkeypatch.setattr(sinks, "PATIENCE_S", 1e9)
    assert pipe.sink.crowded
    pipe.read_all()
    assert not pipe.sink.crowded


def test_a_full_disk_loses_lines_and_says_so_when_there_is_room_again():
    full = os.open("/dev/full", os.O_WRONLY)
    pipe = Pipe()
    try:
        sink = Sink(full)
        for _ in range(5):
            sink.write(b"a\nb\n")
        sink.drain(0.01)
        assert sink.dropped == 10
        os.dup2(pipe.target, full)
        sink.write(b"c\n")
        assert sink.dropped == 10
        while pipe.read() or sink.waiting:
            sink.flush()
        notice = NOTICE.fullmatch(pipe.data.removesuffix(b"c\n"))
        assert notice
        assert notice[1] == b"10"
    finally:
        os.close(full)
        pipe.close()


@pytest.mark.parametrize("gone", ["reader", "descriptor"])
def test_a_log_that_nobody_can_read_any_more_raises_nothing(gone: str):
    source, target = os.pipe()
    os.close(source)
    if gone == "descriptor":
        os.close(target)
    sink = Sink(target)
    sink.write(b"a\n")
    sink.write(b"b\n")
    sink.drain(0.0)
    assert sink.dropped == 2
    if gone == "reader":
        os.close(target)


def test_a_file_takes_everything_at_once(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        Sink(log.fileno()).write(LINE % 7 * 50_000)
    assert (tmp_path / "log").read_bytes() == LINE % 7 * 50_000


def test_the_last_words_wait_for_a_reader_but_not_for_ever(pipe: Pipe):
    pipe.sink.write(LINE % 0 * 1000)
    began = time.monotonic()
    pipe.sink.drain(0.05)
    assert 0.05 <= time.monotonic() - began < 10
    assert pipe.sink.waiting
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            pipe.read()

    reader = threading.Thread(target=read)
    reader.start()
    pipe.sink.drain(60)
    ended.set()
    reader.join()
    assert pipe.read_all() == LINE % 0 * 1000


def test_a_process_that_is_forked_says_nothing_of_what_its_parent_has_to_say():
    source, target = os.pipe()
    fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, 4096)
    try:
        kept, sinks.STREAMS = sinks.STREAMS, (Sink(target), Sink(target))
        sinks.STREAMS[0].write(LINE % 0 * 100)
        child = os.fork()
        if child == 0:
            os._exit(sinks.STREAMS[0].waiting)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert sinks.STREAMS[0].waiting
    finally:
        sinks.STREAMS = kept
        os.close(source)
        os.close(target)


def test_the_notice_has_the_form_of_a_log_line():
    line = missing_notice(7, 1763828766.964)
    assert line.startswith(b"2025-11-22 16:26:06,964 W [%d] scoring_runtime.log - 7 lines " % os.getpid())
    assert NOTICE.fullmatch(line)
