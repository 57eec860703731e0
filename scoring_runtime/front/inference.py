"""The front's part of the Open Inference Protocol (KServe V2): whose model a path names, and whether it is ready.

What is in a body is the scorer's business. Requests wait in the one line and share frames with those to /score.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, Overloaded, RequestError
from ..scorer import frames
from . import messages
from .exchange import Exchange
from .scoring import encode_request_head

if TYPE_CHECKING:
    from .server import Server

_MODEL = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?")


def nameless(path: bytes) -> bytes:
    """The path with NAME in place of a model's name and version."""
    return _MODEL.sub(b"/v2/models/NAME", path, count=1) if path.startswith(b"/v2/models/") else path


def infer(server: "Server", exchange: Exchange, timed: bool = False) -> None:
    """The handler of .../infer. `timed`: as for `score`."""
    request = exchange.request
    if request.frame_head is None:
        info = server.pool.info
        try:
            check_model(info, *_model_of(exchange))
        except RequestError as refusal:
            exchange.fail(refusal)
            return
        request.frame_head = encode_request_head(exchange, info["open_inference"]["headers"])
    exchange.route = frames.ROUTE_V2
    exchange.head = request.frame_head
    if timed:
        server.scoring.submit_timed(exchange)
    else:
        server.scoring.submit(exchange)


def live(_server: "Server", exchange: Exchange) -> None:
    """The front answers."""
    _answer(exchange, 200, {"live": True})


def ready(server: "Server", exchange: Exchange) -> None:
    """As /readyz."""
    _answer(exchange, 200 if server.ready else 503, {"ready": server.ready})


def model_ready(server: "Server", exchange: Exchange) -> None:
    """The same of one model; there are no others."""
    name, version = _model_of(exchange)
    try:
        check_model(server.pool.info, name, version)
    except RequestError as refusal:
        exchange.fail(refusal)
        return
    _answer(exchange, 200 if server.ready else 503, {"name": name, "ready": server.ready})


def check_model(info: Mapping[str, Any], name: str, version: str | None) -> None:
    """RequestError unless this is the model of the scorer that said `info` of itself; version None is any."""
    if not info:
        raise Overloaded("The model is still loading. Try again in 1 s.", 1)
    if "open_inference" not in info:
        raise NotFound("This server runs a script, which has no tensors: send its input to /score.")
    if info.get("name") != name:
        raise NotFound(f"No model {name!r} is loaded.")
    versions = info["open_inference"]["versions"]
    if version is not None and version not in versions:
        raise NotFound(f"There is no version {version!r} of model {name!r}, but version {', '.join(versions)}.")


def _model_of(exchange: Exchange) -> tuple[str, str | None]:
    found = _MODEL.match(messages.path(exchange.request.target))
    assert found is not None, "the route's own pattern"
    name, version = (None if text is None else text.decode("utf-8", "backslashreplace") for text in found.groups())
    return name or "", version


def _answer(exchange: Exchange, status: int, document: dict[str, Any]) -> None:
    exchange.respond(status, json.dumps(document).encode())
