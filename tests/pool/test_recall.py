"""Requests that share a frame with a slow stream: they come back, and each runs once, whoever is quicker."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from scoring_runtime.pool.process import RECALL_AFTER_S
from scoring_runtime.scorer import frames

SCRIPT = """
    import os
    from pathlib import Path
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse

    def init():
        global ran
        ran = os.open(str(Path(__file__).parent / "ran"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def pieces():
        yield b"one"
        yield b"two"

    @rawhttp
    def run(request):
        text = request.get_data().decode()
        os.write(ran, text.encode() + b"\\n")
        return AMLResponse(pieces(), 200) if text.startswith("stream") else text
"""


async def read_to_the_end(team, ticket) -> bytes:
    """Pull what is left of a stream."""
    while True:
        scorer, number, flags = next(
            (scorer, reply[0], reply[2]) for scorer, one, reply in reversed(team.pieces) if one is ticket
        )
        if not flags & frames.FLAG_MORE:
            return b"".join(bytes(reply[5]) for _, one, reply in team.pieces if one is ticket)
        count = len(team.pieces)
        scorer.pull(number)
        await team.until(lambda count=count: len(team.pieces) > count)


def test_what_waits_behind_a_slow_stream_comes_back_and_runs_elsewhere(run, crew, script_plan, tmp_path):
    async def main() -> None:
        async with crew(script_plan(SCRIPT), size=2) as team:
            await team.ready()
            scorer, (streams, *behind) = team.send(b"stream", b"a", b"b")
            await team.until(lambda: team.pieces)
            team.pool.tick(team.loop.time())
            await team.pause()
            assert team.returned == []  # most streams end soon: their frames are not sent twice
            team.pool.tick(team.loop.time() + RECALL_AFTER_S)
            await team.until(lambda: team.returned)
            assert team.returned == behind
            assert list(scorer.in_flight.values()) == [streams]
            assert [ticket.attempts for ticket in behind] == [0, 0]
            assert await team.ask(b"a", b"b") == ['"a"', '"b"']  # of the other scorer
            assert await read_to_the_end(team, streams) == b"onetwo"
            await team.until(lambda: len(team.pool.idle) == 2)
            assert sorted((tmp_path / "ran").read_text().split()) == ["a", "b", "stream"]

    run(main())


def test_a_stream_that_is_alone_or_last_recalls_nothing(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            _, (first, streams) = team.send(b"a", b"stream")
            await team.until(lambda: team.pieces)
            team.pool.tick(team.loop.time() + RECALL_AFTER_S)
            assert await read_to_the_end(team, streams) == b"onetwo"
            await team.until(lambda: team.pool.idle)
            assert first.text == '"a"'
            assert team.returned == []

    run(main())


def test_a_client_that_leaves_its_stream_while_the_rest_is_recalled(run, crew, script_plan, tmp_path):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            scorer, (_, *behind) = team.send(b"stream", b"a", b"b")
            await team.until(lambda: team.pieces)
            team.pool.tick(team.loop.time() + RECALL_AFTER_S)
            scorer.cancel(team.pieces[-1][2][0])
            await team.until(lambda: team.pool.idle)
            assert team.returned == behind
            assert (tmp_path / "ran").read_text() == "stream\n"

    run(main())


def test_a_scorer_that_dies_while_it_streams_has_given_the_rest_back(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            scorer, (streams, *behind) = team.send(b"stream", b"a")
            await team.until(lambda: team.pieces)
            team.pool.tick(team.loop.time() + RECALL_AFTER_S)
            await team.until(lambda: team.returned)
            scorer.kill("the test wants it")
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(streams, True)]
            assert team.returned == behind

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_each_request_runs_exactly_once_whenever_it_is_recalled(run, crew, script_plan, tmp_path, seed):
    """The recall crosses with pulls, with ends of streams, and with the next stream of the frame."""
    chance = random.Random(seed)
    bodies = [b"%s-%d" % (chance.choice([b"stream", b"plain"]), number) for number in range(200)]

    async def main() -> None:
        async with crew(script_plan(SCRIPT), size=2) as team:
            await team.ready()
            pool = team.pool
            waiting = list(bodies)
            sent: dict[Any, bytes] = {}
            pulled = 0
            async with asyncio.timeout(120):
                while waiting or team.returned or len(pool.idle) < 2:
                    while waiting and pool.idle:
                        frame = [waiting.pop(0) for _ in range(min(len(waiting), chance.randint(1, 9)))]
                        _, requests = team.send(*frame)
                        sent.update(zip(requests, frame, strict=True))
                    if chance.random() < 0.5:
                        pool.tick(team.loop.time() + RECALL_AFTER_S)
                    while pulled < len(team.pieces):
                        scorer, _, reply = team.pieces[pulled]
                        pulled += 1
                        if reply[2] & frames.FLAG_MORE:
                            scorer.pull(reply[0])
                        if chance.random() < 0.3:
                            pool.tick(team.loop.time() + RECALL_AFTER_S)
                    waiting[:0] = [sent.pop(ticket) for ticket in team.returned]
                    team.returned.clear()
                    await asyncio.sleep(0)
            assert team.unsettled == []
            assert sorted(sent.values()) == sorted(bodies)
        ran = Counter((tmp_path / "ran").read_text().encode().split())
        assert ran == Counter(bodies)

    run(main())


def test_a_stream_that_was_begun_is_not_given_to_another_scorer_whatever_the_mark_says(run, crew, impostor_plan):
    code = """
be_ready()
first = requests()[0].id
say(b"".join(encode_replies([(first, 200, FLAG_MORE, 0, b"", b"piece")], 0)))
receive()
os._exit(3)
"""

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, (streams, behind) = team.send(b"stream", b"behind")
            await team.until(lambda: team.pieces)
            scorer.pull(team.pieces[0][2][0])
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(streams, True), (behind, False)]

    run(main())
