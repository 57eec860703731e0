"""The log of what was refused: which limit, its value, its setting; and never a flood of lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.errors import BadRequest, BodyTooLarge, NotFound, Overloaded, TargetTooLong
from scoring_runtime.settings import Settings
from scoring_runtime.telemetry import rejections
from scoring_runtime.telemetry.rejections import Rejections

LARGE = BodyTooLarge("The request body is larger than 10 bytes.", "max_body_bytes")


@pytest.fixture
def lines(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(rejections.logger, "warning", lambda text, *values: told.append(text % values))
    return told


def test_the_first_is_told_at_once_with_its_limit_and_its_setting(lines):
    Rejections(Settings()).refused(LARGE, 100.0)
    assert lines == [
        "Refused a request with 413: The request body is larger than 10 bytes. The limit is --max-body-bytes 104857600."
    ]


def test_a_flood_is_one_line_a_second_with_its_count(lines):
    log = Rejections(Settings())
    for step in range(1001):
        log.refused(LARGE, 100.0 + step / 400)
        log.tick(100.0 + step / 400)
    assert [line.partition(" with")[0] for line in lines] == [
        "Refused a request",
        "Refused 400 requests, the last",
        "Refused 400 requests, the last",
    ]
    log.tick(110.0)
    assert lines[-1].startswith("Refused 200 requests, the last with 413")
    log.tick(112.0)
    log.refused(LARGE, 113.0)
    assert lines[-1].startswith("Refused a request")


def test_each_kind_has_its_own_line(lines):
    log = Rejections(Settings())
    for error in (
        LARGE,
        TargetTooLong("x", "max_target_bytes"),
        Overloaded("x", 1, "max_connections"),
        Overloaded("x", 1, "max_queued_bytes"),
        LARGE,
    ):
        log.refused(error, 1.0)
    log.cut("Its client did not read.", "body_timeout_s", 1.0)
    assert len(lines) == 5
    assert lines[-1] == "Cut a connection: Its client did not read. The limit is --body-timeout-s 30.0."


def test_what_met_no_limit_leaves_no_line(lines):
    Rejections(Settings()).refused(NotFound("x"), 1.0)
    assert lines == []


@given(st.text())
def test_no_text_of_a_client_breaks_the_line(text):
    shown = rejections._printable(text)
    assert shown.isascii()
    assert shown.isprintable()


def test_kinds_are_forgotten(lines):
    log = Rejections(Settings())
    log.refused(BadRequest("x"), 1.0)
    log.tick(3.0)
    assert log._kinds == {}
