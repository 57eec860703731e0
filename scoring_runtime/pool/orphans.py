"""What scripts leave behind: daemons that have left their scorer's process group. They end with the server, at the latest."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_END_TIMEOUT_S = 2.0


def adopt() -> None:
    """From now on processes below this one that lose their parent become its children, and not those of init. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end() -> None:
    """Kill every process below this one; to be called last, by the process that has adopted them."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while (found := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # one less
        time.sleep(0.005)


def _descendants(pid: int) -> list[int]:
    """Every process below `pid`, from /proc; none where there is no such folder."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The name of the program stands in parentheses, and may hold some.
            parent = int(stat.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found
