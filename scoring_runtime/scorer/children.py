"""Children that user code forks: the channel and the requests are their parent's.

A child that comes back from the code that forked it would answer a second time, and tear the frames of its parent.
"""

import os
from typing import Any

_exit = os._exit
_write = os.write

EXIT_CODE = 1
_LAST_WORDS = (
    b"A child that the script forked came back from the script: it is ended. "
    b"End it with os._exit(), or use multiprocessing or subprocess.\n"
)


def disown(owned: Any) -> None:
    """End every child process that is forked from now on, where it uses `owned`."""

    def take_away() -> None:
        owned.__class__ = _Parents

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=take_away)
        return
    fork_before = os.fork  # Python 3.6

    def fork() -> int:
        pid = fork_before()
        if not pid:
            take_away()
        return pid

    os.fork = fork


class _Parents:
    """What is the parent's: no method of it can be had."""

    def __getattr__(self, name: str) -> Any:
        try:
            _write(2, _LAST_WORDS)
        finally:
            _exit(EXIT_CODE)
