"""`scoring-runtime health`, as a container's health check runs it: with the environment of the server, and no more."""

import socket
import subprocess

import pytest

from .certificates import Authority
from .conftest import COMMAND, environment, pick_port, until

ECHO = "def init(): pass\ndef run(data): return data\n"
SLOW = "import time\n\ndef init():\n    time.sleep(600)\n\ndef run(data):\n    return data\n"


def health(**environ: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        [*COMMAND, "health"], env=environment("none", environ), capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_a_server_that_runs(serve, script):
    with serve(script(ECHO)) as server:
        assert health(SCORING_PORT=str(server.port)) == (0, "ok\n", "")
        assert health(SCORING_PORT=str(server.port), SCORING_HOST="0.0.0.0") == (0, "ok\n", "")


def test_one_that_still_loads_lives(serve, script):
    with serve(script(SLOW), ready=False) as server:
        until(lambda: server.status("/livez") == 200)
        assert server.status("/readyz") == 503
        assert health(SCORING_PORT=str(server.port)) == (0, "ok\n", "")


def test_nobody_listens():
    port = pick_port()
    code, output, error = health(SCORING_PORT=str(port))
    assert (code, output) == (1, "")
    assert error.startswith(f"127.0.0.1:{port} does not answer: ")
    assert error.count("\n") == 1


def test_one_that_takes_connections_and_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert health(SCORING_PORT=str(port)) == (1, "", f"127.0.0.1:{port} does not answer: timed out\n")


@pytest.mark.parametrize("clients", [False, True])
def test_over_tls_whoever_may_connect(serve, script, tmp_path, clients):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.sign("server")
    environ = {"SCORING_TLS_CERT": str(certificate), "SCORING_TLS_KEY": str(key)}
    environ |= {"SCORING_TLS_CLIENT_CA": str(authority.pem)} if clients else {}
    with serve(script(ECHO), environ=environ, ready=False) as server:
        until(lambda: "Ready on https://" in server.log)
        assert health(SCORING_PORT=str(server.port), **environ) == (0, "ok\n", "")


def test_settings_that_the_server_would_refuse():
    code, output, error = health(SCORING_PORT="no")
    assert (code, output) == (3, "")
    assert "SCORING_PORT" in error
