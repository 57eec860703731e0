"""Where the server's own log lines go and what they look like."""

import logging
import time
from collections.abc import Iterable

from gunicorn.glogging import Logger as GunicornLogger

from .. import __version__
from ..settings import Settings
from ..target import Target
from . import sink


class LineFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,123 I [4711] scoring_runtime.front - message`, in UTC."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(initial)s [%(process)d] %(name)s - %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.initial = record.levelname[:1]
        return super().format(record)


class SinkHandler(logging.Handler):
    """Writes records to a sink: the caller never waits for who reads them."""

    def __init__(self, target: sink.Sink) -> None:
        super().__init__()
        self._sink = target

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001 - as logging's own handlers: a log line fails nothing
            self.handleError(record)


def configure(level: str) -> None:
    """One handler on stdout for the server's loggers."""
    handler = SinkHandler(sink.STDOUT)
    handler.setFormatter(LineFormatter())
    for name in ("scoring_runtime", "azmlinfsrv", "gunicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False


class ArbiterLogger(GunicornLogger):  # type: ignore[misc]
    """The arbiter's log, in our format. Its chatter about workers is of no use to who runs one container: warnings only."""

    def setup(self, cfg: object) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.setLevel(logging.WARNING)

    def reopen_files(self) -> None:
        """There are none: everything goes to stdout."""

    def close_on_exec(self) -> None:
        """There are no files to close."""


def banner(target: Target, settings: Settings, interpreter: str) -> None:
    """The first line: what is served, how, and where."""
    logging.getLogger("scoring_runtime").info(
        "scoring-runtime %s serves %s (%s engine, %s) with %d scorer%s of %s",
        __version__,
        target.path,
        target.engine,
        f"{settings.scheme}://{settings.host}:{settings.port}/score",
        settings.scorers,
        "" if settings.scorers == 1 else "s",
        interpreter,
    )


def warn(texts: Iterable[str]) -> None:
    """A line for each."""
    for text in texts:
        logging.getLogger("scoring_runtime").warning("%s", text)
