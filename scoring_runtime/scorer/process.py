"""What a scorer asks of the system for its own process, before anything of the user's runs."""

import codecs
import faulthandler
import io
import sys
from os import _exit, getppid
from signal import SIGKILL
from typing import Any, Optional

try:
    import ctypes
except ImportError:  # an interpreter built without libffi
    _LIBC = None
else:
    _LIBC = ctypes.CDLL(None)

OOM_SCORE_RAISE = 100
"""By how much sooner than the front, in thousandths of all memory, the kernel takes a scorer when memory is short."""


def prepare() -> None:
    """Everything that a scorer that was started as a process of its own needs."""
    die_with_parent()
    be_taken_first()
    write_lines_at_once()
    faulthandler.enable(2)  # where a crash of native code came from is printed as a Python traceback


def die_with_parent(parent: Optional[int] = None) -> None:
    """Ask the kernel to kill this process when its parent dies, even while user code holds the interpreter.

    parent: its pid, where it may have died already; otherwise whoever the parent is now.
    """
    if not sys.platform.startswith("linux"):
        return
    if parent is None:
        parent = getppid()
    if _LIBC is not None:  # otherwise the closed channel still ends an idle scorer
        pr_set_pdeathsig = 1
        _LIBC.prctl(pr_set_pdeathsig, SIGKILL, 0, 0, 0)
        if getppid() != parent:  # it died before the call
            _exit(0)


def be_taken_first() -> None:
    """When memory runs out, the kernel is to take this process, and never the front."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = min(1000, int(file.read()) + OOM_SCORE_RAISE)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):  # no Linux, or a sandbox: the kernel then takes who is largest
        return


def write_lines_at_once() -> None:
    """Make prints of user code reach the log when they happen, although stdout is no terminal, and whatever they hold.

    Text is UTF-8 unless the locale says something else than ASCII, and never fails to be encoded.
    """
    for name in ("stdout", "stderr"):  # before Python 3.9 a piped stderr kept its lines to itself, too
        old = getattr(sys, name)
        encoding = "utf-8" if codecs.lookup(old.encoding).name == "ascii" else old.encoding
        if hasattr(old, "reconfigure"):
            old.reconfigure(encoding=encoding, errors="backslashreplace", line_buffering=True)
        else:  # Python 3.6
            stream = io.TextIOWrapper(old.detach(), encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, stream)
            setattr(sys, "__%s__" % name, stream)


def flush_prints() -> None:
    """Write out what Python and C code have printed and still hold, so that a fork does not print it again."""
    _flush(sys.stdout)
    _flush(sys.stderr)
    if _LIBC is not None:
        _LIBC.fflush(None)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):  # user code has closed or replaced it
        return
