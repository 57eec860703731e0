"""The mark that says what a scorer began last."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scoring_runtime.scorer import progress

LAST_WORDS = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import progress
mark = progress.Progress(int(sys.argv[2]))
mark.mark(7)
mark.mark(0x0123456789ABCDEF)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def shared_file():
    descriptor = progress.create_shared_file()
    yield descriptor
    os.close(descriptor)


def test_nothing_is_begun_at_first(shared_file):
    mark = progress.Progress(shared_file)
    assert mark.read() == 0
    mark.close()


def test_both_sides_see_the_same_mark(shared_file):
    front, scorer = progress.Progress(shared_file), progress.Progress(shared_file)
    scorer.mark(41)
    assert front.read() == 41
    scorer.mark(42)
    assert front.read() == 42
    front.close()
    scorer.close()


def test_the_mark_outlives_its_writer(shared_file):
    front = progress.Progress(shared_file)
    folder = Path(progress.__file__).parent
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", LAST_WORDS, folder, str(shared_file)],
        pass_fds=(shared_file,),
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert front.read() == 0x0123456789ABCDEF
    front.close()


def test_the_shared_file_has_no_name_and_is_not_inherited_by_chance(shared_file):
    assert not os.get_inheritable(shared_file)
    assert os.fstat(shared_file).st_nlink == 0
    assert os.fstat(shared_file).st_size == 8


def test_without_memfd_an_unlinked_file_does_it(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = progress.create_shared_file()
    try:
        assert (os.fstat(descriptor).st_nlink, os.fstat(descriptor).st_size) == (0, 8)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)
