"""Two servers behind HAProxy, set up as docs/operations.md says, are restarted one after the other under load."""

import csv
import http.client
import re
import shutil
import signal
import socket
import subprocess
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .load import Load, encode_number

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
GRACE_S = 2  # as the page says

ECHO = """
import json, os, time

def init():
    global begun
    time.sleep(0.2)
    begun = os.open("begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def run(data):
    number = json.loads(data)["number"]
    os.write(begun, b"%d\\n" % number)
    time.sleep(0.005)
    return {"number": number}
"""


@pytest.fixture
def haproxy(tmp_path, wait_until):
    """`with haproxy(port, port) as (port, states):` runs it over these servers; states() tells which it takes to be up."""

    @contextmanager
    def start(*ports: int):
        (text,) = re.findall(r"```haproxy\n(.*?)```", OPERATIONS.read_text("utf-8"), re.DOTALL)
        own, statistics = free_ports(2)
        text = text.replace("*:80", f"127.0.0.1:{own}")
        text = text.replace(
            "mode http\n", "mode http\n    retries 0\n"
        )  # a connection that is refused is a failure here
        for place, port in zip(("10.0.0.1:5001", "10.0.0.2:5001"), ports, strict=True):
            assert place in text
            text = text.replace(place, f"127.0.0.1:{port}")
        text += f"\nlisten statistics\n    bind 127.0.0.1:{statistics}\n    stats enable\n    stats uri /\n"
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(text, "utf-8")
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        assert program is not None, "haproxy is missing: make apt"
        with (tmp_path / "haproxy.log").open("wb") as log:
            process = subprocess.Popen([program, "-db", "-f", configuration], stdout=log, stderr=subprocess.STDOUT)

        def states() -> list[str]:
            assert process.poll() is None, (tmp_path / "haproxy.log").read_text("utf-8")
            connection = http.client.HTTPConnection("127.0.0.1", statistics, timeout=10)
            try:
                connection.request("GET", "/;csv")
                table = connection.getresponse().read().decode().removeprefix("# ").splitlines()
            except OSError:
                return []
            finally:
                connection.close()
            rows = [row for row in csv.DictReader(table) if row["pxname"] == "scoring"]
            return [row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")]

        try:
            yield own, states
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    return start


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_a_rolling_restart_behind_haproxy_fails_no_request(script, serve, connect, haproxy, tmp_path, wait_until):
    target = script(ECHO)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()

    def start(index: int, port: int = 0) -> tuple[ExitStack, Any]:
        context = ExitStack()
        flags = ("--scorers", "2", "--drain-grace-s", str(GRACE_S))
        return context, context.enter_context(serve(target, *flags, folder=folders[index], port=port))

    running = [start(0), start(1)]
    try:
        with haproxy(*(server.port for _, server in running)) as (port, states):
            wait_until(lambda: states() == ["UP", "UP"])
            load = Load(port, connect, encode_number)

            def restart_in_turn():
                for index in (0, 1) * 2:
                    context, server = running[index]
                    load.await_more(50)
                    context.close()  # SIGTERM; it must end with 0
                    running[index] = start(index, server.port)
                    load.await_more(50)
                    wait_until(lambda: states() == ["UP", "UP"])
                load.await_more(50)

            load.run(restart_in_turn)
    finally:
        for context, _ in running:
            context.close()

    assert not load.unanswered
    assert {number for number, answer in load.answers.items() if answer.status != 200} == set()
    assert all(answer.json == {"number": number} for number, answer in load.answers.items())
    begun = Counter(int(line) for folder in folders for line in (folder / "begun").read_text().split())
    assert begun == dict.fromkeys(load.answers, 1)  # and nothing was sent a second time to get there
