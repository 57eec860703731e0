"""Pools of the real script scorer: what they do, and what they do when it dies."""

import asyncio
import errno
import os
import resource
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import uvloop

from scoring_runtime.errors import ScorerStartError
from scoring_runtime.pool.back_off import FIRST_BACK_OFF_S
from scoring_runtime.pool.launcher import OwnChild
from scoring_runtime.pool.life import State
from scoring_runtime.pool.probe import probe

ECHO = """
    def init():
        pass

    def run(data):
        return data
"""

BLOCKS = """
    import os, signal

    def init():
        pass

    def run(data):
        if data == "block":
            with open(os.environ["TOLD"], "w") as told:
                told.write("begun")
            signal.pause()
        return data
"""


def test_scorers_start_answer_and_end(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO), size=2) as team:
            pool = team.pool
            assert (pool.ready, pool.started, pool.live) == (False, False, 0)
            assert [line.split(" (")[0] for line in pool.describe()] == ["scorer 1: starting", "scorer 2: starting"]
            await team.ready()
            assert (pool.ready, pool.started, pool.live, pool.size) == (True, True, 2, 2)
            assert pool.info["engine"] == "script"
            assert await team.ask(b"one", b"two", b"three") == ['"one"', '"two"', '"three"']
            assert len(pool.idle) == 2
            processes = team.processes()
            pool.drain()
            assert not pool.ready
            await team.until(lambda: pool.empty)
            assert not any(process.is_running() for process in processes)
            assert team.unsettled == []

    run(main())


def test_many_frames_one_after_the_other(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO)) as team:
            await team.ready()
            for number in range(50):
                bodies = [b"%d.%d" % (number, index) for index in range(number % 7 + 1)]
                assert await team.ask(*bodies) == [f'"{body.decode()}"' for body in bodies]

    run(main())


def test_a_large_body_goes_there_and_back(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO)) as team:
            await team.ready()
            body = b"x" * 5_000_000
            assert await team.ask(body, b"small") == [f'"{body.decode()}"', '"small"']

    run(main())


def test_a_killed_scorer_tells_what_may_have_run_and_what_cannot(run, crew, script_plan, told):
    path, listen = told

    async def main() -> None:
        async with crew(script_plan(BLOCKS, TOLD=path)) as team:
            await team.ready()
            scorer, (before, at_work, after) = team.send(b"before", b"block", b"after")
            assert await listen() == "begun"
            os.kill(scorer.pid, signal.SIGKILL)
            await team.until(lambda: team.unsettled)
            assert team.unsettled[-2:] == [(at_work, True), (after, False)]
            assert team.unsettled[:-2] == ([] if before.settled else [(before, True)])
            assert scorer.exit_text == "was killed by signal 9 (out of memory?)"
            assert scorer.state is State.DEAD
            assert not scorer.timed_out
            # and another one takes its place
            await team.ready()
            assert await team.ask(b"again") == ['"again"']
            assert team.pool.restarts == 1
            assert "before: was killed by signal 9" in team.pool.describe()[0]

    run(main())


def test_the_others_go_on_while_one_is_replaced(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO), size=3) as team:
            await team.ready()
            victim = team.pool.idle[0]
            os.kill(victim.pid, signal.SIGKILL)
            await team.until(lambda: victim not in team.pool.idle)
            assert team.pool.ready
            assert team.pool.live == 2
            assert await team.ask(b"still here") == ['"still here"']
            await team.ready()
            assert team.pool.live == 3

    run(main())


def test_too_few_scorers_are_not_ready(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO), size=4) as team:
            await team.ready()
            victims = team.pool.idle[:3]
            for victim in victims:
                os.kill(victim.pid, signal.SIGKILL)
            await team.until(lambda: team.pool.live == 1)
            assert not team.pool.ready
            assert team.pool.started

    run(main())


def test_half_of_an_odd_number_of_scorers_is_the_larger_half(run, crew, script_plan, tmp_path):
    script = """
        import os, time

        def init():
            while os.path.exists(os.environ["HOLD"]):
                time.sleep(0.01)

        def run(data):
            return data
    """
    hold = tmp_path / "hold"

    async def main() -> None:
        async with crew(script_plan(script, HOLD=hold), size=3) as team:
            await team.ready()
            hold.touch()  # no successor loads for now
            one, two, _ = team.pool.idle
            os.kill(one.pid, signal.SIGKILL)
            await team.until(lambda: team.pool.live == 2)
            assert team.pool.ready
            os.kill(two.pid, signal.SIGKILL)
            await team.until(lambda: team.pool.live == 1)
            assert not team.pool.ready
            hold.unlink()
            await team.until(lambda: team.pool.live == 3)
            assert team.pool.ready

    run(main())


@pytest.mark.parametrize("free", [0, 1, 2, 3, 5, 8])
def test_a_scorer_is_restarted_when_there_are_descriptors_again(run, crew, script_plan, free):
    """So many are left when it is to be restarted: not enough for its channel, its pipes or its process."""
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take_all_but_a_few() -> None:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())

    def give_back() -> None:
        while taken:
            os.close(taken.pop())

    async def main() -> None:
        async with crew(script_plan(ECHO), size=2) as team:
            await team.ready()
            resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 64, hard))
            team.pool._on_ended = take_all_but_a_few
            os.kill(team.pool.idle[0].pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                while "cannot start" not in str(team.pool.describe()):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            assert await team.ask(b"the other one") == ['"the other one"']
            team.pool._on_ended = team._changed.set
            give_back()
            await team.ready()
            assert team.boot_errors == []

    try:
        run(main())
    finally:
        give_back()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class DeafLoop(uvloop.Loop):
    """A loop that cannot connect channels at first."""

    refusals = 0

    async def create_unix_connection(self, *arguments, **more):
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return await super().create_unix_connection(*arguments, **more)


def test_a_scorer_whose_channel_cannot_be_connected_is_killed_and_replaced(crew, script_plan, caplog):
    async def main(loop: DeafLoop) -> None:
        async with crew(script_plan(ECHO), first_boot=False) as team:
            loop.refusals = 1  # its scorer has begun, its channel not yet
            (process,) = team.processes()
            await team.ready()
            assert team.pool.restarts == 1
            assert not process.is_running()
            assert await team.ask(b"x") == ['"x"']

    loop = DeafLoop()
    with caplog.at_level("ERROR", "scoring_runtime.pool"), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))
    assert "cannot be reached" in caplog.text


def test_at_the_first_start_a_channel_that_cannot_be_connected_is_reported(crew, script_plan):
    async def main(loop: DeafLoop) -> None:
        async with crew(script_plan(ECHO)) as team:
            loop.refusals = 1
            await team.until(lambda: team.boot_errors)
            assert "while it loaded" in team.boot_errors[0].message

    loop = DeafLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))


LEAVES_A_CONTEXT = """
    import flask
    from azureml_inference_server_http.api.aml_request import rawhttp

    app = flask.Flask("another")

    def init():
        pass

    @rawhttp
    def run(request):
        data = request.get_data().decode()
        if data == "leave":
            app.test_request_context("/").push()
        return data
"""


def test_a_context_that_run_left_behind_does_not_change_its_answer(run, crew, script_plan, capfd):
    async def main() -> None:
        async with crew(script_plan(LEAVES_A_CONTEXT)) as team:
            await team.ready()
            assert await team.ask(b"leave", b"after") == ['"leave"', '"after"']
            assert await team.ask(b"later") == ['"later"']
            assert team.pool.restarts == 0

    run(main())
    assert capfd.readouterr().out.count("Popped wrong") == 1


def test_a_scorer_that_dies_again_and_again_is_restarted_later_and_later(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO)) as team:
            waits_s = []
            for restarts in (1, 2, 3):
                await team.ready()
                victim = team.pool.idle[0]
                os.kill(victim.pid, signal.SIGKILL)
                await team.until(lambda wanted=restarts: team.pool.restarts == wanted)
                died_at_s = team.loop.time()
                await team.until(lambda: team.pool.live)
                waits_s.append(team.loop.time() - died_at_s)
            assert waits_s[1] >= FIRST_BACK_OFF_S
            assert waits_s[2] >= 2 * FIRST_BACK_OFF_S

    run(main())


# The first start


FAILS = """
    def init():
        raise RuntimeError("no model here")

    def run(data):
        return data
"""


def test_what_cannot_load_at_first_is_reported_once_with_its_traceback_and_not_tried_again(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(FAILS), size=2) as team:
            await team.until(lambda: team.boot_errors and team.pool.empty)
            (error,) = team.boot_errors
            assert "RuntimeError" in error.report()
            assert "no model here" in error.report().rstrip().splitlines()[-1]
            assert team.pool.restarts == 0

    run(main())


def test_what_cannot_load_later_is_tried_again(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(FAILS), first_boot=False) as team:
            await team.until(lambda: team.pool.restarts == 2)
            assert team.boot_errors == []
            assert not team.pool.started
            assert "no model here" in team.pool.describe()[0]

    run(main())


def test_a_scorer_that_exits_while_it_loads(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan("import os; os._exit(5)")) as team:
            await team.until(lambda: team.boot_errors)
            assert "exited with code 5 while it loaded" in team.boot_errors[0].message

    run(main())


def test_without_pidfds_an_end_before_the_first_look_is_told_later(run, monkeypatch):
    """It was told at once, to somebody who was not made yet."""
    monkeypatch.delattr(os, "pidfd_open")

    process = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    codes: list[int | None] = []

    async def main() -> None:
        ended = asyncio.Event()
        child = OwnChild(process, asyncio.get_running_loop())
        child.watch(ended.set)
        assert not ended.is_set()
        await asyncio.wait_for(ended.wait(), 10)
        child.reap(codes.append)

    run(main())
    assert codes == [0]


def test_an_interpreter_that_is_none(run, crew, script_plan, tmp_path):
    async def main() -> None:
        plan = script_plan(ECHO)
        plan = type(plan)((str(tmp_path / "no-python"), *plan.arguments[1:]), plan.environ, plan.hello)
        async with crew(plan, size=2) as team:
            await team.until(lambda: team.boot_errors)
            assert "cannot start the interpreter: No such file" in team.boot_errors[0].message

    run(main())


def test_an_interpreter_that_comes_back(run, crew, script_plan, tmp_path):
    async def main() -> None:
        plan = script_plan(ECHO)
        python = tmp_path / "python"
        plan = type(plan)((str(python), *plan.arguments[1:]), plan.environ, plan.hello)
        async with crew(plan, first_boot=False) as team:
            assert "cannot start the interpreter" in team.pool.describe()[0]
            python.symlink_to(script_plan(ECHO).arguments[0])
            await team.ready()

    run(main())


# Deadlines


SLEEPS = """
    import os, signal

    def init():
        with open(os.environ["TOLD"], "w") as told:
            told.write("loading")
        signal.pause()

    def run(data):
        return data
"""


def test_a_scorer_that_does_not_get_ready_in_time_is_killed(run, crew, script_plan, told):
    path, listen = told

    async def main() -> None:
        async with crew(script_plan(SLEEPS, TOLD=path), start_timeout_s=300.0) as team:
            assert await listen() == "loading"
            team.pool.tick(team.loop.time() + 299.0)
            assert team.boot_errors == []
            team.pool.tick(team.loop.time() + 301.0)
            await team.until(lambda: team.boot_errors)
            assert "was not ready after 300 s. Raise --start-timeout-s" in team.boot_errors[0].message

    run(main())


def test_a_scorer_that_does_not_answer_in_time_is_killed(run, crew, script_plan, told):
    path, listen = told

    async def main() -> None:
        async with crew(script_plan(BLOCKS, TOLD=path)) as team:
            await team.ready()
            scorer, (hangs, waits) = team.send(b"block", b"waits", timeout_s=60.0)
            assert await listen() == "begun"
            team.pool.tick(team.loop.time() + 59.0)
            assert scorer.state is State.BUSY
            team.pool.tick(team.loop.time() + 61.0)
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(hangs, True), (waits, False)]
            assert scorer.timed_out
            await team.ready()

    run(main())


def test_a_scorer_without_work_has_no_deadline(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO)) as team:
            await team.ready()
            assert await team.ask(b"x") == ['"x"']
            team.pool.tick(team.loop.time() + 1e9)
            assert await team.ask(b"y") == ['"y"']

    run(main())


# The end


def test_a_drain_lets_the_frame_finish(run, crew, script_plan, told):
    path, listen = told
    script = BLOCKS.replace("signal.pause()", 'open(os.environ["TOLD"]).read()')

    async def main() -> None:
        async with crew(script_plan(script, TOLD=path), size=2) as team:
            await team.ready()
            scorer, (request,) = team.send(b"block")
            assert await listen() == "begun"
            team.pool.drain()
            assert team.pool.idle == []
            assert scorer.state is State.DRAINING
            await team.loop.run_in_executor(None, Path(path).write_text, "go on")
            await team.until(lambda: team.pool.empty)
            assert request.text == '"block"'
            assert scorer.exit_text == "exited with code 0"
            assert team.unsettled == []

    run(main())


def test_a_pool_that_drains_while_it_starts_ends(run, crew, script_plan, capfd):
    async def main() -> None:
        async with crew(script_plan(ECHO), size=2) as team:
            team.pool.drain()  # before the channels are connected
            await team.until(lambda: team.pool.empty)
            assert team.boot_errors == []
        async with crew(script_plan(ECHO)) as team:
            await team.ready()
            team.pool.drain()
            team.pool.drain()
            await team.until(lambda: team.pool.empty)

    run(main())
    assert "Traceback" not in capfd.readouterr().err


def test_a_pool_that_ends_starts_nobody_again(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO), size=2) as team:
            await team.ready()
            team.pool.kill("the test wants it")
            assert team.pool.idle == []
            await team.until(lambda: team.pool.empty)
            assert team.pool.restarts == 0
            assert team.boot_errors == []

    run(main())


def test_what_a_scorer_started_dies_with_it(run, crew, script_plan):
    script = """
        import subprocess

        def init():
            global child
            child = subprocess.Popen(["sleep", "1000"])

        def run(data):
            return child.pid
    """

    async def main() -> None:
        async with crew(script_plan(script)) as team:
            await team.ready()
            (pid,) = await team.ask(b"")
            child = psutil.Process(int(pid))
            assert child.is_running()
            os.kill(team.pool.idle[0].pid, signal.SIGKILL)
            await team.until(lambda: team.pool.restarts == 1)
            _, alive = psutil.wait_procs([child], timeout=3)
            assert alive == [] or child.status() == psutil.STATUS_ZOMBIE

    run(main())


@pytest.mark.parametrize("preload", [False, True])
def test_a_child_that_comes_back_is_ended_and_one_that_looks_at_all_objects_is_not(run, crew, script_plan, preload):
    script = """
        import gc, os

        def init():
            pass

        def run(data):
            pid = os.fork()
            if not pid and data == "look":
                for one in gc.get_objects():
                    try:
                        hasattr(one, "data")
                    except OSError:
                        pass  # ctypes looks for a symbol of that name
                os._exit(2)
            if not pid:
                return data
            return os.waitpid(pid, 0)[1] >> 8
    """

    async def main() -> None:
        async with crew(script_plan(script, preload=preload)) as team:
            await team.ready()
            assert await team.ask(b"look", b"come back", b"look") == ["2", "1", "2"]

    run(main())


def test_what_scorers_print_comes_out_in_whole_lines(run, crew, script_plan, capfd):
    script = """
        import os, sys

        def init():
            os.write(1, b"half a line, ")
            os.write(1, b"the other half\\n")
            os.write(2, b"to stderr\\n")

        def run(data):
            os.write(1, b"not ended")
            return data
    """

    async def main() -> None:
        async with crew(script_plan(script)) as team:
            await team.ready()
            await team.ask(b"x")
            team.pool.drain()
            await team.until(lambda: team.pool.empty)

    run(main())
    out, err = capfd.readouterr()
    printed = "".join(line for line in out.splitlines(keepends=True) if "azmlinfsrv" not in line)
    assert printed == "half a line, the other half\nnot ended\n"
    assert err == "to stderr\n"


# Processes that do not keep to the protocol


STARTING = "receive()\n"
BUSY = "be_ready(); number = requests()[0].id\n"

MISDEEDS = {
    "no frame": STARTING + "say(b'Hello, world! This is no frame at all.')",
    "a frame that ends too early": STARTING + "say(HEADER.pack(b'SR', 1, REPLIES, 1, 0, 24) + b'x' * 24)",
    "a frame of an other version": STARTING + "say(b'SR\\x02' + bytes(17))",
    "JSON that is no object": STARTING + "say(HEADER.pack(b'SR', 1, READY, 0, 0, 2) + b'[]')",
    "JSON without a bottom": STARTING + "say(HEADER.pack(b'SR', 1, READY, 0, 0, 99999) + b'[' * 99999)",
    "replies before it is ready": STARTING + "say(replies(1))",
    "no replies before it is ready": STARTING + "say(HEADER.pack(b'SR', 1, REPLIES, 0, 0, 0))",
    "what only the front says": STARTING + "say(encode_control(PULL, 1))",
    "ready twice": "be_ready(); say(encode_json(READY, {}))",
    "ready in the middle of work": BUSY + "say(encode_json(READY, {}))",
    "a reply when nothing was asked": "be_ready(); say(replies(1))",
    "no replies when nothing was asked": "be_ready(); say(HEADER.pack(b'SR', 1, REPLIES, 0, 0, 0))",
    "headers in READY that are no names": "receive(); say(encode_json(READY, {'headers': 5}))",
    "methods in READY that are none": "receive(); say(encode_json(READY, {'methods': ['GET\\r\\nx: y']}))",
    "nodes in READY that are no counts": "receive(); say(encode_json(READY, {'nodes': {'cpu': -1}}))",
    "more nodes in READY than anybody can count": "receive(); say(encode_json(READY, {'nodes': {'cpu': 10**400}}))",
    "more providers in READY than there are": "receive(); say(encode_json(READY, {'nodes': {str(n): 1 for n in range(99)}}))",
    "several lines for one in READY": "receive(); say(encode_json(READY, {'degraded': 'a\\nready'}))",
    "a long line in READY": "receive(); say(encode_json(READY, {'placement': 'x' * 9999}))",
    "a schema in READY that is none": "receive(); say(encode_json(READY, {'swagger': {'versions': 5}}))",
    "no replies": BUSY + "say(HEADER.pack(b'SR', 1, REPLIES, 0, 0, 0))",
    "a reply to another's request": BUSY + "say(replies(number + 1000))",
    "two replies to one request": BUSY + "say(replies(number, number))",
    "what was not recalled comes back": BUSY + "say(encode_returned([number + 1]))",
    "what it streams comes back": BUSY
    + "say(b''.join(encode_replies([(number, 200, FLAG_MORE, 0, b'', b'x')], 0)) + encode_returned([number]))",
    "what it has begun comes back": BUSY
    + "mark(number + 1); "
    + "say(b''.join(encode_replies([(number, 200, FLAG_MORE, 0, b'', b'x')], 0)) + encode_returned([number + 1]))",
    "a piece of another's reply": BUSY
    + "say(b''.join(encode_replies([(number + 1000, 200, FLAG_MORE, 0, b'', b'x')], 0)))",
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_process_that_breaks_the_protocol_is_killed_and_its_requests_are_handed_back(
    run, crew, impostor_plan, misdeed, caplog
):
    async def main() -> None:
        async with crew(impostor_plan(MISDEEDS[misdeed] + "\nwhile True: time.sleep(1000)")) as team:
            if MISDEEDS[misdeed].startswith(BUSY):
                await team.until(lambda: team.pool.idle)
                scorer, requests = team.send(b"first", b"second")
                await team.until(lambda: team.unsettled)
                assert [request for request, _ in team.unsettled] == requests
                told = any(word in MISDEEDS[misdeed] for word in ("mark(", "FLAG_MORE"))  # that it had begun one
                assert told or [begun for _, begun in team.unsettled] == [False, False]
                assert scorer.exit_text.startswith("was killed")
            else:
                await team.until(lambda: team.boot_errors or team.pool.restarts)
            assert "sent what is no frame" in caplog.text

    with caplog.at_level("ERROR", "scoring_runtime.pool"):
        run(main())


def test_a_process_that_hangs_up_and_lives_on_is_killed(run, crew, impostor_plan):
    async def main() -> None:
        async with crew(impostor_plan("be_ready(); requests(); channel.close()\nwhile True: time.sleep(1000)")) as team:
            await team.until(lambda: team.pool.idle)
            scorer, (request,) = team.send(b"x")
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(request, False)]
            assert scorer.exit_text.startswith("was killed")

    run(main())


@pytest.mark.parametrize(
    "said", ["b'x' * 20", "encode_json(READY, {'headers': 5})", "encode_json(READY, {})[:-1] + b']'"]
)
def test_a_check_of_a_process_that_breaks_the_protocol_says_so(impostor_plan, said):
    with pytest.raises(ScorerStartError, match="impostor: the scorer sent what is no frame"):
        probe(impostor_plan(f"receive(); say({said}); wait_for_the_end()"), 60.0)


def test_a_request_for_a_process_that_has_hung_up_raises_nothing_and_is_handed_back(run, crew, impostor_plan):
    async def main() -> None:
        async with crew(impostor_plan("be_ready(); channel.close()\nwhile True: time.sleep(1000)")) as team:
            await team.until(lambda: team.pool.idle)
            (scorer,) = team.pool.idle
            while team.pool.idle:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0)
            team.pool.idle.append(scorer)  # as if it had been given the request a moment before
            _, requests = team.send(b"into the void")
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(requests[0], False)]

    run(main())


@pytest.mark.parametrize("what", ["killed by us", "killed by others", "hung up"])
def test_a_scorer_that_is_leaving_is_given_nothing_any_more(run, crew, impostor_plan, what):
    """From the moment on in which that is known, and not only when the process has been waited for."""
    code = "be_ready()\n" + ("channel.close()\n" if what == "hung up" else "") + "while True: time.sleep(1000)"

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.until(lambda: team.pool.idle)
            (scorer,) = team.pool.idle
            pool, ended, idle_before_the_end = team.pool, team.pool.scorer_ended, []

            def scorer_ended(*arguments):
                idle_before_the_end.append(list(pool.idle))
                ended(*arguments)

            pool.scorer_ended = scorer_ended
            if what == "killed by us":
                scorer.kill("the test wants it")
                assert pool.idle == []
            elif what == "killed by others":
                os.kill(scorer.pid, signal.SIGKILL)
            await team.until(lambda: pool.restarts)
            assert idle_before_the_end[0] == []

    run(main())


def test_what_a_killed_scorer_still_answers_counts_and_does_not_make_it_idle(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(ECHO)) as team:
            await team.ready()
            scorer, (request,) = team.send(b"x")
            assert select.select([scorer._channel._transport.get_extra_info("socket")], [], [], 30)[0]
            scorer.kill("the test wants it")
            await team.until(lambda: request.settled or team.unsettled)
            assert request.text == '"x"'
            assert team.pool.idle == []

    run(main())


def test_what_a_process_answered_before_it_ended_counts(run, crew, impostor_plan):
    code = """
        be_ready()
        first, second, third = requests()
        mark(second.id)
        say(replies(first.id))
        os._exit(0)
    """

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.until(lambda: team.pool.idle)
            _, (first, second, third) = team.send(b"1", b"2", b"3")
            await team.until(lambda: team.unsettled)
            assert first.text == "answer"
            assert team.unsettled == [(second, True), (third, False)]

    run(main())


def test_replies_may_come_in_any_order_and_in_several_frames(run, crew, impostor_plan):
    code = """
        be_ready()
        while True:
            ids = [request.id for request in requests()]
            say(replies(*ids[:1:-1]) + replies(*ids[:2]))
    """

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.until(lambda: team.pool.idle)
            assert await team.ask(b"1", b"2", b"3", b"4") == ["answer"] * 4
            assert await team.ask(b"5", b"6", b"7") == ["answer"] * 3
            assert team.busy_us == [7, 7, 7, 7]

    run(main())


def test_a_process_that_outlives_the_scorer_with_its_channel_in_hand_holds_nothing_up(run, crew, impostor_plan):
    code = """
        be_ready()
        requests()
        if os.fork() == 0:
            os.setsid()  # out of the reach of a kill of the group
            say(b"")
            time.sleep(1.0)
            os._exit(0)
        os._exit(9)
    """

    async def main() -> None:
        async with crew(impostor_plan(code)) as team:
            await team.until(lambda: team.pool.idle)
            scorer, (request,) = team.send(b"x")
            before_s = team.loop.time()
            await team.until(lambda: team.unsettled)
            assert team.loop.time() - before_s < 0.9
            assert team.unsettled == [(request, False)]
            assert scorer.exit_text == "exited with code 9"

    run(main())
