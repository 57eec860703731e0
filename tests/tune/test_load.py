"""The maker of the load, against a server that answers what it is told to."""

import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from scoring_runtime.tune.load import Harvest, drive, encode, point_of


class Handler(socketserver.StreamRequestHandler):
    """Answers each request with its own body, a head in two pieces, and what the body says of its fate."""

    def handle(self) -> None:
        while head := self.rfile.readline():
            while (line := self.rfile.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = self.rfile.read(length)
            assert head == b"POST /score HTTP/1.1\r\n"
            if body == b'"close"':
                return
            if body == b'"wait"':
                time.sleep(0.5)
            status = b"503 No" if body == b'"refuse"' else b"200 OK"
            self.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-")
            time.sleep(0.001)
            self.wfile.write(b"Length: %d\r\n\r\n" % length + body)


@pytest.fixture
def port() -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def load(port: int, *bodies: bytes, clients: int = 4, patience_s: float = 2.0):
    harvest = Harvest(len(bodies))
    requests = [encode(body) for body in bodies]
    return drive(port, requests, harvest, clients=clients, seconds=0.3, patience_s=patience_s), harvest


def test_each_sample_is_asked_and_its_answer_kept(port):
    large = b'"%s"' % (b"x" * 3_000_000)
    point, harvest = load(port, b"1", b"2", large)

    assert harvest.answers == [{b"1"}, {b"2"}, {large}]
    assert (point.clients, point.failures) == (4, 0)
    assert point.requests > 3
    assert 1 < point.p50_ms <= point.p99_ms < 2000
    assert point.throughput > 0


def test_refusals_and_closed_connections_are_failures(port):
    point, harvest = load(port, b'"refuse"')
    assert point.requests == 0
    assert point.failures > 0
    assert harvest.answers == [set()]
    point, _ = load(port, b'"close"', clients=3)
    assert (point.requests, point.failures) == (0, 3)


def test_what_is_under_way_at_the_end_counts_if_it_comes_in_time(port):
    point, _ = load(port, b'"wait"', clients=2)
    assert point.failures == 0
    point, _ = load(port, b'"wait"', clients=2, patience_s=0.05)
    assert (point.requests, point.failures) == (0, 2)


@pytest.mark.parametrize(("count", "p50", "p99"), [(1, 1, 1), (100, 50, 99), (200, 100, 198), (1000, 500, 990)])
def test_percentiles_are_those_of_the_nearest_rank(count, p50, p99):
    point = point_of(8, [number / 1000 for number in range(count, 0, -1)], 2.0, 0, 0.1)
    assert (point.p50_ms, point.p99_ms) == pytest.approx((p50, p99))
    assert point.throughput == count / 2
