"""What /proc says of a process, and how long a place stays empty."""

import itertools
import os
import signal
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.pool import vitals
from scoring_runtime.pool.back_off import (
    FIRST_BACK_OFF_S,
    LONGEST_BACK_OFF_S,
    LONGEST_CRASH_WAIT_S,
    STABLE_AFTER_S,
    BackOff,
)

REST = b" 1" * 20


@given(st.binary(max_size=15), st.sampled_from([b"R", b"S", b"D", b"T", b"t", b"Z"]), st.integers(0, 1 << 30))
def test_state_and_size_are_read_whatever_the_program_is_called(name, state, pages):
    line = b"4711 (" + name + b") " + state + REST + b" %d" % pages + REST
    assert vitals.parse(line) == (state == b"T", pages * os.sysconf("SC_PAGE_SIZE"))


def test_this_process_runs_and_has_a_size():
    found = vitals.read(os.getpid())
    assert found is not None
    assert not found.stopped
    assert 1 << 20 < found.resident_bytes < 1 << 40


def test_a_process_that_is_gone_has_no_vitals():
    process = subprocess.Popen(["true"])
    process.wait()
    assert vitals.read(process.pid) is None
    watch = vitals.Watch(process.pid, 1)
    watch.look(1.0)
    assert (watch.stopped_s, watch.excess_bytes) == (0.0, 0)


def test_a_stop_is_timed_from_when_it_was_first_seen_until_it_goes_on():
    process = subprocess.Popen(["sleep", "1000"])
    try:
        watch = vitals.Watch(process.pid, 0)
        watch.look(10.0)
        assert watch.stopped_s == 0.0
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        for now, stopped_s in ((20.0, 0.0), (20.5, 0.5), (21.0, 1.0)):
            watch.look(now)
            assert watch.stopped_s == stopped_s
        os.kill(process.pid, signal.SIGCONT)
        os.waitpid(process.pid, os.WCONTINUED)
        watch.look(30.0)
        assert watch.stopped_s == 0.0
    finally:
        process.kill()
        process.wait()


MAPS = """
import mmap, os, sys
descriptor = os.memfd_create("shared")
os.ftruncate(descriptor, 32 << 20)
mapped = mmap.mmap(descriptor, 32 << 20)
mapped[:] = bytes(32 << 20)
print(flush=True)
sys.stdin.read()
"""


def test_what_the_arena_holds_is_not_the_process_s_own_and_other_shared_memory_is():
    with subprocess.Popen([sys.executable, "-c", MAPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = vitals.read(process.pid)
        assert found is not None
        assert vitals.read_shared(process.pid) >= 32 << 20
        excess = []
        for arena_bytes in (0, 16 << 20, 1 << 40):
            watch = vitals.Watch(process.pid, 1 << 20, itertools.repeat(arena_bytes).__next__)
            watch.look(1.0)
            excess.append(watch.excess_bytes)
        assert excess[0] - excess[1] == 16 << 20
        assert excess[0] - excess[2] == vitals.read_shared(process.pid)
        watch = vitals.Watch(process.pid, excess[2] + (1 << 20), lambda: 1 << 40)
        watch.look(1.0)
        assert watch.excess_bytes == 0
        process.communicate(b"")
    assert vitals.read_shared(process.pid) == 0


def test_what_a_process_has_started_is_found_down_to_the_last():
    code = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo; read x; exit'], stdin=sys.stdin)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = vitals.descendants(process.pid)
        assert child in vitals.descendants(os.getpid())
        for pid in (process.pid, child):
            watch = vitals.Watch(pid, 1)
            watch.look(1.0)
            assert watch.excess_bytes > 1
        process.communicate(b"\n")


# Back-off


def test_lives_that_end_by_themselves_wait_longer_and_longer_until_one_lasts():
    back_off = BackOff()
    waits = [back_off.ended(0.0, False) for _ in range(12)]
    assert waits[:4] == [0.0, 0.25, 0.5, 1.0]
    assert waits[-1] == LONGEST_BACK_OFF_S
    assert back_off.in_a_row == 12
    assert back_off.ended(STABLE_AFTER_S, False) == 0.0
    assert back_off.in_a_row == 1


def test_a_start_that_makes_no_process_is_never_tried_again_at_once():
    assert BackOff().not_launched() == 0.25


@given(st.lists(st.booleans()))
def test_requests_that_end_scorers_never_make_the_others_wait_long(answered):
    back_off = BackOff()
    waits = [back_off.crashed(one) for one in answered]
    assert all(wait <= LONGEST_CRASH_WAIT_S for wait in waits)
    assert [wait for wait, one in zip(waits, answered, strict=True) if one] == [0.0] * sum(answered)


def test_a_crash_under_a_request_shows_that_the_start_was_good():
    back_off = BackOff()
    for _ in range(8):
        back_off.ended(0.0, False)
    assert back_off.crashed(False) == 0.0
    assert back_off.ended(0.0, False) == 0.0


def test_lives_that_had_answered_are_followed_at_once_however_often_they_are_killed():
    back_off = BackOff()
    assert [back_off.ended(0.1, True) for _ in range(12)] == [0.0] * 12
    assert back_off.ended(0.1, False) == 0.0
    assert back_off.ended(0.1, False) == FIRST_BACK_OFF_S


def test_a_chain_of_processes_is_followed_without_end_and_without_recursion():
    code = "import os, time; r = [os.fork() for _ in range(1)]\nfor _ in range(40):\n if r[0]: break\n r = [os.fork()]\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as first:
        try:
            deadline = time.monotonic() + 30
            while len(list(vitals.descendants(first.pid))) < 40:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            os.killpg(first.pid, signal.SIGKILL)
