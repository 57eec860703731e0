"""A request's own deadline. What its head says is found once for all requests with that head."""

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from ..errors import BadRequest
from .exchange import Exchange, Handler, RequestHead

if TYPE_CHECKING:
    from .server import Server

_MAX_DIGITS = 15
"""Milliseconds of more digits are no limit that anybody lives to see, but still a number."""


class Submit(Protocol):
    """A handler that puts requests in line. `timed`: this one has a deadline of its own."""

    def __call__(self, server: "Server", exchange: Exchange, timed: bool = ..., /) -> None: ...


def find_handler(request: RequestHead, header: str, submit: Submit) -> Handler:
    """The handler for requests with this head that go to a scorer: `submit` itself where it has no such header."""
    try:
        timeout_ms = find_timeout_ms(request, header)
    except BadRequest as refusal:
        return _refuse(refusal)
    return submit if timeout_ms is None else _timed(timeout_ms / 1000, submit)


def find_timeout_ms(request: RequestHead, header: str) -> int | None:
    """How long the client waits: the least that `header` says; None where there is no such header.

    BadRequest for anything but a whole number above 0: to guess would drop a deadline that somebody relies on, or set
    one that nobody asked for.
    """
    name = header.encode()
    values = [value for have, value in request.headers if have.lower() == name]
    for value in values:
        if not value.isdigit() or not value.strip(b"0"):
            raise BadRequest(
                f"The header {header} holds no whole number of milliseconds above 0. "
                "Correct it, or leave it out to wait without a deadline."
            )
    limits = (10**_MAX_DIGITS if len(value) > _MAX_DIGITS else int(value) for value in values)
    return min(limits, default=None)


def _timed(timeout_s: float, submit: Submit) -> Handler:
    def begin(server: "Server", exchange: Exchange) -> None:
        exchange.expires_at = monotonic() + timeout_s
        submit(server, exchange, True)

    return begin


def _refuse(refusal: BadRequest) -> Handler:
    def begin(_server: "Server", exchange: Exchange) -> None:
        exchange.logged = True
        exchange.fail(refusal)

    return begin
