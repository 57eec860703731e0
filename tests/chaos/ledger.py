"""The book of requests: each is settled once, by its own answer, or there is a reason. Pure: `now` comes in as a number.

    sent = right + refused + error + lost + left + open        open must be 0 at the end

right    status 200 with the request's own id and the value that its input gives
refused  503: the server says that nothing of it has run
error    any other status. A request that asked for nothing bad needs an excuse: a fault that was at work meanwhile
lost     the connection ended without an answer. It needs an excuse, too: a fault that cuts connections
left     its client went away on purpose
"""

import enum
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

SLACK_S = 1.0
"""What a fault did may be seen this much later: answers lie in sockets."""

MAX_DETAILS = 50
"""Violations of one kind that are kept in words; all are counted."""


class Cuts(enum.Enum):
    """Which connections a fault may end without an answer."""

    NONE = "none"
    IDLE = "idle"
    """Those of which nothing has begun: a request may cross with the end of its connection, and is lost before it ran."""

    ANY = "any"


class Outcome(enum.IntEnum):
    """What became of a request."""

    OPEN = 0
    RIGHT = 1
    REFUSED = 2
    ERROR = 3
    LOST = 4
    LEFT = 5
    WRONG = 6


@dataclass
class Window:
    """A fault at work on a server."""

    fault: str
    harms: bool
    """Requests that asked for nothing bad may be answered with an error."""

    cuts: Cuts

    began: float
    ended: float = float("inf")

    def touches(self, since: float, until: float) -> bool:
        """Whether it was at work at any time between the two."""
        return self.began <= until and since <= self.ended + SLACK_S


@dataclass
class Request:
    """One that has not been settled yet."""

    number: int
    server: str
    client: str
    good: bool
    probe: bool
    sent_at: float


@dataclass
class Violations:
    """What must not be, by kind."""

    counts: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    tell: Callable[[str], object] = str
    """Hears of each that is kept in words, when it happens."""

    def add(self, kind: str, detail: str) -> None:
        """Count one, and keep it in words if there are not too many of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_DETAILS:
            self.details.append(f"{kind}: {detail}")
            self.tell(self.details[-1])


class Ledger:
    """Numbers the requests, and is told what becomes of them."""

    def __init__(self) -> None:
        self.violations = Violations()
        self.counts: Counter[tuple[str, str, Outcome]] = Counter()
        """Requests by server, client and outcome."""

        self.reasons: Counter[tuple[str, str, str]] = Counter()
        """Requests that got no right answer, by server, outcome and the fault that excuses it."""

        self.windows: dict[str, list[Window]] = {}
        self.longest_s: dict[str, float] = {}
        """The longest wait for an answer, by server."""

        self._open: dict[int, Request] = {}
        self._outcomes = array("b", [0])
        self._servers: list[str] = []
        self._server_of = array("b", [0])
        self._lost_idle: set[int] = set()

    def sent(
        self, server: str, client: str, now: float, *, good: bool = True, runs: bool = True, probe: bool = False
    ) -> int:
        """A request is about to be sent; its number, which no other one has.

        good: it asks for nothing that may be answered with an error. runs: it runs in a scorer that notes its number.
        probe: its answer depends on whether the scorers have loaded, and any fault may change that.
        """
        number = len(self._outcomes)
        if server not in self._servers:
            self._servers.append(server)
        self._outcomes.append(Outcome.OPEN)
        self._server_of.append(self._servers.index(server) if runs else -1)
        self._open[number] = Request(number, server, client, good, probe, now)
        return number

    @property
    def total(self) -> int:
        """Requests so far."""
        return len(self._outcomes) - 1

    def answered(self, number: int, status: int, right: bool, now: float, detail: str = "") -> None:
        """An answer came. `right`: a status of 200, the request's own id and the value of its input."""
        request = self._settle(number, f"answer {status} {detail}")
        if request is None:
            return
        self.longest_s[request.server] = max(self.longest_s.get(request.server, 0.0), now - request.sent_at)
        if right and status == 200:
            self._close(request, Outcome.RIGHT)
        elif status < 400:
            self._close(request, Outcome.WRONG)
            self.violations.add("wrong", f"{self._text(request, now)}, status {status}: {detail}")
        else:
            outcome = Outcome.REFUSED if status == 503 else Outcome.ERROR
            self._close(request, outcome)
            if not request.good and outcome is Outcome.ERROR:
                self.reasons[request.server, outcome.name, "asked for it"] += 1
                return
            harms = [window for window in self._at_work(request, now) if window.harms or request.probe]
            self._excuse(request, outcome, harms, now, f"status {status}: {detail}")

    def lost(self, number: int, now: float, detail: str, *, harmed: bool = False) -> None:
        """The connection ended, and no answer can come any more. `harmed`: as it may when another request gets an error."""
        request = self._settle(number, f"lost: {detail}")
        if request is None:
            return
        self._close(request, Outcome.LOST)
        windows = self._at_work(request, now)
        cuts = [window for window in windows if window.cuts is Cuts.ANY or (harmed and window.harms)]
        if not cuts:
            cuts = [window for window in windows if window.cuts is Cuts.IDLE]
            if cuts:
                self._lost_idle.add(number)
        self._excuse(request, Outcome.LOST, cuts, now, detail)

    def closed(self, server: str, since: float, now: float, client: str) -> None:
        """A connection on which nothing was under way was found closed. Some fault must have done it."""
        windows = self.windows.get(server, ())
        if not any(window.cuts is not Cuts.NONE and window.touches(since, now) for window in windows):
            self.violations.add(
                "closed without a reason", f"a connection of {client} to {server}, {since:.2f} to {now:.2f} s"
            )

    def left(self, number: int) -> None:
        """Its client has gone on purpose."""
        request = self._settle(number, "left")
        if request is not None:
            self._close(request, Outcome.LEFT)

    def begin(self, server: str, fault: str, now: float, *, harms: bool, cuts: Cuts = Cuts.NONE) -> Window:
        """A fault strikes. The caller sets `ended` when the server has recovered."""
        window = Window(fault, harms, cuts, now)
        self.windows.setdefault(server, []).append(window)
        return window

    def close(self, runs: dict[str, Iterable[int]]) -> None:
        """The end. `runs`: the numbers that began to run, by server, once for each time."""
        for request in self._open.values():
            self.violations.add("never settled", self._text(request, request.sent_at))
        for server, numbers in runs.items():
            self._check_runs(server, numbers)

    def _check_runs(self, server: str, numbers: Iterable[int]) -> None:
        ran = bytearray(len(self._outcomes))
        for number in numbers:
            place = self._server_of[number] if 0 < number < len(ran) else -1
            if place < 0 or self._servers[place] != server:
                self.violations.add("run by the wrong server", f"request {number} on {server}")
                continue
            if ran[number]:
                self.violations.add("run twice", f"request {number} on {server}")
            ran[number] = 1
            if self._outcomes[number] == Outcome.REFUSED:
                self.violations.add("refused but run", f"request {number} on {server}")
            if number in self._lost_idle:
                self.violations.add("lost with an idle connection but run", f"request {number} on {server}")
        for number, outcome in enumerate(self._outcomes):
            place = self._server_of[number]
            if outcome == Outcome.RIGHT and place >= 0 and self._servers[place] == server and not ran[number]:
                self.violations.add("answered but not run", f"request {number} on {server}")

    def _settle(self, number: int, what: str) -> Request | None:
        request = self._open.pop(number, None)
        if request is None:
            before = Outcome(self._outcomes[number]).name if 0 < number < len(self._outcomes) else "unknown"
            self.violations.add("settled twice", f"request {number} ({before}): {what}")
        return request

    def _close(self, request: Request, outcome: Outcome) -> None:
        self._outcomes[request.number] = outcome
        self.counts[request.server, request.client, outcome] += 1

    def _at_work(self, request: Request, now: float) -> list[Window]:
        """The faults that the request may have felt, the latest first."""
        windows = reversed(self.windows.get(request.server, ()))
        return [window for window in windows if window.touches(request.sent_at, now)]

    def _excuse(self, request: Request, outcome: Outcome, windows: list[Window], now: float, detail: str) -> None:
        if windows:
            self.reasons[request.server, outcome.name, windows[0].fault] += 1
            return
        kind = f"{outcome.name.lower()} without a reason"
        self.violations.add(kind, f"{self._text(request, now)}: {detail}")

    @staticmethod
    def _text(request: Request, now: float) -> str:
        return (
            f"request {request.number} of {request.client} to {request.server}, "
            f"sent at {request.sent_at:.2f} s, {now - request.sent_at:.2f} s before"
        )
