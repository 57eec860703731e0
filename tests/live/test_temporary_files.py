"""The server needs no folder for temporary files but one for an empty file."""

import os
import shutil
import subprocess
import sys

import pytest

from .conftest import COMMAND, environment, pick_port

GOOD = "def init(): pass\ndef run(data): return data\n"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount")
def test_without_any_place_it_is_refused_in_one_message(script):
    """In a mount namespace of its own, where both places are read-only."""
    assert shutil.which("unshare"), "unshare is missing: apt install util-linux"
    serve = [*COMMAND, "serve", str(script(GOOD)), "--port", str(pick_port())]
    closed = 'mount -t tmpfs -o ro none /dev/shm && mount -t tmpfs -o ro none /srv && exec "$@"'
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", closed, "sh", *serve],
        env=environment("none", {"TMPDIR": "/srv"}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == (
        "scoring-runtime: error: neither /dev/shm nor /srv can be written: the server needs one of them for an empty file. "
        "In a container mount memory there: --tmpfs /srv."
    )
