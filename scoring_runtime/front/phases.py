"""What a connection waits for, and how long it does.

It waits for its client in one of five phases, each with a deadline that the server's sweep checks:

    IDLE    between requests            closed without a word
    HEAD    a request's head is coming  408
    BODY    a request's body is coming  408; the deadline moves on with what arrives, at a least rate
    BUSY    the server works            none: the scorer has its own deadline
    LINGER  refused, reading to the end so that the client can read why    closed
"""

import enum
from typing import TYPE_CHECKING

from . import refusals

if TYPE_CHECKING:
    from .connection import Connection

LEAST_BYTES_PER_S = 4096
"""A body, or an answer, that moves slower than this for longer than the timeout is given up."""

LINGER_S = 2.0


class Phase(enum.StrEnum):
    """What the connection waits for."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    BUSY = "busy"
    LINGER = "linger"


IDLE, HEAD, BODY, BUSY, LINGER = Phase
NEVER = float("inf")


def check(connection: "Connection", now: float) -> None:
    """Give up what is too late at `now`: an answer that is not read, a request that does not come, a connection."""
    settings = connection.settings
    closing = connection.transport.is_closing()
    if closing and connection.write_stalled_at == NEVER:
        # The transport waits for its client to read what is left, without end: we do not.
        connection.write_stalled_at = now
        connection.write_backlog_bytes = connection.transport.get_write_buffer_size()
    if now - connection.write_stalled_at > settings.body_timeout_s:
        backlog_bytes = connection.transport.get_write_buffer_size()
        read_bytes = connection.write_backlog_bytes - backlog_bytes
        if read_bytes < LEAST_BYTES_PER_S * settings.body_timeout_s:
            connection.server.rejections.cut(*refusals.answer_not_read(settings, LEAST_BYTES_PER_S), now)
            connection.transport.abort()
            return
        connection.write_stalled_at = now
        connection.write_backlog_bytes = backlog_bytes
    if closing:
        return
    if not connection.reading and connection.phase in (HEAD, BODY):
        connection.phase_began = now  # it is not the client that keeps the rest waiting
    passed_s = now - connection.phase_began
    if connection.phase is IDLE:
        if passed_s > settings.keepalive_timeout_s and connection.write_stalled_at == NEVER:
            connection.transport.close()
    elif connection.phase is HEAD:
        if passed_s > settings.head_timeout_s:
            connection.refuse(refusals.head_too_late(settings))
    elif connection.phase is BODY:
        allowed_s = settings.body_timeout_s + connection.body_bytes / LEAST_BYTES_PER_S
        if passed_s > allowed_s and not connection.expects_continue:
            connection.refuse(refusals.body_too_late(allowed_s))
    elif connection.phase is LINGER and passed_s > LINGER_S and not connection.exchanges:
        connection.transport.close()
