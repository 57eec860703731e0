"""What Application Insights is told, without sending anything."""

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.telemetry import records
from scoring_runtime.telemetry.records import Answered, RecordCutter, Service

KEY = "01234567-89AB-cdef-0123-456789abcdef"
SERVICE = Service("digits", "lab", "container-1")
BEGAN_NS = 1_780_000_000_123_456_000


@pytest.mark.parametrize(
    ("given_text", "environ", "expected"),
    [
        (None, {}, None),
        ("InstrumentationKey=x", {}, "InstrumentationKey=x"),
        (None, {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY}, f"InstrumentationKey={KEY.lower()}"),
        ("given", {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY}, "given"),
        (None, {"AML_APP_INSIGHTS_ENABLED": "false", "AML_APP_INSIGHTS_KEY": KEY}, None),
        (None, {"AML_APP_INSIGHTS_ENABLED": "True", "AML_APP_INSIGHTS_KEY": KEY}, None),
        (None, {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": "nope"}, None),
        (None, {"AML_APP_INSIGHTS_ENABLED": "true"}, None),
        (None, {"AML_APP_INSIGHTS_KEY": KEY}, None),
    ],
)
def test_where_telemetry_goes(given_text, environ, expected):
    assert records.find_connection_string(given_text, environ) == expected


def answered(**changed) -> Answered:
    usual = Answered(
        method=b"POST",
        target=b"/score?a=%20b",
        path=b"/score",
        headers=[(b"Accept", b"*/*"), (b"host", b"here:5001")],
        status=200,
        head=b"HTTP/1.1 200 OK\r\nServer: x\r\nx-request-id: A\r\nx-ms-client-request-id: C\r\n\r\n",
        body=b'{"a": 1}',
        whole=True,
        broken=False,
        began_ns=BEGAN_NS,
        ended_ns=BEGAN_NS + 1_234_567_890,
    )
    return usual._replace(**changed)


def test_the_attributes_of_a_request():
    assert records.request_attributes(answered(), SERVICE) == {
        "Container Id": "container-1",
        "Request Id": "A",
        "Client Request Id": "C",
        "Response Value": '{"a": 1}',
        "name": "/score",
        "url": "http://here:5001/score?a=%20b",
        "start_time": "2026-05-28T20:26:40.123456Z",
        "duration": "00:00:01.234",
        "resultCode": "200",
        "success": True,
        "http_method": "POST",
        "Workspace Name": "lab",
        "Service Name": "digits",
    }


def test_a_failure_is_none_below_400():
    assert records.request_attributes(answered(status=399), SERVICE)["success"] is True
    assert records.request_attributes(answered(status=400), SERVICE)["success"] is False
    assert records.request_attributes(answered(broken=True), SERVICE)["success"] is False


def test_ids_are_those_that_the_client_reads():
    head = b"HTTP/1.1 200 OK\r\nX-Request-Id: user's\r\nx-request-id: ours\r\n\r\n"
    attributes = records.request_attributes(answered(head=head), SERVICE)

    assert attributes["Request Id"] == "ours"
    assert attributes["Client Request Id"] == ""


def test_a_response_that_is_not_told_has_no_value():
    assert "Response Value" not in records.request_attributes(answered(body=None), SERVICE)


@pytest.mark.parametrize("target", [b"http://there/score", b"*"])
def test_other_forms_of_a_target(target):
    assert records.request_attributes(answered(target=target), SERVICE)["url"] == target.decode()


def test_a_response_that_is_no_text():
    value = records.response_value(b"\xff\xfe", whole=True)

    assert json.loads(value) == "Scoring request response payload is a non serializable object or raw binary"


def test_a_response_that_was_cut_within_a_character():
    assert records.response_value("é".encode()[:1], whole=True) == records.NOT_TEXT
    assert records.response_value("aé".encode()[:2], whole=False) == "a"


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [
        (0, "00:00:00.000"),
        (-1, "00:00:00.000"),
        (999_999, "00:00:00.000"),
        (1_000_000, "00:00:00.001"),
        (3_661_002_000_000, "01:01:01.002"),
        (86_399_999_000_000, "23:59:59.999"),
        (2 * 86_400_000_000_000 + 5_000_000, "2.00:00:00.005"),
    ],
)
def test_durations(duration_ns, expected):
    assert records.format_duration(duration_ns) == expected


# Log lines

LOG = (
    b"2026-01-31 12:00:00,123 I [7] azmlinfsrv.print - one\n"
    b"two\n"
    b"2026-01-31 12:00:00,124 I [7] azmlinfsrv - POST /score 200 1.000ms 8\n"
    b"not of a record that is told\n"
    b"2026-01-31 12:00:00,125 I [7] root - mine\n"
    b"2026-01-31 12:00:01,000 E [7] azmlinfsrv - Encountered Exception: Traceback (most recent call last):\n"
    b'  File "score.py", line 2, in run\n'
    b"ValueError: bad\n"
    b"\n"
    b"2026-01-31 12:00:02,000 W [7] azmlinfsrv.trace - Model directory\n"
    b"2026-13-31 12:00:02,000 I [7] azmlinfsrv.print - on no day\n"
)
RECORDS = [
    ("I", "azmlinfsrv.print", "one\ntwo"),
    (
        "E",
        "azmlinfsrv",
        'Encountered Exception: Traceback (most recent call last):\n  File "score.py", line 2, in run\nValueError: bad\n',
    ),
    ("W", "azmlinfsrv.trace", "Model directory"),
]


def test_records_of_a_log():
    cutter = RecordCutter()
    found = cutter.feed(b"a line of nobody\n" + LOG) + cutter.finish()

    assert [record[1:] for record in found] == RECORDS
    when = datetime.datetime(2026, 1, 31, 12, 0, 0, 123000, datetime.UTC)
    assert found[0].time_ns == int(when.timestamp() * 1000) * 1_000_000
    assert cutter.finish() == []


@given(st.sets(st.integers(0, LOG.count(b"\n"))))
def test_records_do_not_depend_on_how_lines_come_in(cuts):
    lines = LOG.splitlines(keepends=True)
    cutter = RecordCutter()
    found = []
    start = 0
    for cut in [*sorted(cuts), len(lines)]:
        found += cutter.feed(b"".join(lines[start:cut]))
        start = cut
    found += cutter.finish()

    assert [record[1:] for record in found] == RECORDS


def test_a_record_without_end_is_cut():
    cutter = RecordCutter()
    cutter.feed(LOG.splitlines(keepends=True)[0])
    for _ in range(100):
        cutter.feed(b"x" * 9999 + b"\n")
    (record,) = cutter.finish()

    assert records.MAX_RECORD_BYTES <= len(record.text) < records.MAX_RECORD_BYTES + 10_000


def test_a_record_that_is_no_text():
    cutter = RecordCutter()
    cutter.feed(b"2026-01-31 12:00:00,123 I [7] azmlinfsrv.print - \xff\n")

    assert cutter.finish()[0].text == "\\xff"


def test_the_exception_of_a_traceback():
    text = (
        "Encountered Exception: Traceback (most recent call last):\n"
        '  File "a.py", line 1, in f\n    first()\nKeyError: 1\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        "Traceback (most recent call last):\n"
        '  File "a.py", line 2, in g\n    raise Bad("a: b")\n    ^^^^^^^^^\n'
        "package.Bad: a: b\n  and more\n\n"
    )
    assert records.find_exception(text) == ("package.Bad", "a: b\n  and more")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Traceback (most recent call last):\nMemoryError", ("MemoryError", "")),
        ("Traceback (most recent call last):\n  | odd", ("Exception", "")),
        ("Traceback (most recent call last):", ("Exception", "")),
        ("no traceback", None),
    ],
)
def test_other_tracebacks(text, expected):
    assert records.find_exception(text) == expected
