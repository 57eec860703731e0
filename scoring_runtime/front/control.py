"""The control plane: a small Flask application in a thread of its own. It has no state; each call brings a snapshot."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.test import create_environ, run_wsgi_app

from .. import openapi
from ..errors import InternalError, RequestError
from ..telemetry import metrics as telemetry
from ..telemetry import nvml
from . import inference, messages
from .exchange import Exchange

if TYPE_CHECKING:
    from .server import Server

_SNAPSHOT = "scoring_runtime.snapshot"


@dataclass(frozen=True)
class Snapshot:
    """What the control plane may know, taken on the event loop."""

    info: dict[str, Any]
    documents: dict[str, openapi.Document]
    metrics: telemetry.Metrics
    gauges: Mapping[str, tuple[str, float | Mapping[str, float]]]
    gpus: tuple[nvml.Reading, ...]
    identity: tuple[str, str]
    """Name and version of the server, as far as clients may know them."""


class ControlPlane:
    """Runs the Flask application off the event loop, one request at a time."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "control")
        self._application = build()

    def call(self, snapshot: Snapshot, exchange: Exchange) -> "asyncio.Future[tuple[int, bytes, bytes, bytes]]":
        """Status, body, content type and further header lines of the answer, some time later."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(
            self._executor, self._call, snapshot, exchange.request.method, exchange.request.target
        )

    def close(self) -> None:
        """Take no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _call(self, snapshot: Snapshot, method: bytes, target: bytes) -> tuple[int, bytes, bytes, bytes]:
        query = target.partition(b"?")[2].decode("latin-1")
        environ = create_environ(method=method.decode(), query_string=query)
        environ["PATH_INFO"] = messages.path(target).decode("latin-1")  # read as the routes do: werkzeug refuses some
        environ[_SNAPSHOT] = snapshot
        pieces, status, headers = run_wsgi_app(self._application, environ, buffered=True)
        lines = b"".join(
            f"{name}: {value}\r\n".encode("latin-1")
            for name, value in headers
            if name.lower() not in ("content-type", "content-length")
        )
        return int(status.split()[0]), b"".join(pieces), headers.get("Content-Type", "").encode("latin-1"), lines


def answer(server: "Server", exchange: Exchange) -> None:
    """The handler of every control-plane route."""
    exchange.logged = exchange.request.target.startswith(b"/swagger.json")
    exchange.queued_at = monotonic()
    call = server.control.call(server.snapshot(), exchange)
    call.add_done_callback(lambda done: _respond(exchange, done))


def _respond(exchange: Exchange, call: "asyncio.Future[tuple[int, bytes, bytes, bytes]]") -> None:
    if call.cancelled():
        exchange.fail(InternalError("The server is closing."))
        return
    error = call.exception()
    if error is not None:
        exchange.fail(InternalError("An unexpected internal error occurred. Check the logs for more info."))
        raise error  # to the loop's exception handler, with its traceback
    status, body, content_type, lines = call.result()
    if content_type == messages.JSON:
        lines += exchange.flag_lines(0, 0)
    exchange.respond(status, body, content_type, lines)


def build() -> Flask:
    """The Flask application."""
    application = Flask("scoring_runtime", static_folder=None)

    def snapshot() -> Snapshot:
        taken: Snapshot = request.environ[_SNAPSHOT]
        return taken

    @application.get("/metrics")
    def metrics() -> Response:
        taken = snapshot()
        text = telemetry.render(taken.metrics, taken.gauges) + nvml.render(taken.gpus)
        return Response(text, content_type=telemetry.CONTENT_TYPE)

    @application.get("/swagger.json")
    def swagger() -> Response:
        try:
            document, status = openapi.select(snapshot().documents, request.args.get("version")), 200
        except openapi.UnknownVersionError as error:
            document, status = {"message": str(error)}, 404
        return Response(json.dumps(document), status, content_type="application/json")

    @application.get("/v2")
    def server_metadata() -> Response:
        name, version = snapshot().identity
        extensions = ["binary_tensor_data"] if "open_inference" in snapshot().info else []
        return jsonify(name=name, version=version, extensions=extensions)

    @application.get("/v2/models/<name>")
    @application.get("/v2/models/<name>/versions/<version>")
    def model_metadata(name: str, version: str | None = None) -> tuple[Response, int] | Response:
        info = snapshot().info
        try:
            inference.check_model(info, name, version)
        except RequestError as error:
            return jsonify(error=error.message), error.status
        known = {**info, **info["open_inference"]}
        shown = (
            *("name", "versions", "platform", "inputs", "outputs", "engine", "batchable"),
            *("providers", "nodes", "placement", "degraded"),
        )
        return jsonify({key: known[key] for key in shown if key in known})

    @application.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        field = "error" if request.path.startswith("/v2") else "message"
        return jsonify({field: error.description}), error.code or 500

    return application
