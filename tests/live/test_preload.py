"""Servers whose scorers are forks of one process."""

import os
import re
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import os

def init():
    with open("inits", "a") as file:
        file.write("init\\n")

def run(data):
    return [os.getpid(), os.getppid()]
"""


def pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def inits(folder: Path) -> int:
    return (folder / "inits").read_text().count("init")


def forks(server) -> list[psutil.Process]:
    (preloaded,) = server.scorers  # the front's only child
    children: list[psutil.Process] = preloaded.children()
    return children


def test_one_init_for_three_scorers_that_are_replaced_and_end_with_the_server(script, serve, tmp_path, wait_until):
    with serve(script(SCRIPT), "--scorers", "3", "--preload", "true", folder=tmp_path) as server:
        (preloaded,) = server.scorers
        assert len(forks(server)) == 3
        pid, parent = server.score(b"x").json
        assert pid in {fork.pid for fork in forks(server)}
        assert parent == preloaded.pid
        assert f"preload process: ready (pid {parent})" in server.get("/readyz?verbose").body.decode()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in {fork.pid for fork in forks(server)} and len(forks(server)) == 3)
        server.wait_ready()
        assert inits(tmp_path) == 1

        preloaded.kill()
        wait_until(lambda: [one.pid for one in server.scorers] not in ([], [parent]) and len(forks(server)) == 3)
        server.wait_ready()
        assert inits(tmp_path) == 2
        assert server.score(b"x").json[1] != parent


@pytest.mark.parametrize("killed", ["front", "first process"])
def test_kill_9_from_above_leaves_no_fork(script, serve, tmp_path, killed):
    with serve(script(SCRIPT), "--scorers", "2", "--preload", "true", folder=tmp_path) as server:
        old = [*server.scorers, *forks(server)]
        if killed == "front":
            server.front.kill()
            _, alive = psutil.wait_procs(old, timeout=10)
            assert not alive
            server.wait_ready()
            assert inits(tmp_path) == 2
        else:
            server.process.kill()
            server.process.wait()
            server.assert_nothing_left()
            server.process.returncode = 0  # what was asked for has happened


def test_init_that_fails_ends_the_server_with_3_and_its_traceback_last(script, command):
    failing = script("def init():\n    raise ValueError('no weights')\ndef run(data): pass\n")
    ended = command("serve", failing, "--port", pick_port(), "--scorers", "3", "--preload", "true")
    assert ended.code == 3
    assert ended.last_line == "ValueError: no weights"
    assert ended.output.count("Traceback") == 1


def test_init_that_ends_its_process_ends_the_server_with_3(script, command):
    ended = command(
        "serve", script("import os\ndef init(): os._exit(7)\ndef run(data): pass\n"), "--port", pick_port(),
        environ={"WORKER_PRELOAD": "True"},
    )  # fmt: skip
    assert ended.code == 3
    assert "the scorer exited with code 7 while it loaded" in ended.output


def test_a_model_is_opened_by_each_scorer_and_the_log_says_so(trained, serve):
    with serve(trained.iris, "--scorers", "2", "--preload", "true") as server:
        assert len(server.scorers) == 2
        assert len(re.findall("Preloading is on, and does nothing here: an ONNX model has no init", server.log)) == 1


def test_the_default_timeout_of_sockets_that_init_sets_is_not_that_of_the_channel(script, serve):
    text = "import socket\ndef init(): socket.setdefaulttimeout(0.05)\ndef run(data): return data\n"
    with serve(script(text), "--preload", "true") as server:
        for _ in range(3):
            time.sleep(0.2)  # longer than the timeout: the scorer waits for a request
            assert server.score(b"x").json == "x"
        assert "restart in" not in server.log
