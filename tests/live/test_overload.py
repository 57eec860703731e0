"""More than can be served, through real sockets: who is refused, who runs, and what the log and the metrics say."""

import http.client
import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

GATED = """
import json, os, time

def init():
    pass

def run(data):
    name = json.loads(data)
    note = os.open("begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(note, (name + "\\n").encode())
    os.close(note)
    deadline = time.monotonic() + 60
    while not os.path.exists("go"):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return name
"""
LATE = {"message": "The deadline of the request passed before it was answered."}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    json: Any


class House:
    """A server whose script runs until it is let go, and clients that ask at the same time."""

    def __init__(self, port: int, folder: Path, clients: ThreadPoolExecutor, wait_until: Callable[..., Any]) -> None:
        self.port = port
        self.folder = folder
        self.clients = clients
        self.wait_until = wait_until

    def ask(self, name: str, **headers: str) -> "Future[Answer]":
        return self.clients.submit(self._ask, name, {name.replace("_", "-"): value for name, value in headers.items()})

    def _ask(self, name: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/score", json.dumps(name), headers)
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, found, json.loads(response.read()))
        finally:
            connection.close()

    def begun(self) -> list[str]:
        path = self.folder / "begun"
        return path.read_text().split() if path.exists() else []

    def hold(self) -> "Future[Answer]":
        """The first request, which holds the only scorer."""
        first = self.ask("first")
        self.wait_until(lambda: self.begun() == ["first"])
        return first

    def go(self) -> None:
        (self.folder / "go").touch()

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def waiting(self, count: int) -> None:
        self.wait_until(lambda: self.metric("scoring_queue_requests") == count)


@pytest.fixture
def house(serve, script, tmp_path, wait_until):
    """`house(*flags)` gives the server and the clients."""
    opened = []

    def start(*flags: str) -> tuple[Any, House]:
        clients = ThreadPoolExecutor(16)
        server = serve(script(GATED), *flags, folder=tmp_path)
        opened.append((server, clients))
        running = server.__enter__()
        return running, House(running.port, tmp_path, clients, wait_until)

    yield start
    (tmp_path / "go").touch()
    for server, clients in opened:
        clients.shutdown()
        server.__exit__(None, None, None)


def test_deadlines_in_line_and_under_way(house, wait_until):
    server, clients = house()
    running = clients.ask("running", x_request_timeout_ms="1500")
    wait_until(lambda: clients.begun() == ["running"])
    in_line, patient = clients.ask("late", x_request_timeout_ms="300"), clients.ask("patient")

    for answer in (in_line.result(60), running.result(60)):
        assert (answer.status, answer.json) == (504, LATE)
    clients.go()

    assert patient.result(60).json == "patient"
    assert clients.begun() == ["running", "patient"]  # what was late in line never ran; what ran was not interrupted
    assert clients.metric('scoring_expired_total{limit="deadline"}') == 2
    wait_until(lambda: re.search(r"run\(\) ended \d+ ms after the deadline of its request", server.log))
    wait_until(lambda: "with 504: The deadline of the request passed before it was answered." in server.log)


def test_a_deadline_that_is_no_number_is_refused(house):
    _, clients = house("--deadline-header", "X-Envoy-Expected-Rq-Timeout-Ms")
    answer = clients.ask("never", x_envoy_expected_rq_timeout_ms="1.5s").result(60)
    assert answer.status == 400
    assert "x-envoy-expected-rq-timeout-ms holds no whole number of milliseconds" in answer.json["message"]
    assert clients.begun() == []


def test_a_full_line_refuses_and_says_why_in_the_log_alone(house, wait_until):
    server, clients = house("--max-queued-requests", "2")
    first = clients.hold()
    waiting = [clients.ask("second"), clients.ask("third")]
    clients.waiting(2)

    refused = [clients.ask("fourth").result(60) for _ in range(3)]
    assert [answer.status for answer in refused] == [503] * 3
    assert refused[0].json == {"message": "The server is overloaded. Try again in 1 s."}
    assert refused[0].headers["retry-after"] == "1"
    wait_until(lambda: "The limit is --max-queued-requests 2." in server.log)
    assert clients.metric('scoring_refused_total{limit="queued_requests"}') == 3

    clients.go()
    assert [answer.result(60).status for answer in (first, *waiting)] == [200] * 3


def test_who_waits_for_longer_than_allowed_is_told_to_come_back_and_never_runs(house, wait_until):
    server, clients = house("--max-queue-wait-ms", "200")
    first = clients.hold()
    late = clients.ask("late").result(60)
    assert (late.status, late.headers["retry-after"]) == (503, "1")
    wait_until(lambda: "The limit is --max-queue-wait-ms 200." in server.log)
    clients.go()
    assert first.result(60).status == 200
    assert clients.ask("last").result(60).status == 200
    assert clients.begun() == ["first", "last"]


def test_who_leaves_while_it_waits_is_never_run(house):
    _, clients = house()
    first = clients.hold()
    body = json.dumps("left").encode()
    request = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    leaving = [socket.create_connection(("127.0.0.1", clients.port)) for _ in range(5)]
    for connection in leaving:
        connection.sendall(request)
    clients.waiting(5)
    stays = clients.ask("stays")
    clients.waiting(6)
    for connection in leaving:
        connection.close()
    clients.waiting(1)
    clients.go()
    assert [answer.result(60).json for answer in (first, stays)] == ["first", "stays"]
    assert clients.begun() == ["first", "stays"]
    assert clients.metric("scoring_cancelled_total") == 5


def test_scorers_have_no_more_at_a_time_than_they_may(house, wait_until):
    _, clients = house("--scorers", "2", "--max-concurrent-requests", "1")
    first = clients.hold()
    others = [clients.ask(f"other{number}") for number in range(4)]
    clients.waiting(4)  # although a scorer is idle
    assert clients.begun() == ["first"]
    clients.go()
    assert [answer.result(60).status for answer in (first, *others)] == [200] * 5
