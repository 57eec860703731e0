"""Log lines of a scorer: on stdout, in the incumbent's format, whole, and each print() of user code as one of them.

Contract §7.1. Other than the incumbent, the root logger writes too, in the same format and from the configured level on,
so that what user code logs is not lost.
"""

import builtins
import json
import logging
import logging.config
import os
import select
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any, Iterator, List, Optional, TextIO

from ..loop import LoadError

FORMAT = "%(asctime)s %(levelname).1s [%(process)d] %(name)s - %(message)s"

logger = logging.getLogger("azmlinfsrv")
user_script_logger = logging.getLogger("azmlinfsrv.user_script")
print_logger = logging.getLogger("azmlinfsrv.print")
trace_logger = logging.getLogger("azmlinfsrv.trace")

_write = os.write
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class AMLLogFormatter(logging.Formatter):
    """UTC time, one letter for the level, process, logger, message."""

    converter = time.gmtime  # type: ignore[assignment]

    def __init__(self, fmt: Optional[str] = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(fmt or FORMAT, *args, **kwargs)


class RootAccessFilter(logging.Filter):
    """Drops access lines of the liveness probe."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "GET / HTTP/1.1" not in record.getMessage()


class WholeLineHandler(logging.Handler):
    """Writes each record to a descriptor that other processes write to as well, without tearing a line.

    The kernel keeps writes to a pipe whole up to PIPE_BUF bytes: a longer record is cut where a line ends.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            if sys.__stdout__ is not None and not sys.__stdout__.closed:
                sys.__stdout__.flush()  # what was written before comes before
            for chunk in cut_at_line_ends(data, select.PIPE_BUF):
                view = memoryview(chunk)
                while view:
                    view = view[_write(self._descriptor, view) :]
        except Exception:  # as logging's own handlers: a log line never fails a request
            self.handleError(record)


def cut_at_line_ends(data: bytes, limit: int) -> Iterator[bytes]:
    """Pieces of `data`, in order: as many whole lines as fit into `limit` bytes, or one longer line."""
    start = 0
    while len(data) - start > limit:
        end = data.rfind(b"\n", start, start + limit) + 1
        if end == 0:
            end = data.find(b"\n", start + limit) + 1 or len(data)
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


def configure(folders: List[str], level: str) -> None:
    """Set logging up: from the first logging.json in `folders`, else ours. LoadError when that file is of no use."""
    for folder in folders:
        path = os.path.join(folder, "logging.json")
        if os.path.isfile(path):
            _configure_from(path)
            return
    handler = WholeLineHandler(1)
    handler.setFormatter(AMLLogFormatter())
    root = logging.getLogger()
    for target in (root, logger):
        target.addHandler(handler)
        target.setLevel(level.upper())
    logger.propagate = False


def _configure_from(path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            logging.config.dictConfig(json.load(file))
    except Exception as error:
        raise LoadError(
            "%s: this logging configuration cannot be used: %s. It must be a JSON object in the form that Python's "
            "logging.config.dictConfig takes. Correct or remove it." % (path, error),
            traceback.format_exc(),
        ) from None
    for ours in (logger, user_script_logger, print_logger, trace_logger):
        ours.disabled = False  # dictConfig disables loggers that exist already
    logger.info("Loaded logging config from %s", path)


def capture_print() -> None:
    """Make print() of user code write log lines. Prints to other files, stdout's temporary stand-ins too, stay prints."""
    real_print = builtins.print
    stdout = sys.stdout
    busy = threading.local()  # a user's log handler may print

    def print(  # noqa: A001
        *values: object,
        sep: Optional[str] = " ",
        end: Optional[str] = "\n",
        file: Optional[TextIO] = None,
        flush: bool = False,
    ) -> None:
        to_log = file is stdout or (file is None and sys.stdout is stdout)
        if not to_log or getattr(busy, "printing", False):
            real_print(*values, sep=sep, end=end, file=file, flush=flush)
            return
        busy.printing = True
        try:
            print_logger.info("%s", (" " if sep is None else sep).join(map(str, values)))
        finally:
            busy.printing = False

    builtins.print = print  # type: ignore[assignment]


def user_traceback(error: BaseException) -> str:
    """The traceback of `error` from the first frame on that is not ours or the import system's."""
    frame: Optional[TracebackType] = error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if not (name.startswith((_OURS, "<frozen importlib"))):
            break
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame))


def log_exception(error: BaseException) -> None:
    """Say what went wrong in user code, or with its result. It never fails the request, whose answer stands already."""
    try:
        logger.error("Encountered Exception: %s", user_traceback(error))
    except BaseException:  # of a handler or an exception of user code's, or because of what it did to logging itself
        _write(2, b"An exception of the script cannot be logged: the script has changed what logging needs.\n")
