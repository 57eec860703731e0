"""The load generator of the overload benchmark, against servers whose delays are known."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from benchmarks.open_loop import LOST, Answer, Load, closed_loop, poisson, post, quantile, summary

Serve = Callable[[int], Awaitable[bytes]]


def response(status: int, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %d Some\r\nServer: test\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def served(serve: Serve, use: Callable[[int], Awaitable[None]]) -> None:
    """A server that answers its nth request with what `serve` says; an empty answer closes the connection."""
    number = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"Content-Length" in head:
                    await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r")[0]))
                number += 1
                answer = await serve(number)
                if not answer:
                    break
                for half in (answer[: len(answer) // 2], answer[len(answer) // 2 :]):  # as a network may cut it
                    writer.write(half)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        await use(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def offer(serve: Serve, moments: list[float], connections: int) -> tuple[list[Answer], Load]:
    """What becomes of requests that are due at these moments."""
    loads = []

    async def use(port: int) -> None:
        load = Load(port, [post("/score", b"[1]")], iter(moments), connections)
        await load.connect()
        await load.run(moments[-1], drain_s=10.0)
        loads.append(load)

    asyncio.run(served(serve, use))
    return loads[0].answers, loads[0]


def after(delay_s: float, status: int = 200) -> Serve:
    async def serve(_number: int) -> bytes:
        await asyncio.sleep(delay_s)
        return response(status)

    return serve


def test_moments_are_as_many_as_asked_for_and_as_irregular_as_chance():
    moments = list(poisson(200.0, 100.0, random.Random(1)))
    gaps_s = [later - earlier for earlier, later in pairwise(moments)]
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    assert moments == sorted(moments)
    assert sum(gap_s > 1 / 200 for gap_s in gaps_s) / len(gaps_s) == pytest.approx(0.368, abs=0.015)  # 1/e
    assert moments == list(poisson(200.0, 100.0, random.Random(1)))


def test_each_request_takes_as_long_as_its_server():
    answers, load = offer(after(0.05), [number / 100 for number in range(50)], connections=20)
    assert [answer.status for answer in answers] == [200] * 50
    assert min(answer.latency_s for answer in answers) >= 0.05
    assert quantile([answer.ended_s - answer.sent_s for answer in answers], 0.5) < 0.15
    assert sorted(answer.due_s for answer in answers) == [number / 100 for number in range(50)]
    assert load.most_waiting == 0 or max(answer.latency_s for answer in answers) > 0.1


def test_a_server_that_stands_still_is_seen_by_all_who_would_have_come():
    """A client that waits for its answers would have seen one slow request for each of its connections."""
    stalled = asyncio.Event()

    async def serve(number: int) -> bytes:
        if number == 1:
            await asyncio.sleep(0.5)
            stalled.set()
        await stalled.wait()
        return response(200)

    answers, _ = offer(serve, [number / 100 for number in range(60)], connections=4)
    assert len(answers) == 60
    waited = {round(answer.due_s * 100): answer.latency_s for answer in answers}
    for number in range(50):
        assert waited[number] >= 0.5 - number / 100 - 0.01


def test_waiting_for_a_connection_counts():
    """One connection, and twice what it can carry: the last waits as long as all of them took too long."""
    answers, load = offer(after(0.02), [number / 100 for number in range(40)], connections=1)
    assert load.most_waiting >= 15
    by_moment = sorted(answers, key=lambda answer: answer.due_s)
    assert by_moment[-1].latency_s >= 40 * 0.02 - 0.39
    assert by_moment[-1].sent_s - by_moment[-1].due_s >= 39 * 0.02 - 0.39


def test_statuses_and_lost_connections_are_counted():
    async def serve(number: int) -> bytes:
        return b"" if number == 3 else response(503 if number % 2 else 200)

    answers, _ = offer(serve, [number / 200 for number in range(20)], connections=5)
    counts = {status: sum(answer.status == status for answer in answers) for status in (LOST, 200, 503)}
    assert counts == {LOST: 1, 200: 10, 503: 9}


def test_as_many_as_are_answered():
    rates = []

    async def use(port: int) -> None:
        rates.append(await closed_loop(port, 4, 1.0))

    asyncio.run(served(after(0.02), use))
    assert 20 < rates[0] <= 4 / 0.02


def test_who_asks_again_pauses_after_a_refusal():
    counts = []

    async def serve(number: int) -> bytes:
        counts.append(number)
        return response(503)

    async def use(port: int) -> None:
        assert await closed_loop(port, 2, 1.0) == 0.0

    asyncio.run(served(serve, use))
    assert 2 <= len(counts) <= 2 * 11


def test_only_answers_within_the_target_are_good():
    answers = [Answer(0.0, 0.001, late_s, status) for status, late_s in ((200, 0.1), (200, 0.3), (503, 0.1), (LOST, 1))]
    report = summary(answers, 2.0, target_s=0.2)
    assert (report["requests"], report["good_per_s"]) == (4, 0.5)
    assert isinstance(report["status"], dict)
    assert report["status"]["200"] == {
        "count": 2, "p50_ms": 300, "p90_ms": 300, "p99_ms": 300, "p99.9_ms": 300, "max_ms": 300,
    }  # fmt: skip
