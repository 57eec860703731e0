"""The whole HTTP surface, on one screen."""

from typing import TYPE_CHECKING, NamedTuple

from ..errors import HeadTooLarge, MethodNotAllowed, NotFound, RequestError
from . import control, inference, messages, probes, scoring
from .exchange import Exchange, Handler, RequestHead

if TYPE_CHECKING:
    from .server import Server


class Route(NamedTuple):
    """Who answers which methods on a path. Handlers return at once and answer now or later."""

    methods: tuple[bytes, ...]
    handler: Handler
    needs_key: bool = True


_READ = (b"GET", b"HEAD", b"OPTIONS")

ROUTES: dict[bytes, Route] = {
    # answered on the event loop: they never wait for a thread or a model
    b"/score": Route((b"POST", b"GET", b"OPTIONS", b"HEAD"), scoring.score),
    b"/": Route(_READ, probes.alive, needs_key=False),
    b"/livez": Route(_READ, probes.alive, needs_key=False),
    b"/readyz": Route(_READ, probes.ready, needs_key=False),
    b"/startupz": Route(_READ, probes.started, needs_key=False),
    b"/v2/health/live": Route(_READ, inference.live, needs_key=False),
    b"/v2/health/ready": Route(_READ, inference.ready, needs_key=False),
    # answered by the control plane, in a thread
    b"/metrics": Route(_READ, control.answer),
    b"/swagger.json": Route(_READ, control.answer),
    b"/v2": Route(_READ, control.answer),
}
MODELS: dict[bytes, Route] = {
    b"/v2/models/NAME": Route(_READ, control.answer),
    b"/v2/models/NAME/ready": Route(_READ, inference.model_ready),
    b"/v2/models/NAME/infer": Route((b"POST", b"OPTIONS"), inference.infer),
}
"""Routes whose path names a model, or a version of it: NAME stands for /NAME/versions/VERSION, too."""


_NOT_FOUND = (
    "The requested URL was not found on the server. "
    "If you entered the URL manually please check your spelling and try again."
)


def find(request: RequestHead) -> Handler:
    """Who answers a request: its route's handler, or one that says 404 or 405, or what OPTIONS are."""
    method = request.method
    path = messages.path(request.target)
    route = _by_path(path)
    if path == b"/v2" or path.startswith(b"/v2/"):
        request.error_field = "error"
    if route is None:
        return _not_found
    if method not in route.methods:
        return _refuse_method(route)
    request.found = True
    if request.identity.refusal:
        return _refuse_ids
    if method == b"OPTIONS" and (route.handler is not scoring.score or not request.admitted):
        return _list_methods(route)
    return route.handler


def admits_anyone(request: RequestHead) -> bool:
    """Whether a request without a body is answered without a key: probes, and browsers that ask before they send one."""
    if request.method == b"OPTIONS":
        return True
    route = ROUTES.get(request.target) or _by_path(messages.path(request.target))
    return route is not None and not route.needs_key


def unknown_method(target: bytes) -> RequestError:
    """The error for a method that HTTP does not know: the path is looked at first."""
    route = ROUTES.get(target) or _by_path(messages.path(target))
    return NotFound(_NOT_FOUND) if route is None else MethodNotAllowed(b", ".join(route.methods).decode())


def _not_found(_server: "Server", exchange: Exchange) -> None:
    exchange.fail(NotFound(_NOT_FOUND))


def _refuse_method(route: Route) -> Handler:
    allow = b", ".join(route.methods).decode()
    return lambda _, exchange: exchange.fail(MethodNotAllowed(allow))


def _refuse_ids(_server: "Server", exchange: Exchange) -> None:
    exchange.fail(HeadTooLarge(exchange.request.identity.refusal))


def _list_methods(route: Route) -> Handler:
    allow = b"Allow: %b\r\n" % b", ".join(route.methods)
    return lambda _, exchange: exchange.respond(200, b"", messages.HTML, allow)


def _by_path(path: bytes) -> Route | None:
    return ROUTES.get(path) or MODELS.get(inference.nameless(path))
