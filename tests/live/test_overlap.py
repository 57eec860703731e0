"""A model that runs for long: clients that leave it, and frames that follow."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from ..looping import FOREVER, looping_model


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("looping") / "looping.onnx"
    onnx.save(looping_model(), path)
    return path


@pytest.fixture(scope="module")
def server(serve: Any, looping: Path) -> Iterator[Any]:
    """One scorer, no other limit than the clients' own."""
    with serve(looping, "--threads", "1", "--scoring-timeout-ms", "0") as server:
        yield server


def metric(server: Any, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", server.get("/metrics").body.decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def leave_running(server: Any, wait_until: Callable[..., Any], rounds: float = FOREVER) -> socket.socket:
    """A client whose request runs."""
    dispatched = metric(server, "scoring_batch_size_count")
    client = socket.create_connection(("127.0.0.1", server.port))
    body = json.dumps({"data": [[rounds]]}).encode()
    client.sendall(b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    wait_until(lambda: metric(server, "scoring_batch_size_count") > dispatched)
    time.sleep(0.05)
    return client


def test_a_client_that_leaves_frees_its_scorer(server, wait_until):
    pids = [process.pid for process in server.scorers]
    stopped = metric(server, "scoring_runs_stopped_total")
    client = leave_running(server, wait_until)
    client.close()
    began = time.monotonic()
    assert server.score({"data": [[1]]}).json == {"outputs": {"y": [[2]]}}
    assert time.monotonic() - began < 5  # of minutes
    assert metric(server, "scoring_runs_stopped_total") == stopped + 1
    assert [process.pid for process in server.scorers] == pids


def test_a_deadline_that_passes_frees_the_scorer(server):
    stopped = metric(server, "scoring_runs_stopped_total")
    body = json.dumps({"data": [[FOREVER]]}).encode()
    began = time.monotonic()
    assert server.ask("POST", "/score", body, {"X-Request-Timeout-Ms": "300"}).status == 504
    assert server.score({"data": [[2]]}).json == {"outputs": {"y": [[3]]}}
    assert time.monotonic() - began < 6
    assert metric(server, "scoring_runs_stopped_total") == stopped + 1


def test_a_run_that_somebody_waits_for_goes_on(server, connect, wait_until):
    """Two share a frame behind a first one; one of them leaves."""
    stopped = metric(server, "scoring_runs_stopped_total")
    holds = leave_running(server, wait_until, rounds=4000)

    async def main() -> Any:
        async with connect(server.port) as stays:
            asked = asyncio.ensure_future(stays.post(b'{"data": [[3000]]}'))
            async with connect(server.port) as leaves:
                left = asyncio.ensure_future(leaves.post(b'{"data": [[3000]]}'))
                await asyncio.sleep(0.1)
                left.cancel()
                await asyncio.gather(left, return_exceptions=True)
            return await asked

    answer = asyncio.run(main())
    assert (answer.status, answer.json) == (200, {"outputs": {"y": [[3001]]}})
    assert holds.recv(65536).startswith(b"HTTP/1.1 200")
    holds.close()
    assert metric(server, "scoring_runs_stopped_total") == stopped


def test_every_client_gets_its_own_answer_while_frames_go_ahead_and_clients_leave(serve, looping, connect):
    """More than a scorer is given at a time, through real sockets; some clients leave in the middle of it."""

    async def ask(port: int, client_number: int, answers: list[int]) -> None:
        async with connect(port) as client:
            for turn in range(12):
                rounds = 20 + client_number * 16 + turn
                if client_number % 5 == 4 and turn == 6:
                    leaving = asyncio.ensure_future(client.post(b'{"data": [[%d]]}' % rounds))
                    await asyncio.sleep(0.002)
                    leaving.cancel()
                    await asyncio.gather(leaving, return_exceptions=True)
                    return
                answer = await client.post(b'{"data": [[%d]]}' % rounds)
                assert (answer.status, answer.json) == (200, {"outputs": {"y": [[rounds + 1]]}})
                answers.append(rounds)

    async def main(port: int) -> list[int]:
        answers: list[int] = []
        await asyncio.gather(*(ask(port, number, answers) for number in range(20)))
        return answers

    with serve(looping, "--threads", "1", "--max-batch-size", "4") as server:
        answers = asyncio.run(main(server.port))
        assert len(answers) == len(set(answers)) == 16 * 12 + 4 * 6
        assert len(server.scorers) == 1
        assert "error" not in server.log.lower()
