"""Responses that come in pieces: a generator of the user's, sent as it yields.

The scorer sends a piece and waits. The next one is pulled when this one has been handed to the network, so that a client
that reads slowly holds up the generator and fills nobody's memory.
"""

from ..errors import ScorerLost
from ..pool.process import Reply, Scorer
from ..scorer import frames
from .exchange import Exchange, head_lines


class Stream:
    """The rest of one response."""

    def __init__(self, chunked: bool) -> None:
        self.chunked = chunked
        self.size = 0
        self.status = 0
        self.head = b""
        self.held: list[bytes] = []  # waits for the responses before it
        self.ended = False
        self._pull: tuple[Scorer, int] | None = None

    def encode(self, piece: frames.Blob) -> bytes:
        """A piece as it goes over the wire."""
        self.size += len(piece)
        if not self.chunked or not piece:
            return bytes(piece)
        return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))

    def wants(self, exchange: Exchange, scorer: Scorer, number: int) -> None:
        """There are more pieces: pull the next one now if the client keeps up, else when `pull` is called."""
        self._pull = (scorer, number)
        if exchange.connection.keeps_up(exchange):
            self.pull()

    def pull(self) -> None:
        """Ask for the next piece, if one is waited for."""
        if self._pull is not None:
            scorer, number = self._pull
            self._pull = None
            scorer.pull(number)

    def cancel(self) -> None:
        """Nobody reads any more."""
        if self._pull is not None:
            scorer, number = self._pull
            self._pull = None
            scorer.cancel(number)


def on_piece(exchange: Exchange, scorer: Scorer, reply: Reply) -> None:
    """A piece of a reply came: the first with status and head, the last empty and without FLAG_MORE."""
    number, status, flags, run_us, head, body = reply
    more = bool(flags & frames.FLAG_MORE)
    if exchange.settled:  # the client has gone
        if more:
            scorer.cancel(number)
        return
    if flags & frames.FLAG_ABORT:
        exchange.fail(ScorerLost("The response broke off."))
        return
    if exchange.stream is None and not 200 <= status <= 999:
        exchange.settle(reply)  # as an error
        if more:
            scorer.cancel(number)
        return
    stream = exchange.stream
    data = b""
    if stream is None:
        stream = exchange.stream = Stream(chunked=not exchange.request.http_10)
        stream.status = status
        exchange.flags = flags
        exchange.connection.server.metrics.score_status[status] += 1
        content_type, lines = head_lines(head)
        lines += exchange.flag_lines(flags, run_us)
        if stream.chunked:
            lines += b"Transfer-Encoding: chunked\r\n"
        else:
            exchange.keep_alive = False
        data = stream.head = exchange.encode_head(status, content_type, None, lines)
    if exchange.request.method == b"HEAD":
        stream.chunked = False  # the head says what a GET would get; nothing follows it
        stream.ended = True
        if more:
            scorer.cancel(number)
    else:
        data += stream.encode(body)
        stream.ended = not more
    if stream.ended:
        if stream.chunked:
            data += b"0\r\n\r\n"
        exchange.settled = True
        server = exchange.connection.server
        if server.request_log is not None:
            server.log_answer(exchange, stream.status, stream.size, None)
        server.tell(exchange, stream.status, stream.head, None)
    exchange.connection.stream(exchange, stream, data)
    if not stream.ended:
        stream.wants(exchange, scorer, number)
