"""What people do first: paste a curl line."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def curl():
    if shutil.which("curl") is None:
        pytest.fail("curl is not installed: run `make apt`")


def run_curl(*arguments: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def digits(serve):
    with serve(ROOT / "examples/digits/digits.onnx") as server:
        yield server


@pytest.fixture
def length(serve, script):
    """A server that answers with the length of what it was sent."""
    with serve(script("def init(): pass\ndef run(data): return len(data)\n")) as server:
        yield server


def test_the_line_that_make_serve_prints(serve):
    """The line, and the command behind it, are taken from make itself."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    makes = subprocess.run(
        ["make", "--dry-run", "--always-make", "serve", "PORT=12345"],
        cwd=ROOT, env=environ, capture_output=True, text=True, check=True,
    ).stdout.replace("\\\n", "")  # fmt: skip
    (printing,) = re.findall(r"^printf .*$", makes, re.MULTILINE)
    printed = subprocess.run(["bash", "-c", printing], capture_output=True, text=True, check=True).stdout
    (line,) = re.findall(r"^ +(curl .*)$", printed, re.MULTILINE)
    ((target, port),) = re.findall(r"scoring-runtime serve '(.+)' --port (\d+)", makes)
    assert f"http://127.0.0.1:{port}/score" in line

    with serve(ROOT / target) as server:
        pasted = line.replace(port, str(server.port))
        command = ["bash", "-c", pasted.replace("curl", "curl --silent --show-error --noproxy '*'", 1)]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True, cwd="/").stdout)

    question = json.loads((ROOT / "examples/digits/request.json").read_text())
    session = onnxruntime.InferenceSession(ROOT / target, providers=["CPUExecutionProvider"])
    label, probabilities = session.run(None, {"pixels": np.array(question["data"], np.float32)})
    assert answer["outputs"]["label"] == label.tolist() == [7]
    np.testing.assert_allclose(answer["outputs"]["probabilities"], probabilities, rtol=1e-5, atol=1e-6)


def test_a_large_body_is_sent_after_100_continue(length, tmp_path):
    (tmp_path / "body").write_bytes(b"x" * 2_000_000)
    url = f"http://127.0.0.1:{length.port}/score"

    shown = run_curl("--include", "-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path}/body", url)

    assert shown.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert shown.endswith(b"\r\n\r\n2000000")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(serve, script, tmp_path):
    (tmp_path / "body").write_bytes(b"x" * 2_000_000)
    limited = "def init(): pass\ndef run(data): return len(data)\n"
    with serve(script(limited), "--max-body-bytes", "1000000") as server:
        shown = run_curl(
            *("--include", "-H", "Expect: 100-continue", "--write-out", "|%{size_upload}"),
            *("--data-binary", f"@{tmp_path}/body", f"http://127.0.0.1:{server.port}/score"),
        )
    assert shown.startswith(b"HTTP/1.1 413 ")
    assert b'{"message": "The request body is larger than 1000000 bytes."}' in shown
    assert int(shown.rpartition(b"|")[2]) < 2_000_000


def test_a_chunked_upload(length, tmp_path):
    (tmp_path / "body").write_bytes(b"x" * 300_000)
    url = f"http://127.0.0.1:{length.port}/score"
    assert run_curl("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{tmp_path}/body", url) == b"300000"


def test_head(digits):
    for path, status in (("/", 200), ("/readyz", 200), ("/livez", 200), ("/metrics", 200), ("/nowhere", 404)):
        shown = run_curl("--head", f"http://127.0.0.1:{digits.port}{path}").decode()
        assert shown.startswith(f"HTTP/1.1 {status} ")
        assert re.search(r"(?im)^content-length: \d+\r$", shown)
    assert run_curl("--head", f"http://127.0.0.1:{digits.port}/score").startswith(b"HTTP/1.1 405 ")


def test_http_1_0(digits):
    url = f"http://127.0.0.1:{digits.port}/"
    assert run_curl("--http1.0", "--include", url).endswith(b"\r\n\r\nHealthy")


def test_two_requests_on_one_connection(digits):
    url = f"http://127.0.0.1:{digits.port}/"
    assert run_curl("--write-out", "|%{num_connects}|", url, url) == b"Healthy|1|Healthy|0|"


def test_an_upgrade_to_http_2_is_declined(digits):
    assert run_curl("--http2", f"http://127.0.0.1:{digits.port}/") == b"Healthy"


def test_a_curl_that_is_stopped_half_way_harms_nobody(length, tmp_path):
    (tmp_path / "body").write_bytes(b"x" * 2_000_000)
    url = f"http://127.0.0.1:{length.port}/score"
    stopped = subprocess.Popen(
        ["curl", "--silent", "--noproxy", "*", "--limit-rate", "100k", "--data-binary", f"@{tmp_path}/body", url]
    )
    try:
        while b"scoring_connections 2.0" not in length.get("/metrics").body:
            assert stopped.poll() is None
    finally:
        stopped.send_signal(signal.SIGKILL)
        stopped.wait()
    assert length.score(b"12345").json == 5
