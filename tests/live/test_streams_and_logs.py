"""Responses that come in pieces, and lines that scorers print, through the whole server."""

import re
import signal
import socket
import time
from typing import Any

STREAMS = """
import time
from pathlib import Path
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

def told():
    yield b"first"
    deadline = time.monotonic() + 60
    while not Path("go-on").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    yield b"second"

def endless():
    try:
        for number in range(1000000):
            Path("yielded").write_text(str(number))
            yield b"x" * 65536
    finally:
        Path("closed").touch()

def breaks():
    yield b"first"
    raise ValueError("in the middle")

@rawhttp
def run(request):
    name = request.get_data().decode()
    return AMLResponse({"told": told, "endless": endless, "breaks": breaks}[name](), 200) if name else "quick"
"""

PRINTS = """
import os
LONG = "z" * 9000

def init():
    pass

def run(data):
    for number in range(5000):
        print("line %d of %d %s" % (number, os.getpid(), LONG if number % 100 == 0 else "x" * 80))
    return os.getpid()
"""


def send(port: int, body: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 30)
    client.sendall(b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return client


def read_until(client: socket.socket, ending: bytes) -> bytes:
    data = b""
    while ending not in data:
        piece = client.recv(65536)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def test_a_piece_is_sent_when_it_is_yielded(script: Any, serve: Any, tmp_path: Any) -> None:
    with serve(script(STREAMS), folder=tmp_path) as server, send(server.port, b"told") as client:
        data = read_until(client, b"5\r\nfirst\r\n")
        assert b"second" not in data
        assert b"transfer-encoding: chunked" in data.lower()
        (tmp_path / "go-on").touch()
        assert read_until(client, b"0\r\n\r\n").endswith(b"6\r\nsecond\r\n0\r\n\r\n")


def test_a_client_that_does_not_read_holds_up_the_generator_and_one_that_leaves_ends_it(
    script: Any, serve: Any, tmp_path: Any, wait_until: Any
) -> None:
    def yielded() -> int:
        text = (tmp_path / "yielded").read_text() if (tmp_path / "yielded").exists() else ""
        return int(text or 0)

    def stands_still() -> bool:
        before = yielded()
        time.sleep(0.3)
        return before > 0 and yielded() == before

    with serve(script(STREAMS), folder=tmp_path) as server:
        with send(server.port, b"endless"):
            wait_until(stands_still)
            assert yielded() < 400, "more than the sockets' buffers hold"
            assert server.status("/") == 200
        wait_until((tmp_path / "closed").exists)
        assert server.score(b"").status == 200


def test_a_generator_that_fails_breaks_the_connection_off(script: Any, serve: Any, tmp_path: Any) -> None:
    with serve(script(STREAMS), folder=tmp_path) as server:
        with send(server.port, b"breaks") as client:
            data = b""
            try:
                while piece := client.recv(65536):
                    data += piece
            except ConnectionResetError:
                pass
        assert b"first" in data
        assert not data.endswith(b"0\r\n\r\n"), "a client must see that the response is not whole"
        assert server.score(b"").status == 200
        assert "ValueError: in the middle" in server.log


def test_a_stream_that_began_before_the_drain_does_not_hold_it_up(
    script: Any, serve: Any, tmp_path: Any, wait_until: Any
) -> None:
    with (
        serve(script(STREAMS), "--drain-timeout-s", "50", folder=tmp_path) as server,
        send(server.port, b"told") as client,
    ):
        read_until(client, b"5\r\nfirst\r\n")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.status("/readyz") == 0)
        began = time.monotonic()
        (tmp_path / "go-on").touch()
        assert read_until(client, b"0\r\n\r\n").endswith(b"6\r\nsecond\r\n0\r\n\r\n")
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 20


def test_a_request_that_ends_a_scorer_while_another_one_loads_does_not_end_the_server(
    script: Any, serve: Any, tmp_path: Any, wait_until: Any
) -> None:
    text = """
import os, time
from pathlib import Path
def init():
    try:
        Path("one-loads").mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 60
        while not Path("go-on").exists():
            assert time.monotonic() < deadline
            time.sleep(0.002)
def run(data):
    if data == "die":
        os._exit(7)
    return data
"""
    with serve(script(text), "--scorers", "2", folder=tmp_path, ready=False) as server:
        wait_until(lambda: server.status("/") and b": ready" in server.get("/readyz?verbose").body)
        assert server.score(b"die").status == 500
        assert server.process.poll() is None
        (tmp_path / "go-on").touch()
        server.wait_ready()
        assert server.score(b"well").json == "well"


def test_lines_of_several_scorers_come_out_whole(script: Any, serve: Any, tmp_path: Any, wait_until: Any) -> None:
    """20,000 lines from two processes at once, some longer than what a pipe takes in one piece."""
    line = re.compile(r".* I \[(\d+)\] azmlinfsrv\.print - line (\d+) of \1 (x{80}|z{9000})")
    with serve(script(PRINTS), "--scorers", "2", folder=tmp_path) as server:
        clients = [send(server.port, b"") for _ in range(4)]
        for client in clients:
            with client:
                assert b" 200 OK" in read_until(client, b"\r\n\r\n")
        wait_until(lambda: server.log.count(" of ") >= 20000)
        printed = [text for text in server.log.splitlines() if "azmlinfsrv.print" in text]
        assert len(printed) == 20000
        assert [text[:200] for text in printed if not line.fullmatch(text)] == []
        assert len({match[1] for text in printed if (match := line.fullmatch(text))}) == 2


HOLDS = """
    if name == "hold":
        Path("held").touch()
        while not Path("let-go").exists():
            time.sleep(0.002)
        return "held"
"""


def test_requests_that_share_a_frame_with_a_slow_stream_go_back_to_the_line(
    script: Any, serve: Any, tmp_path: Any, wait_until: Any
) -> None:
    line = "    name = request.get_data().decode()\n"

    def metrics() -> bytes:
        body: bytes = server.get("/metrics").body
        return body

    with (
        serve(script(STREAMS.replace(line, line + HOLDS)), "--batch-target-ms", "3600000", folder=tmp_path) as server,
        send(server.port, b"hold"),
    ):
        wait_until((tmp_path / "held").exists)
        with send(server.port, b"endless") as slow:
            wait_until(lambda: b"scoring_queue_requests 1.0" in metrics())
            with send(server.port, b"") as quick, send(server.port, b"") as other:
                wait_until(lambda: b"scoring_queue_requests 3.0" in metrics())
                (tmp_path / "let-go").touch()
                wait_until((tmp_path / "yielded").exists)
                wait_until(lambda: b"scoring_queue_requests 2.0" in metrics())
                assert b"scoring_batch_size_sum 3.0" in metrics()  # two of them had travelled together
                slow.close()
                for client in (quick, other):
                    assert b" 200 OK" in read_until(client, b'"quick"')
