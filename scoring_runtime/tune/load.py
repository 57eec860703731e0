"""Makes the load: clients that each ask again when they have their answer. One process, one thread, plain sockets.

Requests are encoded beforehand, and of an answer only the head is read, so that the maker of the load is not what is
measured: it takes 10 to 15 us a request.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from .ramp import Point

WARM_UP_SHARE = 0.2
"""Of a level's time: what begins in it does not count."""
READ_BYTES = 1 << 18
DISTINCT = 32
"""Answers to one sample that are kept, to be compared: in runs of other sizes numbers are rounded in other ways."""


def encode(body: bytes) -> bytes:
    """The request that carries a body to /score."""
    return (
        b"POST /score HTTP/1.1\r\nHost: tune\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body
    )


@dataclass
class Harvest:
    """The answers that came, for each sample the first few that are not the same bytes."""

    samples: int
    answers: list[set[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.answers = [set() for _ in range(self.samples)]

    def add(self, sample: int, body: bytes) -> None:
        kept = self.answers[sample]
        if len(kept) < DISTINCT:
            kept.add(body)


def drive(
    port: int, requests: Sequence[bytes], harvest: Harvest, *, clients: int, seconds: float, patience_s: float
) -> Point:
    """Load the server for so many seconds; then wait for what is under way, for `patience_s` at most."""
    began, began_cpu = time.perf_counter(), time.process_time()
    tally = _Tally(began + WARM_UP_SHARE * seconds, harvest)
    ends_at = began + seconds
    under_way = 0
    with selectors.DefaultSelector() as selector, ExitStack() as sockets:
        for number in range(clients):
            client = _Client(port, number * len(requests) // clients)
            sockets.callback(client.socket.close)
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.ask(selector, requests)
            under_way += 1
        while under_way and (wait_s := ends_at + patience_s - time.perf_counter()) > 0:
            for key, events in selector.select(wait_s):
                client = key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        client.send(selector)
                    if not events & selectors.EVENT_READ or not client.read():
                        continue
                    now = time.perf_counter()
                    tally.count(client, now)
                    if now < ends_at:
                        client.ask(selector, requests)
                    else:
                        under_way -= 1
                except OSError:  # the server closed it
                    selector.unregister(client.socket)
                    tally.failures += 1
                    under_way -= 1
    client_share = (time.process_time() - began_cpu) / (time.perf_counter() - began)
    seconds_counted = tally.last_at - tally.counts_from
    return point_of(clients, tally.latencies_s, seconds_counted, tally.failures + under_way, client_share)


def point_of(clients: int, latencies_s: Sequence[float], seconds: float, failures: int, client_share: float) -> Point:
    """What a level showed. Of fewer than 100 requests the slowest counts as their p99."""
    ordered = sorted(latencies_s)
    if not ordered or seconds <= 0:
        return Point(clients, 0.0, 0.0, 0.0, 0, failures, client_share)
    p50, p99 = (ordered[max(0, -(-len(ordered) * share // 100) - 1)] for share in (50, 99))
    return Point(clients, len(ordered) / seconds, p50 * 1000, p99 * 1000, len(ordered), failures, client_share)


class _Tally:
    """What one level's answers add up to."""

    def __init__(self, counts_from: float, harvest: Harvest) -> None:
        self.counts_from = self.last_at = counts_from
        self.latencies_s: list[float] = []
        self.failures = 0
        self._harvest = harvest

    def count(self, client: "_Client", now: float) -> None:
        if client.status != 200:
            self.failures += 1
            return
        self._harvest.add(client.sample, client.body)
        if client.asked_at >= self.counts_from:
            self.latencies_s.append(now - client.asked_at)
            self.last_at = now


class _Client:
    """One connection, one request under way."""

    __slots__ = ("_answer", "_awaited", "_body_at", "_outgoing", "asked_at", "body", "sample", "socket", "status")

    def __init__(self, port: int, sample: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sample = sample - 1
        self.status = 0
        self.body = b""
        self.asked_at = 0.0
        self._outgoing = memoryview(b"")
        self._answer = bytearray()
        self._body_at = self._awaited = 0

    def ask(self, selector: selectors.BaseSelector, requests: Sequence[bytes]) -> None:
        """Begin the next request."""
        self.sample = (self.sample + 1) % len(requests)
        self._answer = bytearray()
        self._awaited = 0
        self._outgoing = memoryview(requests[self.sample])
        self.asked_at = time.perf_counter()
        self.send(selector)

    def send(self, selector: selectors.BaseSelector) -> None:
        """Write what the socket takes, and ask to be told when it takes the rest."""
        had = bool(selector.get_key(self.socket).events & selectors.EVENT_WRITE)
        with suppress(BlockingIOError):
            self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]
        if bool(self._outgoing) != had:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
            selector.modify(self.socket, events, self)

    def read(self) -> bool:
        """Read what has come; whether the answer is whole. ConnectionError when there will be none."""
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionError("the server closed the connection")
        self._answer += data
        if not self._awaited:
            self._read_head()
        if not self._awaited or len(self._answer) < self._awaited:
            return False
        self.body = bytes(self._answer[self._body_at : self._awaited])
        return True

    def _read_head(self) -> None:
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._answer[:end]).lower()
        _, found, length = head.partition(b"\r\ncontent-length:")
        if not found:
            raise ConnectionError("an answer without a length")
        self.status = int(head[9:12])
        self._body_at = end + 4
        self._awaited = self._body_at + int(length.split(b"\r\n", 1)[0])
