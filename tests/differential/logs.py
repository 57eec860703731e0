"""What of a server's log is compared: which lines there are, and how many of each."""

import re

_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([DIWEC]) \[\d+\] (\S+) - (.*)")
_REPLACED = (
    (re.compile(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:[^]]+\]"), "[TIME]"),
    (re.compile(r"\b\d+\.\d{3}ms"), "TIMEms"),
    (re.compile(r"\bpid \d+"), "pid PID"),
)
_IGNORED = ("gunicorn.error", "scoring_runtime")
"""Loggers whose lines are each server's own affair."""

_OWN_PROBE = "GET /readyz "


def facts(log: str, names: dict[str, str]) -> dict[str, object]:
    """How often each line was written, under `line <level> <logger> - <message>`; `names` gives its name to a value.

    Lines in no log format count under `line <text>`; those of tracebacks and of the banner do not count.
    """
    for name, value in names.items():
        log = log.replace(value, name)
    counts: dict[str, object] = {}
    for text in log.splitlines():
        match = _LINE.fullmatch(text)
        if match is None:
            if text in ("written", "to stderr", "two", "Initializing logger") or text.startswith("WARNING"):
                counts[f"line {text}"] = int(str(counts.get(f"line {text}", 0))) + 1
            continue
        level, logger, message = match.groups()
        if logger.startswith(_IGNORED) or _OWN_PROBE in message:
            continue
        for pattern, replacement in _REPLACED:
            message = pattern.sub(replacement, message)
        key = f"line {level} {logger} - {message}"
        counts[key] = int(str(counts.get(key, 0))) + 1
    return counts
