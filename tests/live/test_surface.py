"""What the server says about itself: health, readiness, metrics, metadata."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

WAITS = """
import time
from pathlib import Path
def init():
    deadline = time.monotonic() + 60
    while not Path("may-load").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
def run(data):
    if data == "fail":
        raise ValueError(data)
    return len(data)
"""


def samples(server: Any) -> dict[Any, float]:
    """Every sample: (name, labels) to value. The parser is the one that Prometheus's own client brings."""
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_healthy_from_the_first_moment_ready_when_init_has_returned(script, serve, tmp_path, wait_until):
    with serve(script(WAITS), "--scorers", "2", folder=tmp_path, ready=False) as server:
        wait_until(lambda: server.status("/"))
        for path in ("/", "/livez"):
            answer = server.get(path)
            assert (answer.status, answer.body) == (200, b"Healthy")
        for path in ("/readyz", "/startupz"):
            assert server.status(path) == 503
        assert server.get("/readyz").body == b"not ready: 0 of 2 scorers are ready\n"
        verbose = server.get("/readyz?verbose").body.decode().splitlines()
        assert verbose[0] == "not ready: 0 of 2 scorers are ready"
        assert [line.partition(" (pid ")[0] for line in verbose[1:]] == ["scorer 1: starting", "scorer 2: starting"]
        assert samples(server)["scoring_ready", ()] == 0

        (tmp_path / "may-load").touch()
        server.wait_ready()

        assert server.get("/readyz").body == b"ok\n"
        assert server.status("/startupz") == 200
        verbose = server.get("/readyz?verbose").body.decode().splitlines()
        assert verbose[0] == "ok"
        assert sorted(line.rpartition("(pid ")[2].rstrip(")") for line in verbose[1:]) == sorted(
            str(scorer.pid) for scorer in server.scorers
        )
        assert samples(server)["scoring_ready", ()] == 1


@pytest.mark.parametrize("scorers", [1, 2])
def test_metrics_count_right(scorers, script, serve, tmp_path):
    (tmp_path / "may-load").touch()
    with serve(script(WAITS), "--scorers", str(scorers), folder=tmp_path) as server:
        for _ in range(7):
            assert server.score(b"fine").status == 200
        for _ in range(3):
            assert server.score(b"fail").status == 500
        assert server.score(b"\xff").status == 400
        assert server.status("/nowhere") == 404
        assert server.ask("PUT", "/score").status == 405
        counted = samples(server)

    assert counted["scoring_requests_total", (("status", "200"),)] == 7
    assert counted["scoring_requests_total", (("status", "500"),)] == 3
    assert counted["scoring_requests_total", (("status", "400"),)] == 1
    assert counted["scoring_errors_total", (("error", "NotFound"),)] == 1
    assert counted["scoring_errors_total", (("error", "MethodNotAllowed"),)] == 1
    assert counted["scoring_request_duration_seconds_count", ()] == 11
    assert counted["scoring_request_duration_seconds_bucket", (("le", "+Inf"),)] == 11
    assert 0 < counted["scoring_request_duration_seconds_sum", ()] < 60
    assert counted["scoring_batch_size_sum", ()] == 11
    assert counted["scoring_scorers", ()] == counted["scoring_scorers_live", ()] == scorers
    assert counted["scoring_scorer_restarts", ()] == 0
    assert counted["scoring_queue_requests", ()] == counted["scoring_queue_bytes", ()] == 0
    assert counted["scoring_connections", ()] == 1  # the one that asks


def test_buckets_never_fall(script, serve, tmp_path):
    (tmp_path / "may-load").touch()
    with serve(script(WAITS), folder=tmp_path) as server:
        for _ in range(20):
            server.score(b"fine")
        families = {
            family.name: family for family in text_string_to_metric_families(server.get("/metrics").body.decode())
        }
    for name in ("scoring_request_duration_seconds", "scoring_batch_size"):
        assert families[name].type == "histogram"
        counts = [sample.value for sample in families[name].samples if sample.name.endswith("_bucket")]
        assert counts == sorted(counts)
    assert families["scoring_requests"].type == "counter"
    assert families["scoring_ready"].type == "gauge"


def test_metadata_of_a_model(serve, trained):
    with serve(trained.iris) as server:
        answer = server.get("/v2/models/iris")
        assert answer.status == 200
        metadata = answer.json
        assert metadata["name"] == "iris"
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["X"]
        assert [tensor["name"] for tensor in metadata["outputs"]] == ["label", "probabilities"]
        unknown = server.get("/v2/models/other")
        assert unknown.status == 404
        assert "other" in unknown.json["error"]
        assert server.get("/v2").json["name"] == "scoring-runtime"
        assert server.status("/v2/models/iris%2f..%2fx") == 404


def test_a_busy_scorer_delays_no_probe(script, serve, tmp_path, wait_until):
    busy = "def init(): pass\ndef run(data):\n    open('begun', 'w').close()\n    sum(range(10**15))\n"
    with serve(script(busy), "--drain-timeout-s", "0", folder=tmp_path) as server, ThreadPoolExecutor(1) as background:
        stuck = background.submit(server.score, b"")
        wait_until((tmp_path / "begun").exists)
        for path in ("/", "/livez", "/readyz", "/startupz", "/metrics", "/v2"):
            began = time.monotonic()
            assert server.status(path) == 200
            assert time.monotonic() - began < 10
        assert not stuck.done()
        server.stop()
        assert stuck.result().status == 500


def test_a_server_that_must_not_say_who_it_is(script, serve):
    flags = ("--server-identity", "off", "--security-headers", "on", "--service-name", "mine", "--service-version", "7")
    with serve(script("def init(): pass\ndef run(data): return data"), *flags) as server:
        answers = [
            server.get(path) for path in ("/", "/v2", "/swagger.json", "/metrics", "/nowhere", "/readyz?verbose")
        ]
        assert answers[1].json == {"name": "mine", "version": "7", "extensions": []}
        for answer in answers:
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            told = f"{answer.headers} {answer.body!r}".lower()
            assert not any(name in told for name in ("scoring-runtime", "azmlinfsrv", "gunicorn", "werkzeug", "0.1.0"))
