"""A log that is a pipe, and nobody reads it: the server goes on, and says afterwards what is missing."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

PRINTS = """
import sys

def init():
    pass

def run(data):
    for number in range(200):
        print("to stdout", "x" * 980)
        print("to stderr", "x" * 980, file=sys.stderr)
    return data
"""
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [IWE] \[\d+\] (azmlinfsrv\.print - to stdout x{980}|(?!azmlinfsrv\.print)[\w.]+ - .+)"
    r"|to stderr x{980}"
)
NOTICE = re.compile(r" W \[\d+\] scoring_runtime\.log - (\d+) lines were dropped here, ")


class Log:
    """The pipe that a server writes to, read only when it is asked for."""

    def __init__(self) -> None:
        self._source, self.target = os.pipe()
        self._data = b""
        self._reader = threading.Thread(target=self._read)

    @property
    def text(self) -> str:
        return self._data.decode()

    def start_reading(self) -> None:
        self._reader.start()

    def close(self) -> None:
        os.close(self.target)
        if self._reader.ident is not None:
            self._reader.join(60)
        os.close(self._source)

    def _read(self) -> None:
        while data := os.read(self._source, 1 << 20):
            self._data += data


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.close()


def dropped(server: Any) -> int:
    found = re.search(rb"^scoring_log_lines_dropped (\S+)$", server.get("/metrics").body, re.MULTILINE)
    assert found
    return int(float(found[1]))


def fill(server: Any) -> None:
    """Make it print until both of its streams are full, answering all the while."""
    before = now = 0
    while now - before < 400:  # what one request prints
        before = now
        began = time.monotonic()
        assert server.score(b'"x"').json == '"x"'
        assert time.monotonic() - began < 30
        for path in ("/", "/livez", "/readyz"):
            assert server.status(path) == 200
        now = dropped(server)


def test_a_log_that_nobody_reads_holds_nothing_up(script: Any, serve: Any, log: Log, wait_until: Any) -> None:
    with serve(script(PRINTS), output=log.target) as server:
        fill(server)
        before = server.front.memory_info().rss
        for _ in range(20):  # 8 MB
            assert server.score(b'"x"').json == '"x"'
        assert server.front.memory_info().rss - before < 8 << 20
        lost = dropped(server)
        log.start_reading()
        wait_until(lambda: sum(int(count) for count in NOTICE.findall(log.text)) >= lost)
        assert server.score(b'"last"').json == '"last"'
        wait_until(lambda: log.text.count("to std") and log.text.endswith("\n"))
        wait_until(lambda: len(re.findall("to std", log.text.rpartition(" lines were dropped here")[2])) >= 400)
        assert dropped(server) == sum(int(count) for count in NOTICE.findall(log.text))
    assert [line for line in log.text.splitlines() if not LINE.fullmatch(line)] == []


def test_the_end_does_not_wait_for_a_log_that_nobody_reads(script: Any, serve: Any, log: Log) -> None:
    with serve(script(PRINTS), output=log.target) as server:
        fill(server)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 30


def test_a_start_that_fails_ends_although_nobody_reads_why(script: Any, serve: Any, log: Log) -> None:
    os.set_blocking(log.target, False)
    try:
        while os.write(log.target, b"x" * 65536):
            pass
    except BlockingIOError:
        os.set_blocking(log.target, True)
    text = "def init():\n    raise OSError('no model')\ndef run(data):\n    return data\n"
    code = None
    with suppress(AssertionError), serve(script(text), ready=False, output=log.target) as server:  # that it ends well
        code = server.process.wait(60)
    assert code == 3
