"""The thread between the event loop and the exporter, and the exporter itself."""

import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from scoring_runtime.telemetry import insights, records

from .test_records import SERVICE, answered

LINE = b"2026-01-31 12:00:00,123 I [7] azmlinfsrv.print - %d\n"


class Kept(insights.Exporter):
    """An exporter that keeps what it gets, and works only while it may."""

    def __init__(self) -> None:
        self.may_work = threading.Event()
        self.may_work.set()
        self.requests: list[records.Answered] = []
        self.lines: list[records.Record | records.Scored] = []
        self.turns = 0

    def send(self, requests, lines) -> None:
        self.turns += 1
        assert self.may_work.wait(30)
        if any(request.path == b"/raise" for request in requests):
            raise RuntimeError("as asked for")
        self.requests += requests
        self.lines += lines


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("scoring_runtime"), "propagate", True)
    return caplog


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everything_is_sent_at_the_end():
    exporter = Kept()
    telemetry = insights.Insights(exporter, tells_responses=True)
    telemetry.answered(answered())
    telemetry.printed(2, LINE % 1)
    telemetry.printed(3, b"of another pipe\n")
    telemetry.printed(2, b"and more\n")
    telemetry.printed(2, b"")
    telemetry.failed("User's init function failed", "Traceback (most recent call last):\nOSError: no")

    assert telemetry.close()
    assert exporter.requests == [answered()]
    assert sorted(line.text for line in exporter.lines if isinstance(line, records.Record)) == [
        "1\nand more",
        "User's init function failed\nTraceback (most recent call last):\nOSError: no",
    ]


def test_a_hundred_do_not_wait():
    exporter = Kept()
    telemetry = insights.Insights(exporter, tells_responses=True)
    for _ in range(insights.SEND_AT):
        telemetry.answered(answered())
    wait_for(lambda: len(exporter.requests) == insights.SEND_AT)

    assert telemetry.close()


def test_what_is_too_much_is_dropped_and_counted(log):
    exporter = Kept()
    exporter.may_work.clear()
    telemetry = insights.Insights(exporter, tells_responses=True)
    for _ in range(insights.SEND_AT):
        telemetry.answered(answered())
    wait_for(lambda: exporter.turns)
    for _ in range(insights.MAX_WAITING + 7):
        telemetry.answered(answered())

    assert telemetry.dropped == 7
    exporter.may_work.set()
    assert telemetry.close()
    assert len(exporter.requests) == insights.SEND_AT + insights.MAX_WAITING
    assert "7 records are lost so far" in log.text


def test_what_run_did_counts_with_its_bytes():
    exporter = Kept()
    exporter.may_work.clear()
    telemetry = insights.Insights(exporter, tells_responses=True)
    item = records.Scored(
        b"POST", b"/score", {}, b"", b"x" * (insights.MAX_WAITING_BYTES // 2), True, b"y", True, True, 7
    )
    for _ in range(2):
        telemetry.scored(item)

    assert telemetry.dropped == 1
    exporter.may_work.set()
    assert telemetry.close()
    assert exporter.lines == [item]


def test_bytes_are_limited_too():
    exporter = Kept()
    exporter.may_work.clear()
    telemetry = insights.Insights(exporter, tells_responses=True)
    for _ in range(3):
        telemetry.printed(2, b"x" * (insights.MAX_WAITING_BYTES // 2))

    assert telemetry.dropped == 1
    exporter.may_work.set()
    assert telemetry.close()


def test_the_end_does_not_wait_for_ever(log):
    exporter = Kept()
    exporter.may_work.clear()
    telemetry = insights.Insights(exporter, tells_responses=True)
    telemetry.answered(answered())
    began = time.monotonic()

    assert not telemetry.close(0.1)
    assert time.monotonic() - began < 5
    assert "did not take everything within 0.1 s" in log.text
    exporter.may_work.set()
    assert telemetry.close()


def test_a_turn_that_fails_is_not_the_last(log):
    exporter = Kept()
    telemetry = insights.Insights(exporter, tells_responses=True)
    for _ in range(insights.SEND_AT):
        telemetry.answered(answered(path=b"/raise"))
    wait_for(lambda: "could not be sent" in log.text)
    telemetry.answered(answered())

    assert telemetry.close()
    assert exporter.requests == [answered()]


# With the real exporter


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that keep the exporter from talking to anybody but its endpoint; undone after the test."""
    for name, value in insights._QUIET.items():
        monkeypatch.setenv(name, value)


def test_batches_hold_a_hundred(ingestion, quiet):
    telemetry = insights.start(ingestion.connection_string, SERVICE, tells_responses=True)
    assert telemetry is not None
    for number in range(250):
        telemetry.answered(answered())
        telemetry.printed(2, LINE % number)
    assert telemetry.close(30)

    assert len(ingestion.data("RequestData")) == 250
    assert [data["message"] for data in ingestion.data("MessageData")] == [str(number) for number in range(250)]
    assert 6 <= ingestion.calls <= 12


def test_packages_that_are_missing_are_named_with_the_cure(log, monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.monitor.opentelemetry.exporter", None)

    assert insights.start("InstrumentationKey=x", SERVICE, tells_responses=True) is None
    (record,) = log.records
    assert record.levelname == "ERROR"
    assert "pip install 'scoring-runtime[appinsights]'" in record.getMessage()


@pytest.mark.parametrize("text", ["nonsense", "InstrumentationKey=nope", "IngestionEndpoint=http://127.0.0.1:9/"])
def test_a_connection_string_that_is_none_is_said(log, quiet, text):
    assert insights.start(text, SERVICE, tells_responses=True) is None
    (record,) = log.records
    assert "does not take its connection string" in record.getMessage()


OFF = """
import sys
from scoring_runtime.front import worker
from scoring_runtime.telemetry import insights, records
assert insights.start(records.find_connection_string(None, {}), None, tells_responses=True) is None
print(sorted(name for name in sys.modules if name.split(".")[0] in ("azure", "opentelemetry")))
"""

ON = """
import os
from azure.monitor.opentelemetry.exporter._configuration._state import get_configuration_manager
from azure.monitor.opentelemetry.exporter.statsbeat._state import is_statsbeat_enabled
from azure.monitor.opentelemetry.exporter.statsbeat.customer._utils import is_customer_sdkstats_enabled
from scoring_runtime.telemetry import insights, records
insights.Exporter("InstrumentationKey=01234567-89ab-cdef-0123-456789abcdef", records.Service("", "", ""))
print(get_configuration_manager(), is_statsbeat_enabled(), is_customer_sdkstats_enabled())
"""


def run(program: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("APPLICATIONINSIGHTS_")}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    return ended.stdout.strip()


def test_nothing_of_it_is_imported_when_it_is_off():
    assert run(OFF) == "[]"


def test_it_talks_to_its_endpoint_and_to_nobody_else():
    assert run(ON) == "None False False"
