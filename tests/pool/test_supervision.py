"""Scorers that stop, grow, crash and hang: who is harmed, how it is counted, and what is said of it."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from scoring_runtime.pool.life import State
from scoring_runtime.scorer.process import OOM_SCORE_RAISE

SCRIPT = """
    import ctypes, os, signal, subprocess, sys, time
    from pathlib import Path

    def note(text):
        fd = os.open(str(Path(__file__).parent / "begun"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, text.encode() + b"\\n")
        os.close(fd)

    def grow():
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * (4 << 20))
            time.sleep(0.002)

    def init():
        pass

    def run(data):
        note(data)
        if data == "exit":
            os._exit(0)
        if data == "segfault":
            ctypes.string_at(0)
        if data == "abort":
            os.abort()
        if data == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if data == "hang":
            sum(range(10**15))  # holds the GIL
        if data == "grow":
            grow()
        if data == "grow a child":
            code = "import time; x = bytearray(b'x') * (200 << 20); time.sleep(1000)"
            subprocess.run([sys.executable, "-c", code])
        if data == "block":
            time.sleep(1000)
        if data.startswith("pause"):
            time.sleep(1.5)
        return data
"""


async def ticking(team, condition) -> None:
    """Look after the pool, as the front does, until `condition`."""
    async with asyncio.timeout(60):
        while not condition():
            team.pool.tick(team.loop.time())
            await asyncio.sleep(0.02)


async def begun(team, folder: Path, name: str) -> None:
    path = folder / "begun"
    await ticking(team, lambda: path.exists() and name in path.read_text().split("\n"))


# Stopped


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("what", ["idle", "busy"])
def test_a_scorer_that_is_stopped_is_replaced(run, crew, script_plan, tmp_path, caplog, what, preload):
    async def main() -> None:
        async with crew(script_plan(SCRIPT, preload=preload)) as team:
            await team.ready()
            scorer, requests = team.pool.idle[0], []
            if what == "busy":
                scorer, requests = team.send(b"block", b"waits")
                await begun(team, tmp_path, "block")
            os.kill(scorer.pid, signal.SIGSTOP)
            await ticking(team, lambda: team.pool.restarts)
            assert team.unsettled == [(request, index == 0) for index, request in enumerate(requests)]
            assert team.endings == Counter(stopped=1)
            assert "before: was killed by the server: it had been stopped (SIGSTOP) for 1." in team.pool.describe()[0]
            await team.ready()
            assert await team.ask(b"again") == ['"again"']
        assert caplog.text.count("SIGSTOP") == 1

    with caplog.at_level("ERROR", "scoring_runtime.pool"):
        run(main())


def test_a_scorer_that_is_stopped_while_it_loads_is_replaced(run, crew, script_plan, told):
    path, listen = told
    script = (
        SCRIPT + "\n    def init():\n        Path(os.environ['TOLD']).write_text('loads')\n        time.sleep(1000)\n"
    )

    async def main() -> None:
        async with crew(script_plan(script, TOLD=path), first_boot=False) as team:
            assert await listen() == "loads"
            (process,) = team.processes()
            process.suspend()
            await ticking(team, lambda: team.pool.restarts)
            assert "SIGSTOP" in team.pool.describe()[0]

    run(main())


def test_a_preload_process_that_is_stopped_is_replaced_with_its_forks(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(SCRIPT, preload=True), size=2) as team:
            await team.ready()
            (parent,) = {process.parent() for process in team.processes()}
            parent.suspend()
            await ticking(team, lambda: team.pool.restarts >= 2 and len(team.pool.idle) == 2)
            assert parent not in {process.parent() for process in team.processes()}

    run(main())


def test_a_scorer_that_goes_on_in_time_is_left_alone(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            scorer = team.pool.idle[0]
            process = psutil.Process(scorer.pid)
            now = team.loop.time()
            process.suspend()
            while process.status() != psutil.STATUS_STOPPED:
                await team.pause()
            team.pool.tick(now)
            team.pool.tick(now + 0.9)
            process.resume()
            while process.status() == psutil.STATUS_STOPPED:
                await team.pause()
            team.pool.tick(now + 1.2)
            assert await team.ask(b"well") == ['"well"']
            assert team.pool.idle == [scorer]

    run(main())


# Too large


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("poison", [b"grow", b"grow a child"])
def test_a_run_that_allocates_for_ever_harms_only_its_sender(run, crew, script_plan, caplog, poison, preload):
    async def main() -> None:
        plan = script_plan(SCRIPT, preload=preload)
        async with crew(plan, size=2, max_memory_bytes=128 << 20) as team:
            await team.ready()
            scorer, (grows, waits) = team.send(poison, b"waits")
            assert await team.ask(b"beside") == ['"beside"']
            await ticking(team, lambda: team.unsettled)
            assert team.unsettled == [(grows, True), (waits, False)]
            assert team.endings == Counter(memory=1)
            assert "MiB of memory; --max-scorer-memory-mb allows 128" in scorer.exit_text
            await ticking(team, lambda: len(team.pool.idle) == 2)
            assert await team.ask(b"again") == ['"again"']
        assert caplog.text.count("--max-scorer-memory-mb") == 1

    with caplog.at_level("ERROR", "scoring_runtime.pool"):
        run(main())


@pytest.mark.parametrize("preload", [False, True])
def test_the_kernel_takes_scorers_before_the_front(run, crew, script_plan, preload):
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    async def main() -> None:
        async with crew(script_plan(SCRIPT, preload=preload), size=2) as team:
            await team.ready()
            wanted = min(1000, score(os.getpid()) + OOM_SCORE_RAISE)
            assert {score(process.pid) for process in team.processes()} == {wanted}

    run(main())


# Requests that end their scorer

POISONS = {
    b"exit": ("exited with code 0", "exited"),
    b"segfault": ("was killed by signal 11", "killed"),
    b"abort": ("was killed by signal 6", "killed"),
    b"kill": ("was killed by signal 9", "killed"),
    b"hang": ("was killed by the server: it took longer than 1 s", "timed_out"),
}


@pytest.mark.parametrize("poison", POISONS)
def test_a_request_that_ends_its_scorer_harms_only_its_sender(run, crew, script_plan, tmp_path, poison):
    exit_text, ending = POISONS[poison]

    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            scorer, (first, second, guilty, *after) = team.send(b"1", b"2", poison, b"4", b"5", timeout_s=1.0)
            await ticking(team, lambda: team.unsettled)
            assert (first.text, second.text) == ('"1"', '"2"')
            assert team.unsettled == [(guilty, True), *((request, False) for request in after)]
            assert scorer.exit_text.startswith(exit_text)
            assert team.endings == Counter({ending: 1})
            await team.ready()
            assert await team.ask(b"4", b"5") == ['"4"', '"5"']
        ran = Counter((tmp_path / "begun").read_text().split("\n"))
        assert max(ran.values()) == 1  # nothing ran twice, and what came behind the poison not before it was sent again

    run(main())


def test_a_crash_of_native_code_shows_where_in_the_script_it_was(run, crew, script_plan, capfd):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            team.send(b"segfault")
            await team.until(lambda: team.unsettled)

    run(main())
    err = capfd.readouterr().err
    assert "Fatal Python error: Segmentation fault" in err
    assert 'score.py", line' in err
    assert "in run" in err


def test_whoever_sends_poison_without_pause_keeps_nobody_waiting_long(run, crew, script_plan, caplog):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            for _ in range(6):
                team.unsettled.clear()
                team.send(b"exit")
                await team.until(lambda: team.unsettled)
                await team.until(lambda: team.pool.idle)
                assert await team.ask(b"good") == ['"good"']
            assert "restart in 0.00 s (1 in a row)" in caplog.text
            assert "(2 in a row)" not in caplog.text  # each life has answered somebody
            assert team.pool.failures_in_a_row == 1

    run(main())


def test_crash_loops_are_told(run, crew, script_plan, caplog):
    script = "def init():\n    raise RuntimeError('no model here')\n\ndef run(data): return data"

    async def main() -> None:
        async with crew(script_plan(script), first_boot=False) as team:
            await team.until(lambda: team.pool.restarts == 3)
            (line,) = team.pool.describe()
            assert line.startswith("scorer 1: restart in 0.")
            assert "before, 3 times in a row: User's init function failed" in line
            assert team.pool.failures_in_a_row == 3
            assert team.endings == Counter(start_failed=3)
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 3  # one for each failure, with the traceback of the user's
        assert all(text.rstrip().endswith("RuntimeError: no model here") for text in errors)
        assert "restart in 0.50 s (3 in a row)" in errors[2]

    with caplog.at_level("INFO", "scoring_runtime.pool"):
        run(main())


# The end of who still loads

LOADS = """
    import os, signal, sys, time
    from pathlib import Path

    def init():
        {}
        Path(os.environ["TOLD"]).write_text("loads")
        time.sleep(1000)

    def run(data):
        return data
"""


def test_a_scorer_that_loads_is_told_to_end_by_sigterm(run, crew, script_plan, told):
    path, listen = told

    async def main() -> None:
        async with crew(script_plan(LOADS.format("pass"), TOLD=path)) as team:
            assert await listen() == "loads"
            (scorer,) = (seat.scorer for seat in team.pool._seats)
            team.pool.drain()
            await team.until(lambda: team.pool.empty)
            assert scorer.state is State.DEAD
            assert scorer.exit_text == "was killed by signal 15"
            assert team.boot_errors == []

    run(main())


def test_a_script_may_handle_sigterm_while_it_loads(run, crew, script_plan, told, capfd):
    path, listen = told
    handler = "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'tidy\\n'), os._exit(0)))"

    async def main() -> None:
        async with crew(script_plan(LOADS.format(handler), TOLD=path)) as team:
            assert await listen() == "loads"
            team.pool.drain()
            await team.until(lambda: team.pool.empty)

    run(main())
    assert "tidy\n" in capfd.readouterr().out


# Slow


def test_replies_do_not_wait_for_the_end_of_a_slow_run_behind_them(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            _, (first, second, pause, last) = team.send(b"1", b"2", b"pause", b"4")
            await ticking(team, lambda: first.settled and second.settled)
            assert not pause.settled
            assert (first.text, second.text) == ('"1"', '"2"')
            await ticking(team, lambda: last.settled and team.pool.idle)
            assert (pause.text, last.text) == ('"pause"', '"4"')
            assert await team.ask(b"5", b"pause again", b"6") == ['"5"', '"pause again"', '"6"']
            assert not team.ended

    run(main())


def test_a_scorer_that_crashes_after_its_replies_were_taken_early_tells_each_once(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(SCRIPT)) as team:
            await team.ready()
            scorer, (first, blocks, waits) = team.send(b"1", b"block", b"3")
            await ticking(team, lambda: first.settled)
            os.kill(scorer.pid, signal.SIGKILL)
            await ticking(team, lambda: team.unsettled)
            assert team.unsettled == [(blocks, True), (waits, False)]
            assert first.text == '"1"'

    run(main())
