"""Pools whose scorers are forks of one process: init() runs once, and whoever dies is replaced."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from scoring_runtime.pool.nursery import ANSWER_TIMEOUT_S

NOTES = """
    import os, time
    from pathlib import Path

    HERE = Path(__file__).parent

    def note(name, text):
        fd = os.open(str(HERE / name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, text.encode() + b"\\n")
        os.close(fd)

    def init():
        note("inits", str(os.getpid()))

    def run(data):
        if data == "block":
            note("begun", str(os.getpid()))
            time.sleep(1000)
        return [os.getpid(), os.getppid()]
"""


def lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().split() if path.exists() else []


def parents(team) -> set[int]:
    return {process.ppid() for process in team.processes()}


def assert_gone(*pids: int) -> None:
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


async def until_noted(team, folder: Path, name: str) -> None:
    async with asyncio.timeout(30):
        while not lines(folder, name):
            await team.pause()


def test_init_runs_once_and_every_scorer_is_a_fork(run, crew, script_plan, tmp_path):
    async def main() -> None:
        async with crew(script_plan(NOTES, preload=True), size=3) as team:
            assert team.pool.describe()[-1].startswith("preload process: starting (pid ")
            await team.ready()
            (init,) = lines(tmp_path, "inits")
            assert parents(team) == {int(init)}
            assert team.pool.describe()[-1] == f"preload process: ready (pid {init})"
            assert team.pool.info["engine"] == "script"
            scorer, requests = team.send(b"1", b"2", b"3")
            await team.until(lambda: all(request.settled for request in requests))
            assert [request.text for request in requests] == [f"[{scorer.pid}, {init}]"] * 3
            pids = [process.pid for process in team.processes()]
            assert [os.getpgid(pid) for pid in pids] == pids
            team.pool.drain()
            await team.until(lambda: team.pool.empty)
            assert_gone(*pids)
            assert team.boot_errors == []
            assert team.pool.restarts == 0

    run(main())


def test_what_init_loaded_is_in_memory_once(run, crew, script_plan):
    script = """
        import hashlib

        def init():
            global weights
            weights = bytearray(b"weights!") * (8 << 20)

        def run(data):
            return hashlib.sha256(weights).hexdigest()
    """

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=3) as team:
            await team.ready()
            assert len({(await team.ask(b""))[0] for _ in range(3)}) == 1  # each has read all of it
            for process in team.processes():
                memory = process.memory_full_info()
                assert memory.rss > 64 << 20
                assert memory.uss < 24 << 20

    run(main())


def test_kill_9_of_a_fork_is_one_fork_and_no_init(run, crew, script_plan, tmp_path):
    async def main() -> None:
        async with crew(script_plan(NOTES, preload=True), size=2) as team:
            await team.ready()
            scorer, (blocked, waiting) = team.send(b"block", b"waiting")
            await until_noted(team, tmp_path, "begun")
            before = parents(team)
            os.kill(scorer.pid, signal.SIGKILL)
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(blocked, True), (waiting, False)]
            assert scorer.exit_text == "was killed by signal 9 (out of memory?)"
            await team.ready()
            assert parents(team) == before
            assert len(lines(tmp_path, "inits")) == 1
            assert team.pool.restarts == 1

    run(main())


def test_kill_9_of_the_preload_process_starts_everything_anew(run, crew, script_plan, tmp_path):
    async def main() -> None:
        async with crew(script_plan(NOTES, preload=True), size=3) as team:
            await team.ready()
            scorer, (blocked, waiting) = team.send(b"block", b"waiting")
            await until_noted(team, tmp_path, "begun")
            (parent,) = parents(team)
            children = [process.pid for process in team.processes()]
            os.kill(parent, signal.SIGKILL)
            await team.until(lambda: team.unsettled)
            assert team.unsettled == [(blocked, True), (waiting, False)]
            assert scorer.exit_text == "ended with the process that it was forked from"
            await team.ready()
            assert_gone(parent, *children)
            assert len(lines(tmp_path, "inits")) == 2
            assert parents(team) != {parent}
            (answer,) = await team.ask(b"x")
            assert answer.startswith("[")

    run(main())


FAILS = "def init():\n    raise RuntimeError('no model here')\n\ndef run(data): return data"


def test_init_that_fails_at_first_is_reported_once_and_not_tried_again(run, crew, script_plan):
    async def main() -> None:
        async with crew(script_plan(FAILS, preload=True), size=3) as team:
            await team.until(lambda: team.boot_errors and team.pool.empty)
            (error,) = team.boot_errors
            assert error.report().rstrip().splitlines()[-1] == "RuntimeError: no model here"
            assert team.pool.restarts == 0

    run(main())


def test_init_that_fails_later_is_tried_again_and_its_traceback_is_logged_once_each_time(
    run, crew, script_plan, tmp_path, caplog
):
    script = FAILS.replace("raise", "open(__file__ + '.inits', 'a').write('x')\n    raise")

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=3, first_boot=False) as team:
            await team.until(lambda: "no model here" in "".join(team.pool.describe()))
            assert not team.pool.started
            while len((tmp_path / "score.py.inits").read_text()) < 2:
                await team.pause()
            assert team.boot_errors == []
        assert caplog.text.count("Traceback") <= len((tmp_path / "score.py.inits").read_text())

    with caplog.at_level("ERROR", "scoring_runtime.pool"):
        run(main())


def test_every_exit_handler_runs_when_the_pool_drains(run, crew, script_plan, tmp_path):
    script = NOTES + "\n    import atexit\n    atexit.register(lambda: note('exits', str(os.getpid())))\n"

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=2) as team:
            await team.ready()
            pids = {process.pid for process in team.processes()} | parents(team)
            team.pool.drain()
            await team.until(lambda: team.pool.empty)
            assert set(map(int, lines(tmp_path, "exits"))) == pids

    run(main())


@pytest.mark.parametrize("end", ["drain", "kill"])
def test_a_pool_that_ends_while_it_preloads(run, crew, script_plan, tmp_path, end):
    script = NOTES + "\n    def init():\n        note('inits', 'x')\n        time.sleep(1000)\n"

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=2) as team:
            await until_noted(team, tmp_path, "inits")
            team.pool.drain() if end == "drain" else team.pool.kill("the test wants it")
            await team.until(lambda: team.pool.empty)
            assert team.boot_errors == []

    run(main())


def test_a_pool_that_drains_while_it_forks(run, crew, script_plan):
    async def main() -> None:
        for rounds in range(4):
            async with crew(script_plan(NOTES, preload=True), size=6) as team:
                await team.until(lambda wanted=rounds: team.pool.live >= wanted)
                team.pool.drain()
                await team.until(lambda: team.pool.empty)
                assert team.boot_errors == []

    run(main())


def test_what_forks_print_arrives_and_what_init_printed_arrives_once(run, crew, script_plan, capfd):
    script = """
        import ctypes, os

        def init():
            ctypes.CDLL(None).printf(b"from C\\n")
            print("from init", end="")

        def run(data):
            os.write(1, b"fork says " + data.encode() + b"\\n")
            os.write(2, b"and to stderr\\n")
            return data
    """

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=2) as team:
            await team.ready()
            await team.ask(b"one")
            await team.ask(b"two")
            team.pool.drain()
            await team.until(lambda: team.pool.empty)

    run(main())
    out, err = capfd.readouterr()
    for text in ("from C\n", "from init", "fork says one\n", "fork says two\n"):
        assert out.count(text) == 1
    assert err == "and to stderr\n" * 2


def test_a_preload_process_that_hangs_when_it_is_to_fork_is_killed_with_all(run, crew, script_plan, tmp_path):
    script = (
        NOTES
        + """
    def wait_or_go():
        while (HERE / "hang").exists():
            time.sleep(0.01)

    os.register_at_fork(before=wait_or_go)
    """
    )

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=2) as team:
            await team.ready()
            (parent,) = parents(team)
            (tmp_path / "hang").touch()
            os.kill(team.pool.idle[0].pid, signal.SIGKILL)
            await team.until(lambda: team.pool.restarts == 1)
            await team.pause()
            team.pool.tick(team.loop.time() + ANSWER_TIMEOUT_S - 1)
            assert psutil.Process(parent).is_running()
            team.pool.tick(team.loop.time() + ANSWER_TIMEOUT_S + 1)
            (tmp_path / "hang").unlink()
            await team.until(lambda: len(team.pool.idle) == 2 and team.pool.restarts >= 2)
            assert len(lines(tmp_path, "inits")) == 2

    run(main())


def test_a_script_that_waits_for_children_itself_takes_nothing_from_us(run, crew, script_plan, tmp_path):
    script = (
        NOTES
        + """
    import signal

    def reap(number, frame):
        note("reaped", str(os.waitpid(-1, 0)[0]))

    def init():
        signal.signal(signal.SIGCHLD, reap)

    def run(data):
        if data == "die":
            os._exit(9)
        child = os.spawnlp(os.P_NOWAIT, "true", "true")
        return child
    """
    )

    async def main() -> None:
        async with crew(script_plan(script, preload=True)) as team:
            await team.ready()
            (child,) = await team.ask(b"spawn")
            await until_noted(team, tmp_path, "reaped")
            assert lines(tmp_path, "reaped") == [child]  # in the fork its handler is what it was
            scorer, _ = team.send(b"die")
            await team.until(lambda: team.unsettled)
            assert scorer.exit_text == "exited with code 9"

    run(main())


FORGED = {
    "the pid of one that user code has waited for": "pack('<Bqq', 1, ended(), 0)",
    "the pid of everybody": "pack('<Bqq', 1, -1, 0)",
    "the pid of the own group": "pack('<Bqq', 1, 0, 0)",
    "a pid that is none": "pack('<Bqq', 1, 1 << 40, 0)",
    "an error that is none": "pack('<Bqq', 1, 0, 1 << 40)",
    "too little": "b'x'",
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_answer_of_the_preload_process_harms_nobody(run, crew, script_plan, tmp_path, monkeypatch, forged):
    script = (
        NOTES
        + f"""
    import socket
    from struct import pack

    def ended():
        pid = os.posix_spawnp("true", ["true"], dict(os.environ))
        os.waitpid(-1, 0)
        return pid

    def forge():
        if (HERE / "forged").exists():
            return
        note("forged", "once")
        packet = {FORGED[forged]}
        for fd in map(int, os.listdir("/proc/self/fd")):
            if os.path.exists("/proc/self/fd/%d" % fd) and os.readlink("/proc/self/fd/%d" % fd).startswith("socket:"):
                with socket.socket(fileno=os.dup(fd)) as one:
                    if one.type == socket.SOCK_SEQPACKET:
                        one.send(packet)
                        note("sent", "it")

    os.register_at_fork(before=forge)
    """
    )
    kill = os.kill

    def kill_one(pid: int, number: int) -> None:
        assert pid > 0
        kill(pid, number)

    monkeypatch.setattr(os, "kill", kill_one)  # a failure of this test must not take the machine along

    async def main() -> None:
        async with crew(script_plan(script, preload=True), first_boot=False) as team:
            await team.ready()
            assert team.pool.restarts == 1
            await team.ask(b"well")
            assert lines(tmp_path, "sent") == ["it"]

    run(main())


def test_processes_that_user_code_starts_find_no_descriptor_of_ours(run, crew, script_plan):
    script = """
        import os, subprocess

        def listed():
            names = os.listdir("/proc/self/fd")
            return [os.readlink("/proc/self/fd/" + name) for name in names if os.path.exists("/proc/self/fd/" + name)]

        def in_child():
            return subprocess.check_output(["sh", "-c", "ls -l /proc/self/fd"], close_fds=False).decode()

        def init():
            global seen
            seen = in_child()

        def run(data):
            return {"init": seen, "run": in_child(), "own": [name for name in listed() if name.startswith("socket:")]}
    """

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=2) as team:
            await team.ready()
            for _ in range(2):
                (answer,) = await team.ask(b"")
                assert "socket:" not in answer.split('"own"')[0]
                assert answer.split('"own"')[1].count("socket:") == 1  # its channel, and nobody else's

    run(main())


def test_a_system_that_is_out_of_processes_is_asked_again(run, crew, script_plan, tmp_path, caplog):
    script = (
        NOTES
        + """
    real_fork = os.fork

    def fork():
        if (HERE / "full").exists():
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real_fork()

    os.fork = fork
    """
    )

    async def main() -> None:
        async with crew(script_plan(script, preload=True), size=2) as team:
            await team.ready()
            (tmp_path / "full").touch()
            os.kill(team.pool.idle[0].pid, signal.SIGKILL)
            await team.until(lambda: team.pool.restarts == 1)
            while "cannot fork a scorer" not in caplog.text:
                await team.pause()
            assert "Resource temporarily unavailable" in caplog.text
            (tmp_path / "full").unlink()
            await team.ready()
            assert len(lines(tmp_path, "inits")) == 1

    with caplog.at_level("ERROR", "scoring_runtime.pool"):
        run(main())


def test_without_pidfds_each_loads_by_itself_and_the_log_says_so(run, crew, script_plan, tmp_path, caplog, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")

    async def main() -> None:
        async with crew(script_plan(NOTES, preload=True), size=2) as team:
            await team.ready()
            assert len(lines(tmp_path, "inits")) == 2
            assert parents(team) == {os.getpid()}

    with caplog.at_level("WARNING", "scoring_runtime.pool"):
        run(main())
    assert caplog.text.count("Preloading is on") == 1
    assert "Each scorer loads by itself" in caplog.text


ASYNC = """
    import asyncio, os

    async def init():
        global loop, inits
        loop = asyncio.get_event_loop()
        await asyncio.sleep(0)
        inits = str(os.getpid())

    async def run(data):
        other, _ = await asyncio.gather(asyncio.sleep(0.001, data), asyncio.sleep(0))
        reader, writer = os.pipe()
        os.write(writer, b"through the poll of this process")
        heard = asyncio.Event()
        here = asyncio.get_event_loop()
        here.add_reader(reader, heard.set)
        await asyncio.wait_for(heard.wait(), 10)
        here.remove_reader(reader)
        os.close(reader)
        os.close(writer)
        return [other, inits, here is loop]
"""


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_asynchronous_scripts_in_bare_interpreters(run, crew, script_plan, bare_pythons, version):
    async def main() -> None:
        async with crew(script_plan(ASYNC, preload=True, python=bare_pythons(version)), size=3) as team:
            await team.ready()
            (parent,) = parents(team)
            for _ in range(2):
                asked = [team.send(b"a", b"b")[1] for _ in range(3)]  # all of them at the same time
                await team.until(lambda asked=asked: all(one.settled for both in asked for one in both))
                for first, second in asked:
                    assert first.text == f'["a", "{parent}", false]'
                    assert second.text == f'["b", "{parent}", false]'
            team.pool.drain()
            await team.until(lambda: team.pool.empty)

    run(main())
