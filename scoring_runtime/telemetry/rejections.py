"""What was refused, in the log: which limit was met, and what sets it. A flood leaves one line a second for each kind."""

import logging
from dataclasses import dataclass

from ..errors import InternalError, MethodNotAllowed, NotFound, RequestError, ScorerLost
from ..settings import Settings, flag

logger = logging.getLogger("scoring_runtime.refused")

INTERVAL_S = 1.0
_TOLD_ELSEWHERE = (NotFound, MethodNotAllowed, InternalError, ScorerLost)
"""No limit was met, or the line says more where it happened."""


@dataclass(slots=True)
class _Kind:
    told_at: float
    count: int = 0  # since then
    text: str = ""


class Rejections:
    """Counts by kind; the first of a kind is told at once, those that follow within a second with the next line."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def refused(self, error: RequestError, now: float) -> None:
        """A request was answered with an error of the server's own."""
        if not isinstance(error, _TOLD_ELSEWHERE):
            self._note(f"Refused %s with {error.status}", error.message, error.setting, now)

    def cut(self, text: str, setting: str, now: float) -> None:
        """A connection was cut without an answer."""
        self._note("Cut %s", text, setting, now)

    def tick(self, now: float) -> None:
        """Tell what has come together."""
        for key, kind in list(self._kinds.items()):
            if now - kind.told_at < INTERVAL_S:
                continue
            if kind.count:
                self._tell(key, kind, now)
            else:
                del self._kinds[key]

    def _note(self, what: str, text: str, setting: str, now: float) -> None:
        key = (what, setting)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(now, 1, text)
            self._tell(key, kind, now)
        else:
            kind.count += 1
            kind.text = text

    def _tell(self, key: tuple[str, str], kind: _Kind, now: float) -> None:
        what, setting = key
        cure = f" The limit is {flag(setting)} {getattr(self._settings, setting)}." if setting else ""
        subject = "connection" if what.startswith("Cut") else "request"
        number = f"a {subject}" if kind.count == 1 else f"{kind.count} {subject}s, the last"
        logger.warning("%s: %s%s", what % number, _printable(kind.text), cure)
        kind.told_at, kind.count = now, 0


def _printable(text: str) -> str:
    """A message may quote what a client sent: nothing of it may end the line or steer a terminal."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
