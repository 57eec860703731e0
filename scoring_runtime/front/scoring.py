"""POST /score: from the exchange to the waiting line, from there to a scorer, and back. The front's hot path."""

import asyncio
import logging
from time import monotonic  # uvloop's own clock counts whole milliseconds
from typing import TYPE_CHECKING, cast

from ..dispatch import admission, batcher
from ..dispatch.cost import CostModel
from ..dispatch.queue import RequestQueue, Ticket
from ..errors import MethodNotAllowed, Overloaded, RequestError, ScorerLost, ScoringTimeout
from ..pool.pool import Pool
from ..pool.process import Reply, Scorer
from ..scorer import frames
from ..settings import Settings
from ..telemetry.metrics import Metrics
from . import messages, streaming
from .exchange import Exchange

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger("scoring_runtime.scoring")

MAX_ATTEMPTS = 3
"""A request that may be run again is given up with the third scorer that dies under it."""

METHODS = {name.encode(): number for name, number in frames.METHODS.items()}
MAX_POLLS = 4
"""Looks at the sockets, at most, before what has come in is sent."""

FRAME_SLACK_S = 1.0
"""How much longer than run() may take a scorer may be silent before it is taken to hang."""


class Scoring:
    """The waiting line and whoever empties it."""

    def __init__(self, settings: Settings, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._pool: Pool = cast(Pool, None)
        self._metrics = metrics
        self._loop = loop
        self._queue_limits = admission.QueueLimits(settings.max_queued_requests, settings.max_queued_bytes)
        self._frame_limits = batcher.FrameLimits(
            settings.max_batch_size, settings.max_batch_bytes, settings.batch_target_ms / 1000
        )
        self._max_wait_s = settings.max_queue_wait_ms / 1000
        self._timeout_ms = settings.scoring_timeout_ms
        self._run_timeout_s = settings.scoring_timeout_ms / 1000 or float("inf")
        self._pump_scheduled = False
        self._polls = 0
        self.wanted_headers: str | list[str] = "all"  # until the first scorer says what it wants
        self.queue = RequestQueue()
        self.cost = CostModel()

    def attach(self, pool: Pool) -> None:
        """Who runs what waits. The pool reports to this object, so it is made after it."""
        self._pool = pool

    def submit(self, exchange: Exchange) -> None:
        """Admit a request to the waiting line, or refuse it."""
        queue = self.queue
        if queue.count and not admission.admits(queue, self._queue_limits, len(exchange.body)):
            exchange.fail(admission.refusal(queue, self._queue_limits, self._predicted_wait_s()))
            return
        exchange.queued_at = monotonic()
        queue.push(exchange)
        if not self._pump_scheduled:
            self.pump_soon()

    def pump_soon(self) -> None:
        """Dispatch as soon as what is arriving now has been read."""
        if not self._pump_scheduled and self._pool.idle and self.queue.count:
            self._pump_scheduled = True
            self._polls = 0
            self._loop.call_soon(self._pump, 0)

    def _pump(self, seen: int) -> None:
        """Send frames to idle scorers.

        Not a timer: as long as each look at the sockets, which takes microseconds, finds more requests, one more look is
        taken, up to a few. At 32 connections on one core a frame then holds 32 requests in place of 16, and a request
        costs 15 us in place of 19.
        """
        waiting = self.queue.count
        self._polls += 1
        if seen < waiting < self._frame_limits.max_count and self._polls <= MAX_POLLS:
            self._loop.call_soon(self._pump, waiting)
            return
        self._pump_scheduled = False
        pool = self._pool
        while pool.idle and self.queue.count:
            frame = batcher.take_frame(self.queue, self.cost, self._frame_limits, len(pool.idle))
            scorer = pool.idle.pop()
            self._metrics.dispatched(len(frame))
            scorer.send(frame, self._run_timeout_s + FRAME_SLACK_S)

    def replied(self, scorer: Scorer, settled: list[tuple[Ticket, Reply]], busy_us: int) -> None:
        """Replies came: settle each request alone."""
        now = monotonic()
        if not scorer.in_flight and not scorer.streamed:
            self.cost.observe(scorer.frame_count, busy_us / 1e6)
        for ticket, reply in settled:
            ticket.settle(reply)
        self._metrics.duration_s.observe_all([now - ticket.queued_at for ticket, _ in settled])

    def streamed(self, scorer: Scorer, ticket: Ticket, reply: Reply) -> None:
        """A piece of a reply came."""
        streaming.on_piece(cast(Exchange, ticket), scorer, reply)

    def unsettled(self, scorer: Scorer, tickets: list[tuple[Ticket, bool]]) -> None:
        """A scorer ended. What it may have begun is answered with an error, the rest goes to another scorer."""
        again = []
        for ticket, may_have_run in tickets:
            if ticket.settled:
                continue
            ticket.attempts += 1
            if may_have_run and scorer.timed_out:
                ticket.settle(ScoringTimeout(self._timeout_ms))
            elif may_have_run or ticket.attempts >= MAX_ATTEMPTS:
                ticket.settle(ScorerLost("The process that ran this request ended before it answered. Check the logs."))
            else:
                again.append(ticket)
        self.queue.push_front(again)
        logger.warning(
            "Scorer %d %s with %d requests: %d answered with an error, %d given to another scorer.",
            scorer.number,
            scorer.exit_text,
            len(tickets),
            len(tickets) - len(again),
            len(again),
        )
        self.pump_soon()

    def expire(self, now: float) -> None:
        """Refuse what has waited too long."""
        for ticket in self.queue.take_expired(now, self._max_wait_s):
            ticket.settle(
                self._overloaded(f"The request waited {self._max_wait_s:g} s for a scorer.", "max_queue_wait_ms")
            )

    def fail_all(self, error: RequestError) -> None:
        """Refuse everything that waits."""
        for ticket in self.queue.take_all():
            ticket.settle(error)

    def _overloaded(self, message: str, setting: str) -> Overloaded:
        return Overloaded(message, admission.retry_after(self._predicted_wait_s()), setting)

    def _predicted_wait_s(self) -> float:
        waiting = self.queue.count
        if not waiting:
            return 0.0
        frame_count = min(waiting, self._frame_limits.max_count)
        return self.cost.wait_s(waiting, frame_count, self._pool.live)


def score(server: "Server", exchange: Exchange) -> None:
    """The handler of /score."""
    scoring = server.scoring
    request = exchange.request
    method = request.method
    exchange.logged = True
    if method != b"POST":
        exchange.method = METHODS[method]
        info = server.pool.info
        methods = info.get("methods", ("POST",)) if info else ()
        if info and method.decode() not in methods:
            if method == b"OPTIONS":
                exchange.respond(200, b"", messages.HTML, exchange.flag_lines(0, 0))
            else:
                exchange.fail(MethodNotAllowed(", ".join(methods), "Method not allowed"))
            return
        exchange.head = encode_request_head(exchange, scoring.wanted_headers)
    elif scoring.wanted_headers != "none":
        exchange.head = encode_request_head(exchange, scoring.wanted_headers)
    scoring.submit(exchange)


def encode_request_head(exchange: Exchange, wanted: str | list[str]) -> bytes:
    """The head that travels in the frame: the target, then the header lines that the scorer asked for."""
    request = exchange.request
    lines = [request.target]
    if wanted == "all":
        lines.append(b":remote-addr: " + exchange.connection.peer.encode())
        lines.append(b":scheme: " + exchange.connection.server.scheme)
        lines.extend(b"%b: %b" % header for header in request.headers)
    elif wanted != "none":
        lines.extend(b"%b: %b" % header for header in request.headers if header[0].lower().decode("latin-1") in wanted)
    return b"\n".join(lines)
