"""Which folders are read, which are written, and who writes."""

import os
import stat
import subprocess
import sys
import time

import pytest

from scoring_runtime.onnx.cache_folder import Folder, Unusable, lock, usable, why_unsafe


def test_a_folder_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "not" / "there"

    assert usable(path) == Folder(path, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert usable(path) == Folder(path, None)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        found = usable(path)
        assert isinstance(found, Unusable)
        assert str(path) in found.why
        assert not found.is_unsafe


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_not_read(tmp_path, mode):
    tmp_path.chmod(mode)

    found = usable(tmp_path)

    assert isinstance(found, Unusable)
    assert found.is_unsafe
    assert f"mode {mode:o}" in found.why
    assert "chmod go-w" in found.why


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_read(tmp_path):
    os.chown(tmp_path, 12345, -1)

    found = usable(tmp_path)

    assert isinstance(found, Unusable)
    assert found.is_unsafe
    assert "belongs to user 12345, not to 0" in found.why


def test_whom_a_file_is_trusted_from():
    def status(mode: int, user: int) -> os.stat_result:
        return os.stat_result((mode, 1, 1, 1, user, 0, 0, 0, 0, 0))

    assert why_unsafe(status(0o40755, 1000), 1000) is None
    assert why_unsafe(status(0o40755, 0), 1000) is None, "root can change our code as well"
    assert "1001" in str(why_unsafe(status(0o40755, 1001), 1000))
    assert "1000" in str(why_unsafe(status(0o40755, 1000), 0)), "root does not trust a user"
    assert "mode 775" in str(why_unsafe(status(0o40775, 1000), 1000))


def test_a_folder_that_cannot_be_written_is_read(somebody_else):
    with somebody_else() as folder:
        folder.chmod(0o500)

        found = usable(folder)

        assert isinstance(found, Folder)
        assert str(folder) in str(found.why_not_writable)
        below = usable(folder / "below")
        assert isinstance(below, Unusable)
        assert "cannot be made: Permission denied" in below.why


def test_a_folder_that_cannot_be_read(somebody_else):
    with somebody_else() as folder:
        folder.chmod(0o300)

        found = usable(folder)

        assert isinstance(found, Unusable)
        assert not found.is_unsafe


def test_a_lock_is_held_once(tmp_path):
    path = tmp_path / "lock"
    with lock(path, 0.0) as held:
        assert held
        with lock(path, 0.0) as again:
            assert not again
        began = time.monotonic()
        with lock(path, 0.2) as again:
            assert not again
        assert time.monotonic() - began >= 0.2
    with lock(path, 0.0) as held:
        assert held


HOLD = """
import pathlib, sys, time
from scoring_runtime.onnx import cache_folder
with cache_folder.lock(pathlib.Path(sys.argv[1]), 0.0) as held:
    print(held, flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path):
    command = [sys.executable, "-P", "-c", HOLD, tmp_path / "lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "True\n"
            with lock(tmp_path / "lock", 0.0) as held:
                assert not held
        finally:
            holder.kill()
        with lock(tmp_path / "lock", 10.0) as held:
            assert held


def test_a_lock_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic"), lock(tmp_path / "lock", 0.0):
        pass
    assert not (tmp_path / "elsewhere").exists()
