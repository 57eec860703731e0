"""The pure parts of benchmarks/reliability: how an answer is judged, and when a server has recovered."""

import runpy
from pathlib import Path
from typing import Any

import pytest

LOAD = runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "reliability" / "load.py"))
judge, recovery_s, Reply, BIN_S = LOAD["judge"], LOAD["recovery_s"], LOAD["Reply"], LOAD["BIN_S"]


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"number": 7, "twice": 14}', "right"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"outputs": {"number": [[7]], "twice": [[14]]}}', "right"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"number": 8, "twice": 16}', "wrong"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"outputs": {"number": [[7], [8]], "twice": [[14], [16]]}}', "wrong"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "wrong"),
        (b"HTTP/1.1 200 OK\r\n\r\nno JSON", "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "lost"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", "error"),
        (b"HTTP/1.1 200 OK\r\n", "lost"),
        (b"", "lost"),
    ],
)
def test_an_answer_is_judged_by_the_number_of_its_request(data, outcome):
    assert judge(7, data)[0] == outcome


def replies(answered: Any, rate: int = 100, until: float = 5.0) -> Any:
    """A reply to every request from 0 s on; `answered` says when and how the one sent at t is settled."""
    sent = [index / rate for index in range(int(until * rate))]
    return [Reply(index, at, *answered(at)) for index, at in enumerate(sent)]


def test_a_server_that_answers_all_along_has_nothing_to_recover_from():
    assert recovery_s(replies(lambda at: (at + 0.01, "right")), 0.0, 5.0) == 0.0


def test_single_errors_do_not_break_the_rate():
    few = replies(lambda at: (at + 0.01, "error" if at == 1.0 else "right"))
    assert recovery_s(few, 0.0, 5.0) == 0.0


def test_answers_that_come_late_count_when_they_come():
    late = replies(lambda at: (max(at, 1.9) + 0.01, "right"))
    assert recovery_s(late, 0.0, 5.0) == pytest.approx(1.5)  # the bin of 1.9 s has the whole backlog
    assert recovery_s(replies(lambda at: (max(at, 2.1) + 0.01, "right")), 0.0, 5.0) == pytest.approx(2.0)


def test_a_second_fall_counts():
    falls = replies(lambda at: (at + 0.01, "lost" if at < 0.5 or 3.0 <= at < 3.5 else "right"))
    assert recovery_s(falls, 0.0, 5.0) == pytest.approx(3.5)


def test_a_server_that_does_not_come_back():
    assert recovery_s(replies(lambda at: (at + 0.01, "lost")), 0.0, 5.0) is None
