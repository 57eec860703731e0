"""The front itself: what is alive between the first connection and the last answer."""

import asyncio
import contextlib
import functools
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from .. import __version__, openapi
from ..errors import Overloaded, ScorerStartError
from ..pool import gpus
from ..pool.launch import LaunchPlan
from ..pool.pool import Pool
from ..scorer import frames
from ..settings import Settings
from ..telemetry import insights, nvml, records, sink
from ..telemetry.metrics import Metrics
from ..telemetry.rejections import Rejections
from ..telemetry.requests import RequestLog, describe
from . import deadline, inference, messages, refusals, routes
from .connection import Connection
from .contract import DEPRECATED_ID, Contract
from .control import ControlPlane, Snapshot
from .exchange import Exchange, Handler, RequestHead
from .keys import KeyFile
from .messages import Stamp
from .scoring import Scoring, score, score_bare
from .secured import SecuredConnection
from .tls import Certificates

logger = logging.getLogger("scoring_runtime.front")

_UNTOLD = frozenset((b"/", b"/livez", b"/readyz", b"/startupz", b"/metrics", b"/v2/health/live", b"/v2/health/ready"))
"""Paths that are asked for every few seconds: telemetry does not hear of them."""

MAX_REFUSED_AT_A_TIME = 64
"""Connections over the limit that are told so; those beyond are closed without a word."""

OWN_DESCRIPTORS = 64
DESCRIPTORS_OF_A_SCORER = 8

TICK_S = 0.25
"""How often deadlines are looked at. Coarse on purpose: a timer for each request costs more than the request's parsing."""


class Server:
    """Listens, hands requests to their handlers, and ends in order: not ready, grace, finish, close.

    on_boot_failed is called at most once, when a scorer cannot load at the first start.
    """

    def __init__(
        self,
        settings: Settings,
        plan: LaunchPlan,
        loop: asyncio.AbstractEventLoop,
        *,
        first_boot: bool,
        on_boot_failed: Callable[[ScorerStartError], None],
        own_documents: Mapping[str, openapi.Document] | None = None,
        key_file: KeyFile | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.settings = settings
        self.loop = loop
        self.metrics = Metrics()
        self.rejections = Rejections(settings)
        script = plan.hello.get("engine") == "script"
        self.contract = (
            Contract(plan.environ, settings.cors_origins, tells_version=settings.server_identity) if script else None
        )
        # None when telemetry is off.
        self.insights = insights.start(
            records.find_connection_string(settings.appinsights_connection_string, plan.environ),
            records.Service(
                settings.service_name,
                settings.workspace_name,
                plan.environ.get("HOSTNAME", "Unknown"),
                plan.environ.get("AZUREML_MODEL_DIR", ""),
                settings.scheme,
            ),
            tells_responses=settings.appinsights_log_response,
            tells_model_data=settings.appinsights_log_model_data,
        )
        verbose = settings.log_level in ("debug", "info")
        self.request_log = RequestLog(loop.call_soon) if script and verbose else None
        self.stamp = Stamp(messages.fixed_lines(settings), self.contract.version_line if self.contract else b"")
        self.draining = False  # not ready any more, but still accepting
        self.closing = False  # every answer closes its connection
        self.now = loop.time()  # as of the last tick: near enough for time-outs of whole seconds
        self.known_heads: dict[bytes, RequestHead] = {}
        self.arena = plan.arena
        self.key_file = key_file
        self._certificates = certificates
        self.scheme = settings.scheme.encode()
        self.connections: set[Connection] = set()
        self.max_connections = settings.max_connections
        self._ended = asyncio.Event()  # a connection or a scorer has
        assert settings.scorers, "0 is for pool.gpus.allot to decide"
        self.scoring = Scoring(settings, self.metrics, loop, self.connections)
        self.pool = Pool(
            plan,
            settings.scorers,
            settings.load_timeout_s,
            loop,
            first_boot=first_boot,
            on_idle=self._on_idle,
            on_replies=self.scoring.replied,
            on_piece=self.scoring.streamed,
            on_returned=self.scoring.returned,
            on_unsettled=self.scoring.unsettled,
            on_boot_failed=self._boot_failed,
            on_ended=self._ended.set,
            on_output=self.insights.printed if self.insights is not None else None,
            max_memory_bytes=settings.max_scorer_memory_mb << 20,
            endings=self.metrics.scorer_ends,
        )
        self.scoring.attach(self.pool)
        self._on_boot_failed = on_boot_failed
        self._plan = plan
        self._gpu_monitor: nvml.GpuMonitor | None = None
        self.control = ControlPlane()
        self._own_documents = dict(own_documents or {})
        self._listeners: list[asyncio.Server] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._stamped_at = 0.0
        self._announced_ready = False

    # Life

    async def start(self, sockets: list[socket.socket]) -> None:
        """Listen on bound sockets and start the scorers; returns before they are ready."""
        self.max_connections = _connections_that_fit(self.settings.max_connections, self.settings.scorers)
        connection: type[Connection] = Connection
        encryption: dict[str, Any] = {}
        if self._certificates is not None:
            connection = SecuredConnection
            encryption = {
                "ssl": self._certificates.context,
                "ssl_handshake_timeout": self.settings.head_timeout_s,
                "ssl_shutdown_timeout": self.settings.body_timeout_s,
            }
        for listener in sockets:
            self._listeners.append(
                await self.loop.create_server(
                    lambda: connection(self), sock=listener, backlog=2048, start_serving=True, **encryption
                )
            )
        self._tick()
        self.pool.start()
        if gpus.are_of_interest(str(self._plan.hello.get("engine")), self.settings):
            choose = functools.partial(gpus.of_server, self._plan.gpus, self._plan.environ)
            self._gpu_monitor = nvml.GpuMonitor(choose)

    async def drain(self, grace_s: float) -> None:
        """Say not ready, accept for `grace_s` more, then finish what is under way, and end the scorers."""
        self.draining = True
        if grace_s:
            await asyncio.sleep(grace_s)
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.close_when_idle()
        deadline = self.loop.time() + self.settings.drain_timeout_s
        await self._until(lambda: not self._under_way(), deadline)
        if self._under_way():
            logger.error(
                "Drain: %d connections are cut after %g s.", len(self.connections), self.settings.drain_timeout_s
            )
        self.pool.drain()
        await self._until(lambda: self.pool.empty, deadline + 2.0)
        await self.stop()

    async def stop(self) -> None:
        """End now."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        self.pool.kill("the server ends")
        await self._until(lambda: self.pool.empty, self.loop.time() + 2.0)
        for connection in list(self.connections):
            connection.transport.abort()
        self.control.close()
        if self._gpu_monitor is not None:
            self._gpu_monitor.close()
        if self._ticker is not None:
            self._ticker.cancel()
        if self.insights is not None:
            await self.loop.run_in_executor(None, self.insights.close)

    async def _until(self, done: Callable[[], bool], deadline: float) -> None:
        """Return when `done`, or at `deadline`. Looked at whenever a connection or a scorer ends."""
        while not done():
            timeout_s = deadline - self.loop.time()
            if timeout_s <= 0:
                return
            self._ended.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), timeout_s)

    def _under_way(self) -> bool:
        return any(connection.under_way for connection in self.connections)

    # Readiness

    @property
    def ready(self) -> bool:
        """May traffic be sent here?"""
        return not self.draining and self.pool.ready

    def not_ready_reason(self) -> str:
        """Why not, in a few words."""
        if self.draining:
            return "the server is draining"
        return f"{self.pool.live} of {self.pool.size} scorers are ready"

    # Connections

    def connection_opened(self, connection: Connection) -> Overloaded | None:
        """A client has connected; the refusal if there are too many."""
        self.connections.add(connection)
        count, limit = len(self.connections), self.max_connections
        if count <= limit:
            return None
        if count > limit + MAX_REFUSED_AT_A_TIME:
            connection.transport.abort()  # each that is told why holds a descriptor until it has read it
        return refusals.too_many_connections(limit)

    def connection_closed(self, connection: Connection) -> None:
        """It has gone."""
        self.connections.discard(connection)
        self._ended.set()

    def begin(self, exchange: Exchange) -> None:
        """A request is complete."""
        exchange.request.handler(self, exchange)

    def find_handler(self, request: RequestHead) -> Handler:
        """Who answers requests with this head."""
        contract = self.contract
        if contract is not None:
            request.identity = contract.identify(request.headers)
            request.plain_post = request.plain_post and request.identity.plain and contract.cors is None
        handler = routes.find(request)
        if handler is score:
            handler = deadline.find_handler(request, self.settings.deadline_header, score)
        elif handler is inference.infer:
            handler = deadline.find_handler(request, self.settings.deadline_header, inference.infer)
        if handler is score and request.plain_post and self.request_log is None:
            handler = score_bare if self.scoring.wanted_headers == "none" else score
        if self.insights is not None:
            request.plain_post = False  # the long way passes by where telemetry hears of it
            if request.found and messages.path(request.target) not in _UNTOLD:
                return _timed(handler)
        return handler

    def log_answer(self, exchange: Exchange, status: int, size: int, length: int | None) -> None:
        """The lines that a request leaves in the log. `length` is None for a response that was sent in pieces."""
        log = self.request_log
        if log is None:
            return
        request = exchange.request
        text = request.log_text
        if text is None:
            referer, agent = request.header(b"referer"), request.header(b"user-agent")
            text = describe(request.method, request.target, request.http_10, referer, agent)
            request.log_text = text
        peer = exchange.connection.peer.encode()
        if exchange.logged and status != 431:
            duration_s = monotonic() - exchange.queued_at if exchange.queued_at else 0.0
            if request.plain_post and length is not None:
                log.scored_and_answered(text, peer, status, duration_s, length)
                return
            if request.identity.deprecated:
                log.warned(DEPRECATED_ID)
            log.scored(text, status, duration_s, length)
        log.answered(text, peer, status, size)

    def tell(self, exchange: Exchange, status: int, head: bytes, body: Any, *, broken: bool = False) -> None:
        """Tell telemetry of an answer. `body` is None for a response that was sent in pieces."""
        telemetry = self.insights
        if telemetry is None or not exchange.began_ns:
            return
        request = exchange.request
        flags = exchange.flags
        now_ns = time.time_ns()
        output = None if body is None else bytes(body[: records.MAX_RESPONSE_BYTES])
        whole = body is None or len(body) <= records.MAX_RESPONSE_BYTES
        value = (_NO_TEXT if output is None else output) if telemetry.tells_responses else None
        telemetry.answered(
            records.Answered(
                request.method, request.target, messages.path(request.target), request.headers, status, head,
                value, whole, broken, exchange.began_ns, now_ns,
            )
        )  # fmt: skip
        if telemetry.tells_model_data and flags & frames.FLAG_RUN_RETURNED:
            given = exchange.body
            telemetry.scored(
                records.Scored(
                    request.method, request.target, self.pool.info, head,
                    bytes(given[: records.MAX_INPUT_BYTES]), len(given) <= records.MAX_INPUT_BYTES,
                    output, whole, not flags & frames.FLAG_NO_FAILED_HEADER, now_ns,
                )
            )  # fmt: skip

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for its answer any more."""
        if not exchange.settled:
            self.metrics.cancelled += 1
            self.scoring.cancel(exchange)

    # The pool

    def _boot_failed(self, error: ScorerStartError) -> None:
        if self.insights is not None:
            self.insights.failed(error.message, error.traceback)
        self._on_boot_failed(error)

    def _on_idle(self) -> None:
        wanted_headers = self.pool.info.get("headers", "none")
        if wanted_headers != self.scoring.wanted_headers:
            self.scoring.wanted_headers = wanted_headers
            self.known_heads.clear()  # what is kept of them depends on it
        self.scoring.adopt(self.pool.info)
        if not self._announced_ready and self.pool.ready:
            self._announced_ready = True
            self._announce()
        self.scoring.pump_soon()

    def _announce(self) -> None:
        if self.contract is not None:
            versions = ", ".join(self.documents())
            swagger = logging.getLogger("azmlinfsrv.swagger")
            swagger.info("Swaggers are prepared for the following versions: [%s].", versions)
            azmlinfsrv = logging.getLogger("azmlinfsrv")
            azmlinfsrv.info("Scoring timeout is set to %d", self.settings.scoring_timeout_ms)
            azmlinfsrv.info("Worker with pid %d ready for serving traffic", os.getpid())
        logger.info("Ready on %s://%s:%d/score", self.settings.scheme, self.settings.host, self.settings.port)

    def snapshot(self) -> Snapshot:
        """What the control plane may know."""
        queue = self.scoring.queue
        gauges: dict[str, tuple[str, float | Mapping[str, float]]] = {
            "scoring_ready": ("1 when the server is ready for traffic.", float(self.ready)),
            "scoring_scorers_live": ("Scorers that can take requests.", float(self.pool.live)),
            "scoring_scorers": ("Scorers that there should be.", float(self.pool.size)),
            "scoring_scorer_restarts": ("Scorers that ended and were started again.", float(self.pool.restarts)),
            "scoring_scorer_failures_in_a_row": (
                "Most lives in a row, of any scorer, that ended too soon.",
                float(self.pool.failures_in_a_row),
            ),
            "scoring_queue_requests": ("Requests that wait for a scorer.", float(queue.count)),
            "scoring_queue_bytes": ("Bytes of the requests that wait.", float(queue.size_bytes)),
            "scoring_connections": ("Open connections.", float(len(self.connections))),
            "scoring_degraded": (
                "1 when a model does not run on the provider that was asked for; /readyz?verbose says why.",
                float(self.pool.degraded is not None),
            ),
        }
        if "nodes" in self.pool.info:
            text = "Nodes of the model, by the provider that runs them."
            gauges["scoring_provider_nodes"] = (text, dict(self.pool.info["nodes"]))
        text = "Log lines that were dropped because nobody read them or they could not be written."
        gauges["scoring_log_lines_dropped"] = (text, float(sum(stream.dropped for stream in sink.STREAMS)))
        if self.insights is not None:
            text = "Records for Application Insights that were dropped because too many waited."
            gauges["scoring_insights_dropped"] = (text, float(self.insights.dropped))
        settings = self.settings
        own = ("scoring-runtime", __version__)
        identity = own if settings.server_identity else (settings.service_name, settings.service_version)
        readings = self._gpu_monitor.readings() if self._gpu_monitor is not None else ()
        return Snapshot(dict(self.pool.info), self.documents(), self.metrics.copy(), gauges, readings, identity)

    def documents(self) -> dict[str, openapi.Document]:
        """The OpenAPI documents that can be had, by version."""
        settings = self.settings
        service = openapi.Service(settings.service_name, settings.service_version, settings.service_path_prefix)
        return openapi.documents(service, openapi.schema(self.pool.info), self._own_documents)

    # Time

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(TICK_S, self._tick)
        self.now = now = self.loop.time()
        if now - self._stamped_at >= 1.0:
            self._stamped_at = now
            self._attempt(self.stamp.refresh)
            self._attempt(self._look_at_files)
        # One that fails must not keep the others from their work: all deadlines are in them.
        self._attempt(self.pool.tick, now)
        self._attempt(self.scoring.tick, now)
        self._attempt(self.rejections.tick, now)
        for connection in list(self.connections):
            self._attempt(connection.check_deadline, now)
        self._attempt(self._flush_log)

    def _attempt(self, step: Callable[..., None], *arguments: float) -> None:
        try:
            step(*arguments)
        except Exception:
            logger.exception("An unexpected internal error occurred.")

    def _look_at_files(self) -> None:
        if self.key_file is not None and self.key_file.look():
            self.known_heads.clear()  # whom they admit is known with them
        if self._certificates is not None:
            self._certificates.look()

    def _flush_log(self) -> None:
        """Whoever reads the log may have begun again."""
        for stream in sink.STREAMS:
            stream.flush()


_NO_TEXT = b"\xff"
"""What was sent in pieces was not kept: to telemetry it is no text."""


def _timed(handler: Handler) -> Handler:
    """The handler, for requests that telemetry hears of."""

    def begin(server: "Server", exchange: Exchange) -> None:
        exchange.began_ns = time.time_ns()
        handler(server, exchange)

    return begin


def _connections_that_fit(wanted: int, scorers: int) -> int:
    """Each connection is a descriptor: use as many as the system grants, but keep those that the server itself needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted
    fit = max(1, hard - OWN_DESCRIPTORS - DESCRIPTORS_OF_A_SCORER * scorers - MAX_REFUSED_AT_A_TIME)
    if fit < wanted:
        logger.warning(
            "At most %d connections are taken, not %d: this process may open %d files. "
            "Raise the limit (ulimit -n, LimitNOFILE, --ulimit nofile), or lower --max-connections.", fit, wanted, hard,
        )  # fmt: skip
    return min(fit, wanted)
