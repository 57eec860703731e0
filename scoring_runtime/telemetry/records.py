"""What Application Insights is told: records of requests and of log lines. Pure.

The names and forms are those that queries and dashboards over the incumbent's telemetry know (contract 7.2).
"""

import codecs
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

NOT_TEXT = json.dumps("Scoring request response payload is a non serializable object or raw binary")
"""Stands for a response that is no text, or that was sent in pieces."""

MAX_RESPONSE_BYTES = 32768
"""So much of a response is kept: Application Insights takes 8192 characters, of at most 4 bytes each."""

MAX_INPUT_BYTES = 32768
"""So much of what run() was given is kept, for the same reason."""

MAX_RECORD_BYTES = 131072
"""So much of a log record is kept: Application Insights takes 32768 characters."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def find_connection_string(given: str | None, environ: Mapping[str, str]) -> str | None:
    """Where telemetry goes: the connection string that was given, else one for the incumbent's key; None for nowhere."""
    if given:
        return given
    key = environ.get("AML_APP_INSIGHTS_KEY", "").lower()
    if environ.get("AML_APP_INSIGHTS_ENABLED") == "true" and _UUID.match(key):
        return f"InstrumentationKey={key}"
    return None


# Requests


class Service(NamedTuple):
    """Whose telemetry it is."""

    name: str
    workspace: str
    container: str
    model_dir: str = ""
    scheme: str = "http"

    @property
    def attributes(self) -> dict[str, str]:
        """What every record carries."""
        return {"Container Id": self.container, "Workspace Name": self.workspace, "Service Name": self.name}


class Answered(NamedTuple):
    """A request that has its answer, as the event loop leaves it behind."""

    method: bytes
    target: bytes
    path: bytes
    headers: Sequence[tuple[bytes, bytes]]
    status: int
    head: bytes
    """Of the response."""

    body: bytes | None
    """The response, at most MAX_RESPONSE_BYTES of it; None when it is not to be told."""

    whole: bool
    """The body is all of it."""

    broken: bool
    """The response broke off."""

    began_ns: int
    ended_ns: int

    @property
    def succeeded(self) -> bool:
        """As the incumbent sees it."""
        return self.status < 400 and not self.broken


def request_attributes(answered: Answered, service: Service) -> dict[str, str | bool]:
    """The attributes of a request's span."""
    began = datetime.datetime.fromtimestamp(answered.began_ns / 1e9, datetime.UTC).replace(tzinfo=None)
    attributes: dict[str, str | bool] = {
        "Container Id": service.container,
        "Request Id": _last_header(answered.head, b"x-request-id"),
        "Client Request Id": _last_header(answered.head, b"x-ms-client-request-id"),
        "name": _text(answered.path),
        "url": _url(answered, service.scheme),
        "start_time": began.isoformat() + "Z",
        "duration": format_duration(answered.ended_ns - answered.began_ns),
        "resultCode": str(answered.status),
        "success": answered.succeeded,
        "http_method": _text(answered.method),
        "Workspace Name": service.workspace,
        "Service Name": service.name,
    }
    if answered.body is not None:
        attributes["Response Value"] = response_value(answered.body, whole=answered.whole)
    return attributes


def response_value(body: bytes, *, whole: bool) -> str:
    """A response as text; a fixed sentence, as JSON, when it is none."""
    text = _decode(body, whole=whole)
    return NOT_TEXT if text is None else text


def _decode(data: bytes, *, whole: bool) -> str | None:
    """UTF-8 as text, also where it was cut within a character; None when it is none."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError:
        return None


def format_duration(duration_ns: int) -> str:
    """`[d.]hh:mm:ss.mmm`."""
    seconds, millis = divmod(max(0, duration_ns) // 1_000_000, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours:02d}:{minutes:02d}:{seconds:02d}.{millis:03d}"
    return f"{days}.{text}" if days else text


def _url(answered: Answered, scheme: str) -> str:
    target = _text(answered.target)
    if not target.startswith("/"):
        return target
    host = next((value for name, value in answered.headers if name.lower() == b"host"), b"")
    return f"{scheme}://{_text(host)}{target}"


def _last_header(head: bytes, name: bytes) -> str:
    """The last header of that name: user code's own stand before the server's."""
    found = re.findall(rb"(?im)^%b: ?(.*?)\r?$" % re.escape(name), head)
    return _text(found[-1]) if found else ""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


# Inputs and predictions

INPUT_NOT_TEXT = json.dumps("Scoring request payload is raw binary")


class Scored(NamedTuple):
    """A request that run() has answered, as the event loop leaves it behind."""

    method: bytes
    target: bytes
    info: Mapping[str, Any]
    """What the scorer said of the script when it was ready: mode, arguments, their defaults."""

    head: bytes
    """Of the response."""

    input: bytes
    """The request's body, at most MAX_INPUT_BYTES of it."""

    input_whole: bool
    output: bytes | None
    """The response's body, at most MAX_RESPONSE_BYTES of it; None when it was sent in pieces."""

    output_whole: bool
    plain: bool
    """run() returned a value, whose JSON is the output; otherwise it returned a response."""

    time_ns: int


def model_data(scored: Scored, service: Service, models: Sequence[str]) -> dict[str, str]:
    """The attributes of a record of the model data log. `models`: what is served, each as `name:version`."""
    return {
        "Container Id": service.container,
        "Request Id": _last_header(scored.head, b"x-request-id"),
        "Client Request Id": _last_header(scored.head, b"x-ms-client-request-id"),
        "Workspace Name": service.workspace,
        "Service Name": service.name,
        "Models": json.dumps(models),
        "Input": model_input(scored),
        "Prediction": model_prediction(scored),
    }


def model_input(scored: Scored) -> str:
    """What run() was given, as JSON: a text, or in the mode "object" its arguments by name.

    A body that is not here as a whole cannot be taken apart into arguments: it is told as it came.
    """
    mode = scored.info.get("mode")
    text = _decode(scored.input, whole=scored.input_whole)
    if mode == "object":
        try:
            values = _query_values(scored.target) if scored.method == b"GET" else json.loads(scored.input)
            known = {**scored.info.get("defaults", {}), **values}
            return json.dumps({name: known[name] for name in scored.info.get("arguments", ()) if name in known})
        except (ValueError, TypeError, RecursionError):
            return INPUT_NOT_TEXT if text is None else text
    if scored.method != b"POST" and (mode == "string" or not scored.input):
        text = json.dumps(_query_values(scored.target))
    return INPUT_NOT_TEXT if text is None else json.dumps(text)


def model_prediction(scored: Scored) -> str:
    """What run() returned, as JSON; of a response its body, which is a text unless its type says JSON."""
    text = None if scored.output is None else _decode(scored.output, whole=scored.output_whole)
    if text is None:
        return NOT_TEXT
    kind = _last_header(scored.head, b"content-type").partition(";")[0].strip().lower()
    return text if scored.plain or kind == "application/json" or kind.endswith("+json") else json.dumps(text)


def _query_values(target: bytes) -> dict[str, Any]:
    """The query as run() gets it: each value is JSON if it can be, else text; a name that comes twice has a list."""
    query = _text(target).partition("#")[0].partition("?")[2]
    lists: dict[str, list[Any]] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        lists.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in lists.items()}


# Log lines


class Record(NamedTuple):
    """One record of a scorer's log."""

    time_ns: int
    level: str
    """D, I, W, E or C."""

    logger: str
    text: str


_HEAD = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ([DIWEC]) \[\d+\] ([\w.-]+) - ")
_LEVELS = "DIWEC"
_LEAST_LEVEL = {b"azmlinfsrv.print": "I", b"azmlinfsrv.trace": "I", b"azmlinfsrv": "E"}
"""The loggers whose records are told, each from this level on."""


class RecordCutter:
    """Cuts the whole lines that one scorer writes into the records that are told. A record may have many lines."""

    def __init__(self) -> None:
        self._head: tuple[int, str, str] | None = None
        self._lines: list[bytes] = []
        self._size = 0

    def feed(self, lines: bytes) -> list[Record]:
        """The records that are complete: another one has begun."""
        records = []
        for line in lines.split(b"\n")[:-1]:
            head = _HEAD.match(line)
            if head is not None:
                records += self.finish()
                self._head = _wanted_head(head)
                line = line[head.end() :]  # noqa: PLW2901 - what is left of it
            if self._head is not None and self._size < MAX_RECORD_BYTES:
                self._lines.append(line)
                self._size += len(line) + 1
        return records

    def finish(self) -> list[Record]:
        """The record that has begun, if there is one: no other line will come to it."""
        head, lines = self._head, self._lines
        self._head, self._lines, self._size = None, [], 0
        return [] if head is None else [Record(*head, _text(b"\n".join(lines)))]


def _wanted_head(head: re.Match[bytes]) -> tuple[int, str, str] | None:
    level = head[2].decode()
    least = _LEAST_LEVEL.get(head[3])
    if least is None or _LEVELS.index(level) < _LEVELS.index(least):
        return None
    try:
        time = datetime.datetime.fromisoformat(head[1].decode()).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return int(time.timestamp() * 1000) * 1_000_000, level, head[3].decode()


class Raised(NamedTuple):
    """What a traceback says."""

    kind: str
    message: str


_TRACEBACK = "Traceback (most recent call last):"


def find_exception(text: str) -> Raised | None:
    """The exception at the end of the last traceback in `text`; None when there is none."""
    _, found, frames = text.rpartition(_TRACEBACK)
    if not found:
        return None
    lines = frames.rstrip().split("\n")
    last_frame = max((index for index, line in enumerate(lines) if line.startswith('  File "')), default=0)
    for index in range(last_frame + 1, len(lines)):
        if not lines[index].startswith(" "):
            kind, _, message = "\n".join(lines[index:]).partition(":")
            return Raised(kind.strip(), message.strip())
    return Raised("Exception", "")
