"""N scorers, kept alive."""

import asyncio
import functools
import itertools
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..dispatch.queue import Ticket
from ..errors import ScorerStartError
from . import gpus, nursery
from .back_off import BackOff
from .launch import LaunchPlan
from .launcher import Launched
from .life import Ending, State
from .process import Ids, Reply, Scorer

logger = logging.getLogger("scoring_runtime.pool")


class _Seat:
    """One of the N places: the scorer that has it now, and how its predecessors did."""

    def __init__(self, index: int, gpu: str) -> None:
        self.index = index
        self.gpu = gpu
        self.scorer: Scorer | None = None
        self.back_off = BackOff()
        self.ready_at = float("inf")
        self.restart_at = 0.0
        self.last_error = ""

    def describe(self, now: float) -> str:
        """In a line, for a person."""
        scorer = self.scorer
        if scorer is not None:
            text = f"{scorer.state.value} (pid {scorer.pid})"
        elif self.restart_at > now:
            text = f"restart in {self.restart_at - now:.1f} s"
        else:
            text = "starting"
        if self.gpu:
            text += f" on {self.gpu}"
        if self.last_error:
            row = self.back_off.in_a_row
            text += f"; before{f', {row} times in a row' if row > 1 else ''}: {self.last_error}"
        return text


class Pool:
    """Starts N scorers, hands out idle ones, restarts what ends.

    on_idle: a scorer became free, or began the frame that was sent ahead. on_replies: tickets with their replies, and how long the scorer was busy.
    on_piece: one piece of a reply that comes in pieces. on_returned: tickets that wait behind such a reply, not begun.
    on_unsettled: a scorer ended; the tickets that it had, if any, each with whether it may have run.
    on_boot_failed: a scorer could not load before the pool was ready for the first time. on_ended: a process is gone.
    on_output: a scorer wrote whole lines; the number tells its pipes apart.
    max_memory_bytes: a scorer that holds more is killed; 0 for any size. endings: counts, by reason, why scorers ended.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        size: int,
        start_timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        *,
        first_boot: bool,
        on_idle: Callable[[], None],
        on_replies: Callable[[Scorer, list[tuple[Ticket, Reply]], int], None],
        on_piece: Callable[[Scorer, Ticket, Reply], None],
        on_returned: Callable[[list[Ticket]], None],
        on_unsettled: Callable[[Scorer, list[tuple[Ticket, bool]]], None],
        on_boot_failed: Callable[[ScorerStartError], None],
        on_ended: Callable[[], None],
        on_output: Callable[[int, bytes], None] | None = None,
        max_memory_bytes: int = 0,
        endings: Counter[str] | None = None,
    ) -> None:
        self._plan = plan
        self._start_timeout_s = start_timeout_s
        self._loop = loop
        self._on_idle = on_idle
        self._on_replies = on_replies
        self._on_piece = on_piece
        self._on_returned = on_returned
        self._on_unsettled = on_unsettled
        self._on_boot_failed = on_boot_failed
        self._on_ended = on_ended
        self._on_output = on_output
        self._max_memory_bytes = max_memory_bytes
        self._endings = Counter() if endings is None else endings
        self._launcher = nursery.choose(plan, start_timeout_s, loop, on_ended, on_output)
        self._seats = [_Seat(index, plan.gpus[index] if plan.gpus else "") for index in range(size)]
        self._numbers = itertools.count(1)
        self._ids = Ids()
        self._booted = not first_boot
        self._was_ready = False
        self._draining = False
        self._reported: ScorerStartError | None = None
        self.idle: list[Scorer] = []
        self.info: dict[str, Any] = {}

    def start(self) -> None:
        """Start all scorers; returns at once."""
        if self._plan.gpus:
            shared = ", and those of one GPU share its memory" if len(set(self._plan.gpus)) < self.size else ""
            logger.info("Each scorer sees one GPU%s: %s.", shared, gpus.describe(self._plan.gpus))
        for seat in self._seats:
            self._start(seat)

    @property
    def size(self) -> int:
        """How many scorers there are when all is well."""
        return len(self._seats)

    @property
    def live(self) -> int:
        """How many scorers can take requests, now or when they are done with what they have."""
        return sum(
            1 for seat in self._seats if seat.scorer is not None and seat.scorer.state in (State.READY, State.BUSY)
        )

    @property
    def ready(self) -> bool:
        """At first every scorer must have loaded; later half of them will do, but at least one."""
        return not self._draining and self._was_ready and 2 * self.live >= self.size

    @property
    def started(self) -> bool:
        """Every scorer has loaded once."""
        return self._was_ready

    def describe(self) -> list[str]:
        """One line for each scorer, for a person, after what is wrong with all of them."""
        now = self._loop.time()
        lines = [f"scorer {index}: {seat.describe(now)}" for index, seat in enumerate(self._seats, 1)]
        if self.degraded is not None:
            lines.insert(0, f"degraded: {self.degraded}")
        return lines + self._launcher.describe()

    @property
    def degraded(self) -> str | None:
        """Why a scorer that lives does not run its model where it should; None when all do."""
        live = [seat.scorer for seat in self._seats if seat.scorer is not None]
        return next((why for scorer in live if (why := scorer.info.get("degraded"))), None)

    @property
    def restarts(self) -> int:
        """How often a scorer had to be replaced."""
        return sum(self._endings.values())

    @property
    def failures_in_a_row(self) -> int:
        """The most lives in a row, of any place, that ended too soon."""
        return max(seat.back_off.in_a_row for seat in self._seats)

    def tick(self, now: float) -> None:
        """Kill what missed a deadline, is stopped or too large; recall what waits behind a slow stream; give memory back.

        To be called a few times a second.
        """
        if self._plan.arena is not None:
            self._plan.arena.tick(now)
        self._launcher.check(now)
        for seat in self._seats:
            if seat.scorer is not None:
                seat.scorer.check(now)

    def drain(self) -> None:
        """No restarts any more; every scorer ends when it is done with what it has."""
        self._draining = True
        self.idle.clear()
        for seat in self._seats:
            if seat.scorer is not None:
                seat.scorer.drain()
        self._launcher.drain()

    @property
    def empty(self) -> bool:
        """No scorer process is left."""
        return all(seat.scorer is None for seat in self._seats) and self._launcher.empty

    def kill(self, why: str) -> None:
        """End every scorer now, and start no other."""
        self._draining = True
        self.idle.clear()
        for seat in self._seats:
            if seat.scorer is not None:
                seat.scorer.kill(why)
        self._launcher.kill(why)

    # What scorers tell

    def scorer_ready(self, scorer: Scorer) -> None:
        """A scorer has loaded."""
        if scorer.state is not State.READY:
            return
        self._tell_placement(scorer.info)
        self.info = scorer.info
        seat = self._seat_of(scorer)
        seat.ready_at = self._loop.time()
        if self.live == self.size:
            self._booted = self._was_ready = True
        logger.info("Scorer %d (pid %d) is ready.", scorer.number, scorer.pid)
        self.scorer_settled(scorer)

    def _tell_placement(self, info: dict[str, Any]) -> None:
        """Where the model runs, once for all scorers: again only if it is another place than before."""
        if info.get("placement") != self.info.get("placement"):
            logger.info("The model runs here: %s.", info.get("placement"))
        if (why := info.get("degraded")) and why != self.info.get("degraded"):
            logger.warning("Degraded: %s.", why)

    def scorer_replied(self, scorer: Scorer, settled: list[tuple[Ticket, Reply]], busy_us: int) -> None:
        """Replies came."""
        self._on_replies(scorer, settled, busy_us)

    def scorer_streamed(self, scorer: Scorer, ticket: Ticket, reply: Reply) -> None:
        """A piece of a reply came."""
        self._on_piece(scorer, ticket, reply)

    def scorer_returned(self, scorer: Scorer, tickets: list[Ticket]) -> None:
        """Requests that it has not begun came back."""
        self._on_returned(tickets)

    def scorer_settled(self, scorer: Scorer) -> None:
        """A scorer is free."""
        if not scorer.leaving:
            self.idle.append(scorer)
        self._on_idle()

    def scorer_advanced(self, scorer: Scorer) -> None:
        """A scorer can be sent a frame ahead again."""
        self._on_idle()

    def scorer_leaving(self, scorer: Scorer) -> None:
        """A scorer is about to be gone: a frame that it were given now would only be handed back."""
        if scorer in self.idle:
            self.idle.remove(scorer)

    def scorer_ended(self, scorer: Scorer, unsettled: list[tuple[Ticket, bool]]) -> None:
        """A scorer process is gone."""
        seat = self._seat_of(scorer)
        seat.scorer = None
        self._on_ended()
        if scorer in self.idle:
            self.idle.remove(scorer)
        self._on_unsettled(scorer, unsettled)
        if self._draining:
            return
        if not self._booted and not unsettled:  # a request that takes a scorer down does not take the server down
            self._draining = True
            self._on_boot_failed(
                scorer.start_error
                or ScorerStartError(f"{self._plan.target}: the scorer {scorer.exit_text} after it had loaded.")
            )
            return
        self._endings[scorer.ending] += 1
        if unsettled:
            delay_s = seat.back_off.crashed(scorer.answered)
        else:
            delay_s = seat.back_off.ended(max(0.0, self._loop.time() - seat.ready_at), scorer.answered)
        error = scorer.start_error
        seat.last_error = error.message if error else scorer.exit_text
        logger.error(
            "%s %s; restart in %.2f s (%d in a row).%s",
            scorer.name,
            scorer.exit_text,
            delay_s,
            seat.back_off.in_a_row,
            f"\n{error.report()}" if error else "",
        )
        self._start_later(seat, delay_s)

    def _start_later(self, seat: _Seat, delay_s: float) -> None:
        seat.ready_at = float("inf")
        seat.restart_at = self._loop.time() + delay_s
        self._loop.call_later(delay_s, self._start, seat)

    def _start(self, seat: _Seat) -> None:
        if not self._draining:
            self._launcher.launch(seat.index, functools.partial(self._launched, seat))

    def _launched(self, seat: _Seat, outcome: Launched | ScorerStartError) -> None:
        if isinstance(outcome, ScorerStartError):
            self._start_failed(seat, outcome)
            return
        number, limit = next(self._numbers), self._max_memory_bytes
        seat.scorer = Scorer(number, self._plan, outcome, self, self._ids, self._loop, self._on_output, limit)
        seat.scorer.expect_ready(self._start_timeout_s)

    def _start_failed(self, seat: _Seat, error: ScorerStartError) -> None:
        if self._draining:
            return
        if not self._booted:
            self._draining = True
            self._loop.call_soon(self._on_boot_failed, error)
            return
        self._endings[Ending.START_FAILED] += 1
        delay_s = seat.back_off.not_launched()
        seat.last_error = error.message
        text = error.message if error is self._reported else error.report()
        self._reported = error  # several places may have waited for the same start
        logger.error(
            "No scorer was started; next try in %.2f s (%d in a row).\n%s", delay_s, seat.back_off.in_a_row, text
        )
        self._start_later(seat, delay_s)

    def _seat_of(self, scorer: Scorer) -> _Seat:
        return next(seat for seat in self._seats if seat.scorer is scorer)
