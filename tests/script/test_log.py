import logging
import os

from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.scorer.script.log import AMLLogFormatter, RootAccessFilter, cut_at_line_ends


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"") + b"\n")), st.integers(1, 30))
def test_lines_are_cut_only_at_their_ends(lines: list[bytes], limit: int) -> None:
    chunks = list(cut_at_line_ends(b"".join(lines), limit))

    assert b"".join(chunks) == b"".join(lines)
    for chunk in chunks:
        assert chunk.endswith(b"\n")
        assert len(chunk) <= limit or chunk.count(b"\n") == 1


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("azmlinfsrv.print", level, __file__, 1, message, (), None)
    made.created, made.msecs = 1700000000.5, 500.0
    return made


def test_line_format() -> None:
    line = AMLLogFormatter().format(record("hello", logging.WARNING))

    assert line == f"2023-11-14 22:13:20,500 W [{os.getpid()}] azmlinfsrv.print - hello"


def test_a_users_own_format_counts() -> None:
    assert AMLLogFormatter("%(message)s!").format(record("hello")) == "hello!"


def test_probes_are_filtered() -> None:
    keep = RootAccessFilter().filter

    assert keep(record('1.1.1.1 "POST /score HTTP/1.1" 200'))
    assert not keep(record('1.1.1.1 "GET / HTTP/1.1" 200'))
