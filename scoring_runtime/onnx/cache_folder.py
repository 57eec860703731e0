"""A folder that keeps what was built for a model: may it be read, may it be written, and who writes now.

What lies there decides what is served, as code does. So it is read only where nobody but its owner, who is this process'
user or root, can put something.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_POLL_S = 0.05
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Folder(NamedTuple):
    """A folder whose entries may be read."""

    path: Path
    why_not_writable: str | None
    """With its cure; None where entries may be written too."""


class Unusable(NamedTuple):
    """A folder that is not even read."""

    why: str
    """With its cure."""
    is_unsafe: bool
    """It is there, and others than its owner could have put something into it."""


def usable(path: Path) -> Folder | Unusable:
    """The folder at `path`, which is made, open to its owner only, where there is none."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        return Unusable(f"{path} is no folder: name another one", is_unsafe=False)
    except OSError as error:
        return Unusable(f"{path} cannot be made: {error.strerror}: name a folder that can be written", is_unsafe=False)
    try:
        status = path.stat()
    except OSError as error:
        return Unusable(f"{path} cannot be looked at: {error.strerror}: check its permissions", is_unsafe=False)
    why = why_unsafe(status, os.geteuid())
    if why is not None:
        return Unusable(f"{path} {why}", is_unsafe=True)
    if not _may(path, os.R_OK | os.X_OK):
        return Unusable(f"{path} cannot be read: check its permissions", is_unsafe=False)
    writable = _may(path, os.W_OK | os.X_OK)
    return Folder(path, None if writable else f"{path} cannot be written: check its permissions and its mount")


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def why_unsafe(status: os.stat_result, user: int) -> str | None:
    """Why a folder or file is not to be trusted, with its cure; None when only `user` or root can change it. Pure."""
    if status.st_uid not in (user, 0):
        return f"belongs to user {status.st_uid}, not to {user}, who runs this: name a folder of that user's"
    if status.st_mode & _OTHERS_MAY_WRITE:
        return f"can be written by others than its owner (mode {stat.S_IMODE(status.st_mode):o}): chmod go-w it"
    return None


@contextmanager
def lock(path: Path, timeout_s: float) -> Iterator[bool]:
    """Hold the lock file `path`, which is made and stays; whether it was got within `timeout_s`, 0 for at once.

    It is given back at the end, also when this process is killed. OSError when the file cannot be opened.
    """
    deadline = time.monotonic() + timeout_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        held = _try_lock(descriptor)
        while not held and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            held = _try_lock(descriptor)
        yield held
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
