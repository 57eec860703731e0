"""Scorers that have two frames: which requests are whose, and what time each has."""

from scoring_runtime.pool.life import State

READY_AHEAD = """
receive()
say(encode_json(READY, {"engine": "impostor", "headers": "none", "ahead": 1, "stops": True}))
def ids():
    return [request.id for request in requests()]
"""


def test_two_frames_are_settled_one_after_the_other(run, crew, impostor_plan):
    code = READY_AHEAD + "first, second = ids(), ids()\nsay(replies(*first))\nsay(replies(*second))\nwait_for_the_end()"

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, first = team.send(b"a", b"b")
            assert scorer.takes_ahead
            second = team.send_ahead(scorer, b"c")
            assert not scorer.takes_ahead
            assert list(scorer.in_flight.values()) == first
            assert list(scorer.ahead.values()) == second
            await team.until(lambda: team.pool.idle)
            assert [request.text for request in (*first, *second)] == ["answer"] * 3
            assert (scorer.in_flight, scorer.ahead, scorer.state) == ({}, {}, State.READY)

    run(main())


def test_a_scorer_can_be_sent_another_when_it_begins_the_second(run, crew, impostor_plan):
    code = (
        READY_AHEAD
        + "first, second = ids(), ids()\nsay(replies(*first))\nthird = ids()\nsay(replies(*second))\nsay(replies(*third))\nwait_for_the_end()"
    )

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, _ = team.send(b"a")
            (second,) = team.send_ahead(scorer, b"b")
            await team.until(lambda: scorer.takes_ahead)
            assert (list(scorer.in_flight.values()), scorer.state, team.pool.idle) == ([second], State.BUSY, [])
            (third,) = team.send_ahead(scorer, b"c")
            await team.until(lambda: team.pool.idle)
            assert second.settled
            assert third.settled

    run(main())


def test_an_engine_that_says_nothing_of_it_is_sent_one_at_a_time_and_never_stopped(run, crew, impostor_plan):
    code = (
        "be_ready()\nfirst = requests()\nsay(replies(first[0].id))\nsay(replies(requests()[0].id))\nwait_for_the_end()"
    )

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, _ = team.send(b"a")
            assert not scorer.takes_ahead
            assert not scorer.stop(scorer.in_flight)
            await team.until(lambda: team.pool.idle)
            assert await team.ask(b"b") == ["answer"]  # its next frame, and no STOP

    run(main())


def test_a_reply_to_the_second_before_the_first_is_settled_is_no_frame(run, crew, impostor_plan):
    code = READY_AHEAD + "ids()\nsay(replies(*ids()))\nwait_for_the_end()"

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, first = team.send(b"a")
            second = team.send_ahead(scorer, b"b")
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(request, False) for request in (*first, *second)]
            assert not any(request.settled for request in (*first, *second))

    run(main())


def test_all_of_both_frames_comes_back_when_the_scorer_ends(run, crew, impostor_plan):
    code = READY_AHEAD + "first, second = ids(), ids()\nsay(replies(first[0]))\nos._exit(5)"

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, first = team.send(b"a", b"b")
            second = team.send_ahead(scorer, b"c", b"d")
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(request, False) for request in (first[1], *second)]
            assert first[0].settled
            assert (scorer.in_flight, scorer.ahead) == ({}, {})

    run(main())


def test_what_was_marked_may_have_run_and_what_was_not_has_not(run, crew, impostor_plan):
    code = READY_AHEAD + "first, second = ids(), ids()\nmark(second[0])\nos._exit(5)"

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, _ = team.send(b"a")
            team.send_ahead(scorer, b"b", b"c")
            await team.until(lambda: team.unsettled)
            assert [begun for _, begun in team.unsettled] == [True, True, False]

    run(main())


def test_the_time_of_the_second_counts_from_the_end_of_the_first(run, crew, impostor_plan):
    code = READY_AHEAD + "first, second = ids(), ids()\nsay(replies(*first))\nwait_for_the_end()"

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, _ = team.send(b"a", timeout_s=1000.0)
            second = team.send_ahead(scorer, b"b", timeout_s=50.0)
            team.pool.tick(team.loop.time() + 100.0)
            await team.until(lambda: scorer.takes_ahead)
            team.pool.tick(team.loop.time() + 49.0)
            assert not scorer.leaving
            team.pool.tick(team.loop.time() + 51.0)
            assert scorer.timed_out
            assert not scorer.takes_ahead  # it is leaving
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(second[0], False)]

    run(main())


def test_a_scorer_that_drains_finishes_both(run, crew, impostor_plan):
    code = (
        READY_AHEAD
        + "first, second = ids(), ids()\nsay(replies(*first))\ntime.sleep(0.1)\nsay(replies(*second))\nwait_for_the_end()"
    )

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, first = team.send(b"a")
            second = team.send_ahead(scorer, b"b")
            team.pool.drain()
            assert not scorer.takes_ahead
            await team.until(lambda: team.pool.empty)
            assert all(request.settled for request in (*first, *second))
            assert team.unsettled == []

    run(main())


def test_a_stop_names_the_frame(run, crew, impostor_plan):
    code = (
        READY_AHEAD
        + """
first, second = ids(), ids()
stops = [receive(), receive()]
assert [frame.kind for frame in stops] == [STOP, STOP]
named = [decode_control(frame) for frame in stops]
say(replies(*first) if named[0] in second and named[1] in first else b"wrong")
say(replies(*second))
wait_for_the_end()"""
    )

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.ready()
            scorer, first = team.send(b"a", b"b")
            second = team.send_ahead(scorer, b"c")
            assert scorer.stop(scorer.ahead)
            assert scorer.stop(scorer.in_flight)
            await team.until(lambda: team.pool.idle)
            assert all(request.settled for request in (*first, *second))
            assert not scorer.stop(scorer.in_flight)  # there is none

    run(main())


def test_a_scorer_that_is_leaving_is_not_told_to_stop(run, crew, impostor_plan):
    async def main() -> None:
        async with crew(impostor_plan(READY_AHEAD + "ids()\nwait_for_the_end()")) as team:
            await team.ready()
            scorer, _ = team.send(b"a")
            scorer.kill("the test wants it")
            assert not scorer.stop(scorer.in_flight)
            await team.until(lambda: team.unsettled)

    run(main())
