"""Liveness, readiness and start-up: answered from the front's own memory, whatever the models do."""

from typing import TYPE_CHECKING

from . import messages
from .exchange import Exchange

if TYPE_CHECKING:
    from .server import Server


def alive(_server: "Server", exchange: Exchange) -> None:
    """The front answers."""
    exchange.respond(200, b"Healthy", messages.HTML)


def ready(server: "Server", exchange: Exchange) -> None:
    """Enough scorers have loaded, and the server is not about to end."""
    _answer(exchange, server.ready, server.not_ready_reason(), server.pool.describe())


def started(server: "Server", exchange: Exchange) -> None:
    """Every scorer has loaded once."""
    _answer(exchange, server.pool.started, "the scorers are loading", server.pool.describe())


def _answer(exchange: Exchange, good: bool, reason: str, details: list[str]) -> None:
    text = "ok" if good else f"not ready: {reason}"
    if exchange.request.admitted and b"verbose" in exchange.request.target.partition(b"?")[2]:
        text = "\n".join([text, *details])
    exchange.respond(200 if good else 503, text.encode() + b"\n", messages.TEXT)
