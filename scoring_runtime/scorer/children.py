"""Children that user code forks: the channel and the requests are their parent's.

A child that comes back from the code that forked it would answer a second time, and tear the frames of its parent.
"""

import os
from typing import Any, FrozenSet

_exit = os._exit
_write = os.write

EXIT_CODE = 1
_LAST_WORDS = (
    b"A child that the script forked came back from the script: it is ended. "
    b"End it with os._exit(), or use multiprocessing or subprocess.\n"
)


def disown(owned: Any) -> None:
    """End every child process that is forked from now on, where it calls a public method of `owned`."""
    methods = frozenset(name for name in dir(type(owned)) if not name.startswith("_"))
    parents = type(_Parents.__name__, (_Parents,), {"_methods": methods})

    def take_away() -> None:
        owned.__class__ = parents

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
    """What is the parent's: no method of it can be had. Who only looks for something else, as with hasattr, lives on."""

    _methods: FrozenSet[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name not in self._methods:
            raise AttributeError(name)
        try:
            _write(2, _LAST_WORDS)
        finally:
            _exit(EXIT_CODE)
