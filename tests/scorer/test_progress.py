"""The mark that says what a scorer began last."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.scorer import progress

LAST_WORDS = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import progress
mark = progress.Progress(int(sys.argv[2]))
mark.mark(7)
assert mark.keep(7, 200, 2, 99, b"a: b", b"answer")
mark.mark(0x0123456789ABCDEF)
os.kill(os.getpid(), signal.SIGKILL)
"""


KILLS = """
import itertools, os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import progress

for _ in range(300):
    descriptor = progress.create_shared_file()
    front = progress.ProgressReader(descriptor)
    pid = os.fork()
    if pid == 0:
        scorer = progress.Progress(descriptor)
        for number in itertools.count(1 << 40):
            scorer.mark(number)
            scorer.forget()
    while not front.read():
        pass
    time.sleep(random.uniform(0.0005, 0.0015))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if front.read() < 1 << 40:
        print("torn:", front.read())
    front.close()
    os.close(descriptor)
"""


@pytest.fixture
def shared_file():
    descriptor = progress.create_shared_file()
    yield descriptor
    os.close(descriptor)


def test_nothing_is_begun_at_first(shared_file):
    mark = progress.ProgressReader(shared_file)
    assert mark.read() == 0
    mark.close()


def test_both_sides_see_the_same_mark(shared_file):
    front, scorer = progress.ProgressReader(shared_file), progress.Progress(shared_file)
    scorer.mark(41)
    assert front.read() == 41
    scorer.mark(42)
    assert front.read() == 42
    front.close()


def test_the_mark_outlives_its_writer(shared_file):
    front = progress.ProgressReader(shared_file)
    folder = Path(progress.__file__).parent
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", LAST_WORDS, folder, str(shared_file)],
        pass_fds=(shared_file,),
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert front.read() == 0x0123456789ABCDEF
    assert front.kept() == [(7, 200, 2, 99, b"a: b", b"answer")]
    front.close()


def test_a_kill_at_any_moment_leaves_a_mark_that_was_made():
    folder = Path(progress.__file__).parent
    told = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", KILLS, folder], capture_output=True, check=True)
    assert told.stdout == b""


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_that_was_cut_kills_no_reader_and_frees_no_request(shared_file, size):
    front, scorer = progress.ProgressReader(shared_file), progress.Progress(shared_file)
    scorer.mark(41)
    os.ftruncate(shared_file, size)
    assert front.read() == progress.MAX_ID
    with pytest.raises(ValueError, match="cut"):
        front.kept()
    front.close()


def test_the_shared_file_has_no_name_and_is_not_inherited_by_chance(shared_file):
    assert not os.get_inheritable(shared_file)
    assert os.fstat(shared_file).st_nlink == 0
    assert os.fstat(shared_file).st_size == progress.FILE_BYTES


def test_without_memfd_an_unlinked_file_does_it(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = progress.create_shared_file()
    try:
        assert (os.fstat(descriptor).st_nlink, os.fstat(descriptor).st_size) == (0, progress.FILE_BYTES)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


REPLIES = st.lists(
    st.tuples(
        st.integers(1, (1 << 64) - 1),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.integers(0, (1 << 32) - 1),
        st.binary(max_size=40),
        st.one_of(st.binary(max_size=300), st.sampled_from([b"x" * 30_000, b"y" * progress.FILE_BYTES])),
    )
)


@given(st.lists(REPLIES, max_size=4), st.sampled_from([bytes, bytearray, memoryview]))
def test_what_is_kept_is_what_was_not_forgotten(rounds, kind):
    descriptor = progress.create_shared_file()
    front, scorer = progress.ProgressReader(descriptor), progress.Progress(descriptor)
    os.close(descriptor)
    try:
        for replies in rounds:
            kept = [
                (number, status, flags, run_us, head, body)
                for number, status, flags, run_us, head, body in replies
                if scorer.keep(number, status, flags, run_us, head, kind(body))
            ]
            assert front.kept() == []  # they may still be on their way
            scorer.mark(7)
            assert front.kept() == kept
            assert len(kept) == len(replies) or sum(24 + len(one[4]) + len(one[5]) for one in replies) > 65_000
            scorer.forget()
            assert (front.read(), front.kept()) == (7, [])
    finally:
        front.close()


@given(st.binary(min_size=1, max_size=200))
def test_what_user_code_wrote_there_is_read_or_refused(nonsense):
    descriptor = progress.create_shared_file()
    front = progress.ProgressReader(descriptor)
    os.pwrite(descriptor, nonsense, 8)
    os.close(descriptor)
    try:
        front.kept()
    except ValueError:
        pass
    finally:
        front.close()
