"""POST /score: from the exchange to the waiting line, from there to a scorer, and back. The front's hot path."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from time import monotonic  # uvloop's own clock counts whole milliseconds
from typing import TYPE_CHECKING, Any, cast

from ..dispatch import admission, batcher
from ..dispatch.admission import Limit
from ..dispatch.cost import CostModel
from ..dispatch.forecast import Flight, Forecast, Line, expected_end, forecast, surely_in_time
from ..dispatch.queue import FOREVER, RequestQueue, Ticket
from ..errors import DeadlineExceeded, MethodNotAllowed, Overloaded, ScorerLost, ScoringTimeout
from ..pool.pool import Pool
from ..pool.process import Reply, Scorer
from ..scorer import frames
from ..settings import Settings
from ..telemetry.metrics import Metrics
from . import messages, streaming
from .exchange import Exchange, settle_all

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger("scoring_runtime.scoring")

MAX_ATTEMPTS = 3
"""A request that may be run again is given up with the third scorer that dies under it."""

METHODS = {name.encode(): number for name, number in frames.METHODS.items()}
MAX_LOOKS = 4
"""Looks at the sockets, at most, before what has come in is sent."""

CLOSED_S = 0.05
"""How long, at most, a refusal holds for others without another look."""

FRAME_SLACK_S = 1.0
"""How much longer than run() may take a scorer may be silent before it is taken to hang."""


_SETTINGS = {
    Limit.COUNT: "max_queued_requests",
    Limit.BYTES: "max_queued_bytes",
    Limit.WAIT: "max_queue_wait_ms",
    Limit.DEADLINE: "",  # the client's own
}
"""What sets each limit."""


class Scoring:
    """The waiting line and whoever empties it."""

    def __init__(
        self, settings: Settings, metrics: Metrics, loop: asyncio.AbstractEventLoop, connections: Collection[object]
    ) -> None:
        self._pool: Pool = cast(Pool, None)
        self._connections = connections
        self._metrics = metrics
        self._loop = loop
        self._queue_limits = admission.QueueLimits(
            settings.max_queued_requests, settings.max_queued_bytes, settings.max_queue_wait_ms / 1000
        )
        # What scorers may have at a time is shared out evenly: each gets so much that none has to wait for another's.
        max_count = settings.max_batch_size
        self._max_busy = settings.scorers
        if settings.max_concurrent_requests:
            max_count = min(max_count, max(1, settings.max_concurrent_requests // settings.scorers))
            self._max_busy = min(settings.scorers, settings.max_concurrent_requests)
        self._frame_limits = batcher.FrameLimits(max_count, settings.max_batch_bytes, settings.batch_target_ms / 1000)
        self._timeout_ms = settings.scoring_timeout_ms
        self._run_timeout_s = settings.scoring_timeout_ms / 1000 or float("inf")
        self._arrived: list[Exchange] = []  # in this turn of the loop, not in the line yet
        self._timed_arrived = False  # some of them have deadlines of their own
        self._turn_scheduled = False
        self._looks = 0  # at the sockets, since a scorer was free and something waited
        self.wanted_headers: str | list[str] = "all"  # until the first scorer says what it wants
        self._flights: dict[Scorer, Flight] = {}  # what each works on
        self._ahead: dict[Scorer, Flight] = {}  # what some have beside it
        self._may_send_ahead = not settings.max_concurrent_requests  # that bound is of what scorers have, all together
        self._sends_ahead = False  # and the engine takes it
        self._look_scheduled = False  # for frames that nobody waits for
        self.queue = RequestQueue()
        self.cost = CostModel()
        # Up to here nothing needs to be predicted for a request.
        self._roomy_count: float = settings.max_queued_requests
        self._roomy_for = (self.cost.version, 0)
        # A refusal holds for all who come while the line is no shorter: most of an overload is refused without a look.
        self._closed_count = 0
        self._closed_until = 0.0
        self._closed_by = (Limit.COUNT, 1)

    def attach(self, pool: Pool) -> None:
        """Who runs what waits. The pool reports to this object, so it is made after it."""
        self._pool = pool

    def adopt(self, info: dict[str, Any]) -> None:
        """Go by what the engine says of itself."""
        # An engine that found that its rows are better run one by one takes n times as long for n.
        self.cost.stacks = info.get("batchable") is True and info.get("rows_per_run") != 1
        self._sends_ahead = self._may_send_ahead and bool(info.get("ahead"))

    def submit(self, exchange: Exchange) -> None:
        """Admit a request to the waiting line, or refuse it, with all others that come in this turn of the loop."""
        self._arrived.append(exchange)
        if not self._turn_scheduled:
            self._turn_soon()

    def submit_timed(self, exchange: Exchange) -> None:
        """The same for a request that has a deadline of its own."""
        self._timed_arrived = True
        self.submit(exchange)

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for its answer any more."""
        self.queue.cancel(exchange)  # one that has only arrived is settled by that, and does not join the line
        if not self._look_scheduled:
            self._look_scheduled = True
            self._loop.call_soon(self._stop_deserted)

    def begin_turn(self) -> None:
        """What is submitted from now on waits for whoever calls this to call `turn`."""
        self._turn_scheduled = True

    def _turn_soon(self) -> None:
        self._turn_scheduled = True
        self._loop.call_soon(self.turn)

    def turn(self) -> None:
        """What has arrived joins the line, and idle scorers get what waits.

        Not a timer: as long as each look at the sockets, which takes microseconds, finds more requests, one more look is
        taken, up to a few. At 32 connections on one core a frame then holds 32 requests in place of 16, and a request
        costs 15 us in place of 19.
        """
        self._turn_scheduled = False
        pool = self._pool
        if self._arrived:
            self._admit_arrived()
            # A client that waits sends nothing: where all wait, the look would find nobody.
            most = min(self._frame_limits.max_count, len(self._connections))
            if pool.idle and self.queue.count < most and self._looks < MAX_LOOKS:
                self._looks += 1
                self._turn_soon()
                return
        self._looks = 0
        while pool.idle and self.queue.count and len(self._flights) < self._max_busy:
            self._send_frame()
        if self._sends_ahead and self.queue.count:
            self._send_ahead()

    def _admit_arrived(self) -> None:
        """Most arrive while there is room for all of them: to admit them one by one would take 0.5 us more for each."""
        arrived = [exchange for exchange in self._arrived if not exchange.settled]
        self._arrived.clear()
        timed, self._timed_arrived = self._timed_arrived, False
        now = monotonic()
        queue = self.queue
        for exchange in arrived:
            exchange.queued_at = now
        size_bytes = sum([len(exchange.body) for exchange in arrived])
        roomy = queue.count + len(arrived) <= self._roomy_count
        if roomy and not timed and queue.size_bytes + size_bytes <= self._queue_limits.max_bytes:
            queue.extend(arrived, size_bytes)
            return
        for exchange in arrived:
            if self._admits(exchange, now):
                queue.timed = queue.timed or exchange.expires_at != FOREVER
                queue.push(exchange)

    def _admits(self, exchange: Exchange, now: float) -> bool:
        """Whether a request may join the line; it has been refused otherwise."""
        queue = self.queue
        size_bytes = len(exchange.body)
        if (
            queue.count < self._roomy_count
            and queue.size_bytes + size_bytes <= self._queue_limits.max_bytes
            and exchange.expires_at == FOREVER
        ):
            return True
        if queue.count >= self._closed_count and now < self._closed_until:
            limit, retry_after_s = self._closed_by
        else:
            limits = self._queue_limits
            ahead = self._forecast(size_bytes, now)
            met = admission.limit_met(queue, limits, size_bytes, ahead, exchange.expires_at - now)
            if met is None:
                return True
            limit, retry_after_s = met, admission.retry_after(ahead.wait_s)
            # What holds for one that is no larger than the others holds for all. With nobody in line it depends on when
            # a scorer is free, and that may be at once.
            if queue.count and size_bytes * queue.count <= queue.size_bytes:
                over_s = {Limit.COUNT: CLOSED_S, Limit.WAIT: ahead.wait_s - limits.max_wait_s}.get(limit, 0.0)
                self._closed_by = limit, retry_after_s
                self._closed_count = queue.count
                self._closed_until = now + min(over_s, CLOSED_S)
        self._metrics.refused[limit] += 1
        what = "too busy to answer before the deadline of the request" if limit is Limit.DEADLINE else "overloaded"
        exchange.fail(
            Overloaded(f"The server is {what}. Try again in {retry_after_s} s.", retry_after_s, _SETTINGS[limit])
        )
        return False

    def pump_soon(self) -> None:
        """Dispatch as soon as what is arriving now has been read."""
        if not self._turn_scheduled and self.queue.count and (self._pool.idle or self._sends_ahead):
            self._turn_soon()

    def _send_frame(self) -> None:
        """Send what waits longest to an idle scorer, but nothing that nobody waits for any more."""
        now = monotonic()
        frame, flight = self._take_frame(now)
        if flight is None:
            return
        scorer = self._pool.idle.pop()
        self._flights[scorer] = flight
        scorer.send(frame, self._run_timeout_s + FRAME_SLACK_S)

    def _send_ahead(self) -> None:
        """Send full frames to scorers that still work on one, so that each can go on to the next without a pause."""
        flights, ahead = self._flights, self._ahead
        while (
            len(ahead) < len(flights)
            and not self._pool.idle
            and batcher.fills_all(self.queue, self.cost, self._frame_limits, self._max_busy)
        ):
            takers = [scorer for scorer, flight in flights.items() if scorer.takes_ahead and not flight.alone]
            if not takers:
                return
            scorer = min(takers, key=lambda taker: flights[taker].expected_at)
            now = monotonic()
            frame, flight = self._take_frame(now)
            if flight is None:
                return
            flight.expected_at += max(0.0, flights[scorer].expected_at - now)
            ahead[scorer] = flight
            scorer.send_ahead(frame, self._run_timeout_s + FRAME_SLACK_S)

    def _take_frame(self, now: float) -> tuple[list[Ticket], Flight | None]:
        """The next frame of the line, to be sent now; no flight where none of it may still run."""
        queue = self.queue
        size_bytes, timed = queue.size_bytes, queue.timed
        frame = batcher.take_frame(queue, self.cost, self._frame_limits, self._idle_seats())
        size_bytes -= queue.size_bytes
        max_wait_s = self._queue_limits.max_wait_s
        if timed or frame[0].queued_at <= now - max_wait_s:
            frame, late = batcher.split_late(frame, now, max_wait_s)
            for ticket in late:
                self._expire(ticket, now)
            if not frame:
                return frame, None
            for ticket in frame:
                if ticket.expires_at != FOREVER:
                    ticket.timeout_ms = min(frames.MAX_U32, max(1, int((ticket.expires_at - now) * 1000)))
        count = len(frame)
        flight = Flight(count, size_bytes, expected_end(self.cost, count, size_bytes, now), timed)
        flight.alone = frame[0].attempts > 0
        self._metrics.dispatched(count)
        return frame, flight

    def replied(self, scorer: Scorer, settled: list[tuple[Ticket, Reply]], busy_us: int) -> None:
        """Replies came: settle each request alone."""
        now = monotonic()
        flight = self._flights[scorer]
        if flight.timed:
            self._count_expired(flight, settled)
        if not scorer.in_flight:
            self._land(scorer, now)
            if not scorer.streamed and not flight.stopped and flight.count > flight.expired:
                self.cost.observe(flight.count - flight.expired, flight.size_bytes, busy_us / 1e6)
                self._update_room(flight.size_bytes // flight.count)
        settle_all(cast(list[tuple[Exchange, Reply]], settled))
        self._metrics.duration_s.observe_all([now - ticket.queued_at for ticket, _ in settled])

    def streamed(self, scorer: Scorer, ticket: Ticket, reply: Reply) -> None:
        """A piece of a reply came."""
        if not scorer.in_flight:
            self._land(scorer, monotonic())
        streaming.on_piece(cast(Exchange, ticket), scorer, reply)

    def _land(self, scorer: Scorer, now: float) -> None:
        """The frame that a scorer worked on is settled. If it has another, the time of that counts from now."""
        following = self._ahead.pop(scorer, None)
        if following is None:
            del self._flights[scorer]
        else:
            following.expected_at = expected_end(self.cost, following.count, following.size_bytes, now)
            self._flights[scorer] = following

    def returned(self, tickets: list[Ticket]) -> None:
        """What waited behind a slow stream, and has not begun: another scorer may have it."""
        self.queue.push_front(ticket for ticket in tickets if not ticket.settled)
        self.pump_soon()

    def unsettled(self, scorer: Scorer, tickets: list[tuple[Ticket, bool]]) -> None:
        """A scorer ended. What it may have begun is answered with an error, the rest goes to another scorer."""
        self._flights.pop(scorer, None)
        self._ahead.pop(scorer, None)
        if not tickets:
            return
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

    def tick(self, now: float) -> None:
        """Answer those whose time is over, wherever they are."""
        for ticket in self.queue.take_expired(now, self._queue_limits.max_wait_s):
            self._expire(ticket, now)
        for _, flight, frame in self._sent_frames():
            if flight.timed:
                for ticket in list(frame.values()):
                    # A script's run goes on: to interrupt it would let a client stop other people's code where it likes.
                    if ticket.expires_at <= now and not ticket.settled and cast(Exchange, ticket).stream is None:
                        self._expire(ticket, now)
        self._stop_deserted()
        self._update_room(self.queue.size_bytes // (self.queue.count or 1))

    def _sent_frames(self) -> list[tuple[Scorer, Flight, dict[int, Ticket]]]:
        """Everything that scorers have, frame by frame."""
        return [
            *((scorer, flight, scorer.in_flight) for scorer, flight in self._flights.items()),
            *((scorer, flight, scorer.ahead) for scorer, flight in self._ahead.items()),
        ]

    def _stop_deserted(self) -> None:
        """Where a scorer has a frame of which no request is waited for any more, it gives it up if it can."""
        self._look_scheduled = False
        for scorer, flight, frame in self._sent_frames():
            if not flight.stopped and all(ticket.settled for ticket in frame.values()) and scorer.stop(frame):
                flight.stopped = True
                self._metrics.runs_stopped += 1

    def _expire(self, ticket: Ticket, now: float) -> None:
        if ticket.expires_at <= now:
            self._metrics.expired[Limit.DEADLINE] += 1
            ticket.settle(DeadlineExceeded())
        else:
            self._metrics.expired[Limit.WAIT] += 1
            retry_after_s = admission.retry_after(self._forecast(0, now).wait_s)
            text = f"The server is overloaded: the request waited too long. Try again in {retry_after_s} s."
            ticket.settle(Overloaded(text, retry_after_s, _SETTINGS[Limit.WAIT]))

    def _count_expired(self, flight: Flight, settled: list[tuple[Ticket, Reply]]) -> None:
        """A frame of which only some requests ran says nothing about the cost of a frame of all of them."""
        for ticket, (_, _, flags, *_) in settled:
            if flags & frames.FLAG_EXPIRED:
                flight.expired += 1
                if not ticket.settled:
                    self._metrics.expired[Limit.DEADLINE] += 1

    def _forecast(self, size_bytes: int, now: float) -> Forecast:
        line = Line(self.queue.count, self.queue.size_bytes, self._idle_seats())
        flights = {**self._flights, **self._ahead}.values() if self._ahead else self._flights.values()
        return forecast(self.cost, self._frame_limits, line, flights, size_bytes, now)

    def _idle_seats(self) -> int:
        """How many more scorers may be given something now."""
        return min(len(self._pool.idle), self._max_busy - len(self._flights))

    def _update_room(self, each_bytes: int) -> None:
        """Find out anew how many requests of `each_bytes` may wait without a look at each."""
        scorers = min(self._pool.live, self._max_busy)
        if self._roomy_for != (self.cost.version, scorers):
            self._roomy_for = (self.cost.version, scorers)
            limits = self._queue_limits
            together = batcher.frame_count(self.cost, self._frame_limits, each_bytes)
            self._roomy_count = min(limits.max_count, together * surely_in_time(self.cost, limits.max_wait_s, scorers))


def score(server: "Server", exchange: Exchange, timed: bool = False) -> None:
    """The handler of /score. `timed`: `exchange` has a deadline of its own."""
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
    if timed:
        scoring.submit_timed(exchange)
    else:
        scoring.submit(exchange)


def score_bare(server: "Server", exchange: Exchange) -> None:
    """The same for a POST of which scorers want no header and the log no line: an ONNX model's."""
    server.scoring.submit(exchange)


def encode_request_head(exchange: Exchange, wanted: str | list[str]) -> bytes:
    """The head that travels in the frame: the target, then the header lines that the scorer asked for."""
    request = exchange.request
    lines = request.wanted_lines
    if lines is None:
        scheme = (b":scheme", exchange.connection.server.scheme)
        lines = request.wanted_lines = _lines(
            [scheme, *request.headers] if wanted == "all" else request.headers, wanted
        )
    if wanted == "all":
        lines = b"\n:remote-addr: %b%b" % (exchange.connection.peer.encode(), lines)
    return request.target + lines


def _lines(headers: Sequence[tuple[bytes, bytes]], wanted: str | list[str]) -> bytes:
    """Those that are wanted, each behind an LF."""
    if wanted == "none":
        return b""
    chosen = (header for header in headers if wanted == "all" or header[0].lower().decode("latin-1") in wanted)
    return b"".join([b"\n%b: %b" % header for header in chosen])
