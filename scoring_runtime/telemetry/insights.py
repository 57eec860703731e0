"""Application Insights, by OpenTelemetry and Azure Monitor's exporter: the one file that knows these packages.

They are an extra, and imported only when telemetry is on. The event loop leaves behind what it has, in a line that has a
limit; a thread makes records of it and sends them.
"""

import functools
import logging
import os
import random
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from . import records
from .records import Answered, Scored, Service

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger("scoring_runtime.telemetry")

SEND_EVERY_S = 5.0
SEND_AT = 100
"""Sent together, at most; and sent at once when so many wait."""

FLUSH_S = 5.0
"""Longest time that the end of the server waits for what is still to be sent."""

SILENT_AFTER_S = 1.0
"""A log record is complete when nothing has followed it for so long."""

MAX_WAITING = 4096
MAX_WAITING_BYTES = 16 << 20

_QUIET = {
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED": "true",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
}
"""Variables of the exporter's: it is to talk to the address that it was given, and to nobody else."""


class _Printed(NamedTuple):
    """Whole lines that a scorer wrote."""

    source: int
    data: bytes


class _Source:
    """One pipe of a scorer, while it is written to."""

    def __init__(self) -> None:
        self.cutter = records.RecordCutter()
        self.heard_at = 0.0


class _Failed(NamedTuple):
    """A scorer could not load."""

    message: str
    traceback: str
    time_ns: int


_Item = Answered | Scored | _Printed | _Failed


def _size(scored: Scored) -> int:
    return len(scored.input) + len(scored.output or b"")


class Exporter:
    """Makes spans and log records, and hands them to Azure Monitor. ImportError, ValueError as from the packages."""

    def __init__(self, connection_string: str, service: Service) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter, AzureMonitorTraceExporter
        from opentelemetry import _logs as logs
        from opentelemetry import trace
        from opentelemetry.sdk import _logs as sdk_logs
        from opentelemetry.sdk import trace as sdk_trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._logs, self._sdk_logs, self._trace, self._sdk_trace = logs, sdk_logs, trace, sdk_trace
        self._scope = InstrumentationScope
        self._service = service
        self._resource = Resource({"service.name": service.name})
        # Nothing is left on the disk: what cannot be sent after a few tries is lost.
        self._spans = cast(
            "SpanExporter",
            AzureMonitorTraceExporter(connection_string=connection_string, disable_offline_storage=True, retry_total=3),
        )
        self._records = cast(
            "LogRecordExporter",
            AzureMonitorLogExporter(connection_string=connection_string, disable_offline_storage=True, retry_total=3),
        )
        self._levels = {
            "D": logs.SeverityNumber.DEBUG,
            "I": logs.SeverityNumber.INFO,
            "W": logs.SeverityNumber.WARN,
            "E": logs.SeverityNumber.ERROR,
            "C": logs.SeverityNumber.FATAL,
        }

    def send(self, requests: list[Answered], lines: list[records.Record | Scored]) -> None:
        """Send them; returns when they have arrived or are lost."""
        for start in range(0, len(requests), SEND_AT):
            self._spans.export([self._span(answered) for answered in requests[start : start + SEND_AT]])
        for start in range(0, len(lines), SEND_AT):
            batch = lines[start : start + SEND_AT]
            self._records.export(
                [self._data(line) if isinstance(line, Scored) else self._record(line) for line in batch]
            )

    def _span(self, answered: Answered) -> "ReadableSpan":
        trace = self._trace
        attributes = records.request_attributes(answered, self._service)
        return self._sdk_trace.ReadableSpan(
            name=str(attributes["name"]),
            context=trace.SpanContext(
                random.getrandbits(128), random.getrandbits(64), is_remote=False, trace_flags=trace.TraceFlags(1)
            ),
            resource=self._resource,
            # Beside the contract's: what fills the columns for the result and success of a request.
            attributes={
                **attributes,
                "http.request.method": str(attributes["http_method"]),
                "http.response.status_code": answered.status,
            },
            kind=trace.SpanKind.SERVER,
            status=trace.Status(trace.StatusCode.UNSET if answered.succeeded else trace.StatusCode.ERROR),
            start_time=answered.began_ns,
            end_time=answered.ended_ns,
        )

    def _record(self, line: records.Record) -> "ReadableLogRecord":
        attributes = self._service.attributes
        body: str | None = line.text
        raised = records.find_exception(line.text) if line.level in "EC" else None
        if raised is not None:
            attributes |= {
                "exception.type": raised.kind,
                "exception.message": raised.message,
                "exception.stacktrace": line.text,
            }
            body = None  # it would stand in the place of the exception's own message
        return self._log_record(line.time_ns, line.level, line.logger, body, attributes)

    def _data(self, scored: Scored) -> "ReadableLogRecord":
        attributes = records.model_data(scored, self._service, self._models)
        return self._log_record(scored.time_ns, "I", "azmlinfsrv.trace", "model_data_collection", attributes)

    def _log_record(
        self, time_ns: int, level: str, logger_name: str, body: str | None, attributes: dict[str, str]
    ) -> "ReadableLogRecord":
        return self._sdk_logs.ReadableLogRecord(
            self._logs.LogRecord(
                timestamp=time_ns,
                observed_timestamp=time_ns,
                severity_number=self._levels[level],
                body=body,
                attributes=attributes,
            ),
            self._resource,
            self._scope(logger_name),
        )

    @functools.cached_property
    def _models(self) -> list[str]:
        """Looked for when they are told first, in the thread: the folder may lie on a slow disk."""
        return find_models(self._service.model_dir)


def find_models(folder: str) -> list[str]:
    """The models of AZUREML_MODEL_DIR, each as `name:version`: the folder is `<name>/<version>` itself, or holds such."""
    if not folder:
        return []
    root = Path(folder).absolute()
    if root.name.isdecimal():
        return [f"{root.parent.name}:{root.name}"] if root.is_dir() else []
    try:
        found = [path for path in root.glob("*/*") if path.name.isdecimal()]
    except OSError as error:
        logger.warning("The models in %s cannot be listed: %s.", folder, error)
        return []
    return [f"{path.parent.name}:{path.name}" for path in sorted(found)]


class Insights:
    """What the front tells, on its way to an exporter. All methods are the event loop's, and none of them waits."""

    def __init__(self, exporter: Exporter, *, tells_responses: bool, tells_model_data: bool = False) -> None:
        self.tells_responses = tells_responses
        self.tells_model_data = tells_model_data
        self.dropped = 0
        self._exporter = exporter
        self._waiting: deque[_Item] = deque()
        # Two counts, each with one writer: bytes that came in, and bytes that have gone.
        self._bytes_in = 0
        self._bytes_out = 0
        self._sources: dict[int, _Source] = {}
        self._reported = 0
        self._ending = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="insights", daemon=True)
        self._thread.start()

    def answered(self, answered: Answered) -> None:
        """A request has its answer."""
        self._leave(answered, len(answered.body or b""))

    def scored(self, scored: Scored) -> None:
        """run() has answered a request."""
        self._leave(scored, _size(scored))

    def printed(self, source: int, lines: bytes) -> None:
        """A scorer wrote whole lines. `source` tells one pipe from the others."""
        if lines:
            self._leave(_Printed(source, lines), len(lines))

    def failed(self, message: str, traceback: str) -> None:
        """A scorer could not load."""
        self._leave(_Failed(message, traceback, time.time_ns()), len(message) + len(traceback))

    def close(self, timeout_s: float = FLUSH_S) -> bool:
        """Send what is there. Returns when that is done, or after `timeout_s`; was it done? For any thread."""
        self._ending = True
        self._wake.set()
        self._thread.join(timeout_s)
        done = not self._thread.is_alive()
        if not done:
            logger.warning("Application Insights did not take everything within %g s: the rest is lost.", timeout_s)
        return done

    def _leave(self, item: "_Item", size: int) -> None:
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING or self._bytes_in - self._bytes_out + size > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._bytes_in += size
        waiting.append(item)
        if len(waiting) == SEND_AT:
            self._wake.set()

    # The thread's side

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(SEND_EVERY_S)
            self._wake.clear()
            self._send(last=False)
        self._send(last=True)

    def _send(self, *, last: bool) -> None:
        try:
            requests, lines = self._take(last=last)
            self._exporter.send(requests, lines)
        except Exception:  # whatever it is, the thread must go on: the next may go well
            logger.exception("Telemetry could not be sent to Application Insights.")
        dropped = self.dropped
        if dropped != self._reported:
            self._reported = dropped
            logger.warning(
                "There is more to tell than Application Insights takes: %d records are lost so far.", dropped
            )

    def _take(self, *, last: bool) -> tuple[list[Answered], list[records.Record | Scored]]:
        """What waits now, as records. A record that may go on is kept until its pipe has been silent for a while."""
        requests: list[Answered] = []
        lines: list[records.Record | Scored] = []
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            if isinstance(item, Answered):
                requests.append(item)
                self._bytes_out += len(item.body or b"")
            elif isinstance(item, Scored):
                lines.append(item)
                self._bytes_out += _size(item)
            elif isinstance(item, _Printed):
                source = self._sources.setdefault(item.source, _Source())
                source.heard_at = now
                lines += source.cutter.feed(item.data)
                self._bytes_out += len(item.data)
            else:
                text = f"{item.message}\n{item.traceback}" if item.traceback else item.message
                lines.append(records.Record(item.time_ns, "E", "azmlinfsrv", text))
                self._bytes_out += len(item.message) + len(item.traceback)
        for number, source in list(self._sources.items()):
            if last or now - source.heard_at > SILENT_AFTER_S:
                lines += self._sources.pop(number).cutter.finish()
        return requests, lines


def start(
    connection_string: str | None, service: Service, *, tells_responses: bool, tells_model_data: bool = False
) -> Insights | None:
    """Telemetry, if there is a connection string. Where it cannot be had, the log says why, and the server serves on."""
    if connection_string is None:
        return None
    _listen_to_the_packages()
    try:
        exporter = Exporter(connection_string, service)
    except ImportError as error:
        logger.error(  # noqa: TRY400 - which import failed is all there is to say
            "Application Insights is configured, but its packages cannot be imported: %s. Nothing is sent there. "
            "Install them beside the server: pip install 'scoring-runtime[appinsights]'",
            error,
        )
        return None
    except ValueError as error:
        logger.error(  # noqa: TRY400 - as above
            "Application Insights does not take its connection string: %s. Nothing is sent there. "
            "Write InstrumentationKey=...;IngestionEndpoint=..., as the Azure portal shows it.",
            str(error).rstrip("."),
        )
        return None
    return Insights(exporter, tells_responses=tells_responses, tells_model_data=tells_model_data)


def _listen_to_the_packages() -> None:
    """Warnings of these packages go to the server's log, in its form."""
    for name in ("azure", "opentelemetry"):
        theirs = logging.getLogger(name)
        theirs.handlers = list(logging.getLogger("scoring_runtime").handlers)
        theirs.setLevel(logging.WARNING)
        theirs.propagate = False
