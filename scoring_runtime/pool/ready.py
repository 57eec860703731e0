"""What a scorer says of itself in READY or FATAL, checked: user code runs in its process, and may say anything. Pure."""

from collections.abc import Callable
from typing import Any

from ..errors import ScorerStartError
from ..scorer import frames

LONGEST_LINE = 4096
MOST_COUNTS = 16
"""Each is a line of /metrics."""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts(value.get("versions", []))


def _is_open_inference(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts(value.get("headers")) and _is_texts(value.get("versions"))


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_LINE


def _is_counts(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MOST_COUNTS
        and all(_is_line(name) and type(count) is int and 0 <= count < 1 << 53 for name, count in value.items())
    )


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "ahead": (lambda value: value in (0, 1) and isinstance(value, int), "0 or 1"),
    "headers": (lambda value: value in ("all", "none") or _is_texts(value), '"all", "none" or a list of names'),
    "methods": (lambda value: _is_texts(value) and frames.METHODS.keys() >= set(value), "a list of HTTP methods"),
    "name": (lambda value: isinstance(value, str), "a text"),
    "open_inference": (_is_open_inference, "an object whose headers and versions are lists of texts"),
    "nodes": (_is_counts, "an object of few whole numbers"),
    "placement": (_is_line, "a line of text"),
    "degraded": (lambda value: value is None or _is_line(value), "a line of text or null"),
    "providers": (_is_texts, "a list of texts"),
    "stops": (lambda value: isinstance(value, bool), "true or false"),
    "swagger": (_is_schema, "an object whose versions are a list of texts"),
}
"""The fields that the front goes by, or writes into its log and its probes. The others are only shown."""


def read(frame: frames.Frame) -> dict[str, Any]:
    """The object that READY holds; FrameError when it is another frame, or the front could not go by it."""
    if frame.kind != frames.READY:
        raise frames.FrameError(f"frame of kind {frame.kind} where READY was due")
    info = frames.decode_json(frame)
    for name, (is_right, expected) in _CHECKS.items():
        if name in info and not is_right(info[name]):
            raise frames.FrameError(f"READY has {name!r}: {info[name]!r:.60}; expected {expected}")
    return info


def read_fatal(frame: frames.Frame) -> ScorerStartError:
    """Why it cannot serve; FrameError when it does not say so."""
    message = frames.decode_json(frame)
    return ScorerStartError(str(message.get("message")), str(message.get("traceback", "")))
