"""Answers requests: turns each into a call of run(), and what that gives into a reply.

The mode says what run() gets (contract §4.2): "string" the body as text, "object" the members of its JSON object as
arguments, "raw" the request itself. Nothing that one request does, or that run() raises, reaches another one.
"""

import asyncio
from json import JSONDecodeError, dumps, loads
from signal import ITIMER_REAL, SIGALRM, getsignal, setitimer
from signal import signal as set_handler
from threading import current_thread, main_thread
from time import perf_counter
from types import CoroutineType
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from .. import frames
from ..frames import FLAG_EXPIRED, FLAG_NO_FAILED_HEADER, FLAG_RUN_FAILED, FLAG_RUN_RETURNED
from ..loop import ChannelClosedError, Outbox
from . import log, request, response
from .encode import encode

STRING, OBJECT, RAW = "string", "object", "raw"
GET, POST, OPTIONS = (frames.METHODS[name] for name in ("GET", "POST", "OPTIONS"))

_PLAIN = frozenset((dict, list, tuple, str, int, float, bool))

RUN_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
EXPIRED = "The deadline of the request passed before it was answered."
INTERNAL_ERROR = "An unexpected internal error occurred. Check the logs for more info."


class Script(NamedTuple):
    """What was decided about run() when it was loaded."""

    run: Callable[..., Any]
    mode: str
    arguments: List[str]
    required: List[str]
    defaults: Dict[str, Any]
    wants_headers: bool
    flask_app: Any  # what run() gets its Flask context from, or None


class AnsweredError(Exception):
    """The request has its answer before run() is called."""

    def __init__(self, status: int, body: bytes, head: bytes = b"") -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.head = head


class ScoringTimeoutError(TimeoutError):
    """run() took too long. A TimeoutError, so that user code that caught the incumbent's catches it too."""


class RunTimer:
    """Interrupts run() in the main thread when its time is over.

    The alarm is not set and unset around each run, which would cost two system calls: it stays set, and when it comes too
    early for the run that it meets, it is set again for the rest.
    """

    def __init__(self) -> None:
        self.deadline = 0.0  # 0: no run to interrupt
        self._rings_at = 0.0
        self._usable = current_thread() is main_thread()

    def new_frame(self) -> None:
        """User code may have used the alarm for itself: take it back."""
        self._rings_at = 0.0
        if self._usable and getsignal(SIGALRM) != self._ring:
            set_handler(SIGALRM, self._ring)

    def start(self, now: float, limit_s: float) -> None:
        """A run begins. It is over when `deadline` is 0 again."""
        if self._usable:
            deadline = now + limit_s
            if not now < self._rings_at <= deadline:
                self._ring_at(deadline, limit_s)
            self.deadline = deadline

    def _ring_at(self, moment: float, delay_s: float) -> None:
        self._rings_at = moment
        setitimer(ITIMER_REAL, max(delay_s, 1e-6))

    def _ring(self, signum: int, frame: Any) -> None:
        deadline = self.deadline
        if deadline:
            left = deadline - perf_counter()
            if left > 0:
                self._ring_at(deadline, left)
                return
            self.deadline = 0.0
            raise ScoringTimeoutError("run() was interrupted: its time was over")


class AsyncRunner:
    """Runs coroutines of user code on one private event loop."""

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    def prepare(self) -> asyncio.AbstractEventLoop:
        """The loop; the current one of this thread, so that what init() makes belongs to it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def forked(self) -> None:
        """A loop of this process's own: what the old one polls with is shared with the process that was forked."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None
            self.prepare()

    def run(self, coroutine: Any) -> Any:
        """What it returns, or raises."""
        loop = self.prepare()
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # interrupted
                task.cancel()
                loop.run_until_complete(asyncio.wait([task], timeout=1))
            raise

    def drain(self, items: Any) -> Iterator[Any]:
        """The items of an asynchronous iterator."""

        async def step() -> Any:
            return await items.__anext__()

        async def close() -> None:
            await items.aclose()

        try:
            while True:
                try:
                    item = self.run(step())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if hasattr(items, "aclose"):
                self.run(close())


class ScriptEngine:
    """The engine that `loop.serve` drives."""

    def __init__(self, script: Script, info: Dict[str, Any], scoring_timeout_ms: int, runner: AsyncRunner) -> None:
        self.info = info
        self._script = script
        self._run = script.run
        self._first = script.arguments[0]
        self._bind = {STRING: self._bind_string, OBJECT: self._bind_object, RAW: self._bind_raw}[script.mode]
        self._simple = script.mode != RAW and script.flask_app is None and not script.wants_headers
        self._timeout_ms = scoring_timeout_ms
        self._timer = RunTimer()
        self._runner = runner
        self._frame_began = 0.0

    def forked(self) -> None:
        """This is a fork of the process that loaded the script."""
        self._runner.forked()

    def score(self, requests: List[frames.Request], outbox: Outbox) -> None:
        """Answer one after the other."""
        self._timer.new_frame()
        self._frame_began = perf_counter()
        for one in requests:
            if one.timeout_ms and self._late_ms(one) >= 0:
                outbox.add(one.id, 504, _message(EXPIRED), b"", FLAG_EXPIRED)
                outbox.flush_if_due()
                continue
            outbox.begin(one.id)
            try:
                if self._simple:
                    self._answer(one, self._bind(one, None), None, outbox)
                else:
                    self._answer_with_head(one, outbox)
            except AnsweredError as answer:
                outbox.add(one.id, answer.status, answer.body, answer.head)
            except ChannelClosedError:
                raise
            except BaseException as error:  # whatever it is, it is this request's alone
                log.log_exception(error)
                outbox.add(one.id, 500, _message(INTERNAL_ERROR))
            outbox.flush_if_due()

    def _late_ms(self, one: frames.Request) -> float:
        return (perf_counter() - self._frame_began) * 1000 - one.timeout_ms

    def _answer_with_head(self, one: frames.Request, outbox: Outbox) -> None:
        script = self._script
        head = request.Head(one.head)
        environ = context = None
        if script.flask_app is not None:
            environ = request.wsgi_environ(frames.METHOD_NAMES[one.method], head, one.body)
            context = script.flask_app.request_context(environ)
            context.push()
        try:
            if context is not None and script.mode == RAW:
                arguments = {self._first: context.request}
            else:
                arguments = self._bind(one, head)
            if script.wants_headers:
                arguments["request_headers"] = head.header_items()
            self._answer(one, arguments, environ, outbox)
        finally:
            if context is not None:
                try:
                    context.pop()
                except Exception as error:  # a context that run() pushed and left: the answer stands
                    log.log_exception(error)

    def _answer(
        self, one: frames.Request, arguments: Dict[str, Any], environ: Optional[Dict[str, Any]], outbox: Outbox
    ) -> None:
        timeout_ms = self._timeout_ms
        timer = self._timer
        began = perf_counter()
        try:
            try:
                if timeout_ms:
                    timer.start(began, timeout_ms / 1000)
                result = self._run(**arguments)
                if type(result) is CoroutineType:
                    result = self._runner.run(result)
            finally:
                timer.deadline = 0.0
        except BaseException as error:  # SystemExit too is a failed run, not our end
            run_us = _us_since(began)
            log.log_exception(error)
            timed_out = isinstance(error, ScoringTimeoutError)
            text = "Scoring timeout after %d ms" % timeout_ms if timed_out else RUN_FAILED
            outbox.add(one.id, 500, _message(text), b"", FLAG_RUN_FAILED, run_us)
            return
        run_us = _us_since(began)
        if one.timeout_ms and self._late_ms(one) >= 0:
            # Not interrupted: a client must not stop other people's code where it likes.
            log.logger.warning("run() ended %d ms after the deadline of its request", self._late_ms(one))

        if result is None:
            outbox.add(one.id, 200, b"{}", b"", FLAG_RUN_RETURNED, run_us)
        elif type(result) in _PLAIN or not response.is_response(result):
            outbox.add(one.id, 200, encode(result), b"", FLAG_RUN_RETURNED, run_us)
        else:
            self._send(one.id, result, environ, run_us, outbox)

    def _send(self, number: int, result: Any, environ: Optional[Dict[str, Any]], run_us: int, outbox: Outbox) -> None:
        """Settle a request whose run() returned a response."""
        log.logger.info("run() output is HTTP Response")
        if hasattr(result.response, "__anext__"):
            result.response = self._runner.drain(result.response)
        status, head, body, pieces = response.to_sendable(result, environ)
        flags = FLAG_RUN_RETURNED | FLAG_NO_FAILED_HEADER
        if pieces is None:
            outbox.add(number, status, body, head, flags, run_us)
            return
        try:
            broken = outbox.stream(number, status, head, flags, run_us, pieces)
        except ChannelClosedError:
            raise
        except BaseException as error:  # an iterator that fails at once is a failed run
            log.log_exception(error)
            outbox.add(number, 500, _message(RUN_FAILED), b"", FLAG_RUN_FAILED, run_us)
            return
        try:
            pieces.close()  # type: ignore[attr-defined]  # nobody may have read to the end
        except BaseException as error:  # it is settled
            broken = broken or error
        if broken is not None:
            log.log_exception(broken)

    def _bind_string(self, one: frames.Request, head: Optional[request.Head]) -> Dict[str, Any]:
        if one.method == POST:
            try:
                return {self._first: str(one.body, "utf-8")}
            except UnicodeDecodeError as error:
                raise AnsweredError(400, _message("Input cannot be decoded as UTF-8: %s" % error)) from None
        return {self._first: dumps(self._values(one, head))}

    def _bind_object(self, one: frames.Request, head: Optional[request.Head]) -> Dict[str, Any]:
        head = head or request.Head(one.head)
        values = self._members(one.body, head) if one.method == POST else self._values(one, head)
        arguments = dict(self._script.defaults)  # given by name too: inference-schema cannot find what it is not given
        arguments.update((name, values[name]) for name in self._script.arguments if name in values)
        for name in self._script.required:
            if name not in arguments:
                raise AnsweredError(400, _message("A value is not provided for the '%s' parameter." % name))
        return arguments

    def _bind_raw(self, one: frames.Request, head: Optional[request.Head]) -> Dict[str, Any]:
        assert head is not None
        return {self._first: request.Request(frames.METHOD_NAMES[one.method], head, one.body)}

    @staticmethod
    def _values(one: frames.Request, head: Optional[request.Head]) -> Dict[str, Any]:
        """The query of a GET; AnsweredError for methods that do not reach run() in this mode."""
        if one.method == OPTIONS:
            raise AnsweredError(200, b"", b"Content-Type: text/html; charset=utf-8")
        if one.method != GET:
            raise AnsweredError(405, _message("Method not allowed"))
        return request.query_values(head or request.Head(one.head))

    @staticmethod
    def _members(body: frames.Blob, head: request.Head) -> Dict[str, Any]:
        """The JSON object that a POST brings; AnsweredError when it is none (contract §3)."""
        if not request.is_json(head.get("content-type").partition(";")[0].strip().lower()):
            raise AnsweredError(415, _message("Expects Content-Type to be application/json"))
        if not len(body):
            raise AnsweredError(400, _message("POST body is empty. Expecting a JSON dictionary."))
        try:
            values = loads(bytes(body))
        except JSONDecodeError as error:
            raise AnsweredError(400, _message("POST body could not be decoded as JSON: %s" % error)) from None
        if not isinstance(values, dict):
            raise AnsweredError(400, _message("POST body should be a JSON dictionary."))
        return values


def _us_since(moment: float) -> int:
    return int((perf_counter() - moment) * 1e6)


def _message(text: str) -> bytes:
    return encode({"message": text})
