"""Clients that want to hold the server up: slow ones, silent ones, and very many."""

import resource
import select
import shlex
import socket
import subprocess
import threading
import time
import uuid
from contextlib import suppress
from typing import Any

import psutil

from .conftest import COMMAND, environment, pick_port, reap

ECHO = "def init(): pass\ndef run(data): return data\n"
HEAD = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Type: text/plain\r\n"


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 60)


def receive(connection: socket.socket) -> bytes:
    """All until its end."""
    data = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


def limited(server: Any, descriptors: int) -> Any:
    return resource.prlimit(server.front.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))


# Slow ones


def test_slow_heads_slow_bodies_and_slow_readers_are_ended_and_others_served(serve, script, wait_until):
    flags = ("--head-timeout-s", "1", "--body-timeout-s", "1", "--keepalive-timeout-s", "1")
    with serve(script("def init(): pass\ndef run(data): return 'x' * 20_000_000\n"), *flags) as server:
        heads, bodies, readers, idle = ([connect(server) for _ in range(20)] for _ in range(4))
        for connection in readers:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ended = threading.Event()

        def drip() -> None:
            """A byte now and then, for as long as they are taken."""
            at = 0
            while not ended.wait(0.1):
                for connection, data in [
                    *((connection, HEAD + b"X-Long: " + b"x" * 10_000) for connection in heads),
                    *((connection, HEAD + b"Content-Length: 10000\r\n\r\n" + b"x" * 10_000) for connection in bodies),
                ]:
                    with suppress(OSError):
                        connection.sendall(data[at : at + 1] if at or connection in heads else data[:150])
                at += 1

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            for connection in readers[:3]:
                connection.sendall(HEAD + b"Content-Length: 1\r\n\r\nx")
            assert all(receive(connection).startswith(b"HTTP/1.1 408 ") for connection in (*heads, *bodies))
            assert all(receive(connection) == b"" for connection in idle)
            wait_until(lambda: "did not read its answer" in server.log, "the slow readers are not cut")
        finally:
            ended.set()
            dripping.join()
        for connection in (*heads, *bodies, *readers, *idle):
            connection.close()
        assert server.score("x").status == 200
        for setting in ("--head-timeout-s", "--body-timeout-s"):
            assert f"The limit is {setting} " in server.log
        assert server.log.count("Refused") < 20


# Many


def test_a_flood_of_connections_harms_none_of_those_that_are_there(serve, script, wait_until):
    with serve(script(ECHO), "--max-connections", "20") as server:
        held = [connect(server) for _ in range(20)]
        held[0].sendall(HEAD + b"Content-Length: 1\r\n\r\nx")
        wait_until(lambda: b"200 OK" in held[0].recv(65536), "an answer")
        flood = [connect(server) for _ in range(300)]
        began = time.monotonic()
        answers = [receive(connection) for connection in flood]
        assert time.monotonic() - began < 30
        refused = [answer for answer in answers if answer]
        assert all(answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answer for answer in refused)
        assert len(refused) >= 64
        for connection in flood:
            connection.close()
        for connection in held:
            connection.sendall(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
            assert receive(connection).endswith(b'"ok"')
            connection.close()
        wait_until(lambda: server.score("x").status == 200, "a new connection after the flood")
        assert "The limit is --max-connections " in server.log
        assert server.log.count("takes no more") < 30


def test_without_descriptors_the_server_neither_spins_nor_ends_and_recovers(serve, script, wait_until):
    with serve(script(ECHO)) as server:
        kept = connect(server)
        front = server.front
        limited(server, front.num_fds() + 30)  # behind the server's back: it believes in thousands
        flood = [connect(server) for _ in range(200)]
        # they are taken and closed, not left in the line
        wait_until(lambda: len(select.select(flood, [], [], 0)[0]) >= 150, "the flood is not shed")
        before, began = sum(front.cpu_times()[:2]), time.monotonic()
        time.sleep(1.0)
        spent_s = sum(front.cpu_times()[:2]) - before
        assert spent_s < 0.5 * (time.monotonic() - began)
        kept.sendall(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
        assert receive(kept).endswith(b'"ok"')
        for connection in (*flood, kept):
            connection.close()
        wait_until(lambda: server.status("/livez") == 200, "new connections")
        assert server.score("x").status == 200


def test_a_low_limit_of_descriptors_is_said_at_the_start_and_met_with_503(script, tmp_path, wait_until):
    mark, port, path = uuid.uuid4().hex, pick_port(), tmp_path / "log"
    command = shlex.join([*COMMAND, "serve", str(script(ECHO)), "--port", str(port)])
    with path.open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"ulimit -n 200; exec {command}"], stdout=log, stderr=log, env=environment(mark), cwd=tmp_path
        )
    try:
        wait_until(lambda: "Ready on" in path.read_text(), "the server")
        assert "At most 64 connections are taken, not 10000: this process may open 200 files." in path.read_text()
        held = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(65)]
        over = held.pop()
        assert receive(over).startswith(b"HTTP/1.1 503 ")
        over.close()
        for connection in held:
            connection.sendall(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
            assert receive(connection).endswith(b'"ok"')
            connection.close()
        process.terminate()
        assert process.wait(60) == 0
    finally:
        reap(mark)
        process.wait(60)


def test_idle_connections_cost_little(serve, script):
    with serve(script(ECHO)) as server:
        front = psutil.Process(server.front.pid)
        before = front.memory_info().rss
        idle = [connect(server) for _ in range(500)]
        assert server.score("x").status == 200
        assert front.memory_info().rss - before < 500 * 20_000
        for connection in idle:
            connection.close()
