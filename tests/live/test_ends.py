"""Processes that die or are told to end, under load: what clients see, what comes back, and what is left."""

import itertools
import json
import os
import re
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import until
from .load import CONNECTIONS, Load, encode_number, encode_row

LOST = {"message": "The process that ran this request ended before it answered. Check the logs."}

ECHO = """
import json, os, time
from pathlib import Path

def wait_for(name):
    deadline = time.monotonic() + 60
    while not Path(name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)

def init():
    global begun
    begun = os.open("begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(os.open("inits", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), b"init\\n")
    wait_for("may-load")

def run(data):
    number = json.loads(data)["number"]
    os.write(begun, b"%d\\n" % number)
    time.sleep(0.003)
    if number < 0:
        wait_for("may-answer")
    return {"number": number}
"""


@pytest.fixture
def echo(script, tmp_path):
    """A script that answers with the number it was asked, notes the numbers it began, and can be held up by files."""
    (tmp_path / "may-load").touch()
    return script(ECHO)


def begun(folder: Path) -> Counter[int]:
    path = folder / "begun"
    return Counter(map(int, path.read_text().split() if path.exists() else ()))


@pytest.fixture
def background():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def slow_model(build, tmp_path):
    """A model that takes some milliseconds, gives back the number it was asked, and something computed from it."""
    size, layers = 640, 10
    generator = np.random.default_rng(3)
    weights = [numpy_helper.from_array(generator.uniform(0, 2 / size, (size, size)).astype(np.float32), "w")]
    weights.append(numpy_helper.from_array(np.ones((1, size), np.float32), "first"))
    weights.append(numpy_helper.from_array(np.ones((size, 1), np.float32), "last"))
    nodes = [
        helper.make_node("Identity", ["x"], ["number"]),
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "first"], ["h0"]),
        *(helper.make_node("MatMul", [f"h{layer}", "w"], [f"h{layer + 1}"]) for layer in range(layers)),
        helper.make_node("MatMul", [f"h{layers}", "last"], ["computed"]),
    ]
    outputs = {"number": (TensorProto.INT64, ["N", 1]), "computed": (TensorProto.FLOAT, ["N", 1])}
    model = build(nodes, {"x": (TensorProto.INT64, ["N", 1])}, outputs, weights)
    path = tmp_path / "slow.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def kill_in_turn(server: Any, load: Load, least: int, between: int) -> None:
    """Kill -9 one of two scorers after the other, until some of them had more than they were running.

    Each time wait until it is replaced, and see that the server is ready.
    """
    kills = 0
    while kills < least or not handed_over(server)[1]:
        kills += 1
        load.await_more(between)
        before = {scorer.pid for scorer in server.scorers}
        os.kill(min(before), signal.SIGKILL)
        replaced = False
        while not replaced:
            assert server.status("/readyz") == 200  # the other one is there
            assert server.get("/").body == b"Healthy"
            now = {scorer.pid for scorer in server.scorers}
            replaced = len(now) == 2 and now != before and both_ready(server)
    load.await_more(between)


def both_ready(server: Any) -> bool:
    return b"scoring_scorers_live 2.0" in server.get("/metrics").body


def restarts(server: Any) -> int:
    (count,) = re.findall(r"^scoring_scorer_restarts (\d+)", server.get("/metrics").body.decode(), re.MULTILINE)
    return int(count)


def one_waits(server: Any) -> bool:
    return b"scoring_queue_requests 1.0" in server.get("/metrics").body


def handed_over(server: Any) -> tuple[int, int]:
    """Of the scorers that ended: requests answered with an error, and requests given to another scorer."""
    lines = re.findall(r"with \d+ requests: (\d+) answered with an error, (\d+) given to another", server.log)
    return sum(int(errors) for errors, _ in lines), sum(int(again) for _, again in lines)


def test_kill_9_of_a_scorer_under_load_is_not_seen_by_clients_of_an_onnx_model(slow_model, serve, connect):
    with serve(slow_model, "--scorers", "2") as server:
        load = Load(server.port, connect, encode_row)
        load.run(lambda: kill_in_turn(server, load, least=5, between=150))
        errors, again = handed_over(server)
        kills = restarts(server)

    assert kills >= 5
    assert not load.unanswered
    assert errors == 0
    session = onnxruntime.InferenceSession(slow_model, providers=["CPUExecutionProvider"])
    (direct,) = session.run(["computed"], {"x": np.array([[number] for number in load.answers])})
    for (number, answer), computed in zip(load.answers.items(), direct, strict=True):
        assert answer.status == 200, answer.body
        assert answer.json["outputs"]["number"] == [[number]]
        np.testing.assert_allclose(answer.json["outputs"]["computed"], [computed], rtol=1e-5)
    print(f"{len(load.answers)} requests answered, {again} of them run again after {kills} kills")


def test_kill_9_of_a_scorer_under_load_costs_a_script_only_what_it_was_running(echo, serve, connect, tmp_path):
    with serve(echo, "--scorers", "2", folder=tmp_path) as server:
        load = Load(server.port, connect, encode_number)
        load.run(lambda: kill_in_turn(server, load, least=5, between=150))
        errors, again = handed_over(server)
        kills = restarts(server)

    assert kills >= 5
    assert not load.unanswered
    failed = [number for number, answer in load.answers.items() if answer.status != 200]
    assert len(failed) == errors <= kills
    for number, answer in load.answers.items():
        assert answer.json == (LOST if number in failed else {"number": number})
    assert max(begun(tmp_path).values()) == 1  # what may have run is never run again
    assert begun(tmp_path).keys() >= load.answers.keys() - failed
    print(f"{len(load.answers)} requests answered, {errors} of them with an error, {again} handed over, {kills} kills")


def test_readiness_tells_the_truth_when_every_scorer_is_killed(echo, serve, tmp_path, wait_until, background):
    with serve(echo, "--scorers", "2", folder=tmp_path) as server:
        assert both_ready(server)
        (tmp_path / "may-load").unlink()
        killed = {scorer.pid for scorer in server.scorers}
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: (tmp_path / "inits").read_text().count("init") == 4)
        assert server.status("/readyz") == 503
        assert server.get("/readyz").body == b"not ready: 0 of 2 scorers are ready\n"
        assert server.get("/").body == b"Healthy"
        assert server.status("/startupz") == 200  # it has started once

        asked = background.submit(server.score, encode_number(5))
        wait_until(lambda: one_waits(server))
        assert server.status("/readyz") == 503
        (tmp_path / "may-load").touch()

        assert asked.result().json == {"number": 5}
        wait_until(lambda: both_ready(server))
        assert server.status("/readyz") == 200
        assert not {scorer.pid for scorer in server.scorers} & killed


@pytest.mark.parametrize("engine", ["onnx", "script"])
def test_kill_9_of_the_front_takes_its_scorers_along_and_a_new_one_serves(engine, request, serve, tmp_path, wait_until):
    target = request.getfixturevalue("slow_model" if engine == "onnx" else "echo")
    with serve(target, "--scorers", "2", folder=tmp_path) as server:
        front, scorers = server.front, server.scorers
        front.kill()
        psutil.wait_procs(scorers, timeout=10)
        assert not [scorer for scorer in scorers if scorer.is_running()]
        server.wait_ready()
        assert server.front.pid != front.pid
        assert len(server.scorers) == 2
        answer = server.score({"data": [[7]]} if engine == "onnx" else {"number": 7}).json
        assert (answer["outputs"]["number"] == [[7]]) if engine == "onnx" else (answer == {"number": 7})


def test_scorers_that_no_signal_interrupts_die_with_their_front(script, serve, tmp_path, wait_until, background):
    spin = "def init(): pass\ndef run(data):\n    open('spins', 'w').close()\n    sum(range(10**15))\n"
    with serve(script(spin), folder=tmp_path) as server:
        front, (scorer,) = server.front, server.scorers
        asked = background.submit(server.score, b"")
        wait_until((tmp_path / "spins").exists)
        front.kill()
        assert isinstance(asked.exception(), ConnectionError)
        scorer.wait(10)
        server.wait_ready()


def test_kill_9_of_the_first_process_ends_everything(echo, serve, tmp_path):
    with serve(echo, "--scorers", "2", folder=tmp_path) as server:
        server.process.kill()
        assert server.process.wait() == -signal.SIGKILL
        server.assert_nothing_left()
        server.process.returncode = 0  # what was asked for has happened


@pytest.mark.parametrize("order", list(itertools.permutations(["arbiter", "front", "scorer"])), ids="-".join)
def test_kill_9_in_every_order_leaves_nothing_and_the_next_start_works(order, script, serve, tmp_path, background):
    target = script("def init(): pass\ndef run(data):\n    return data\n")
    with serve(target, "--scorers", "2", folder=tmp_path) as server:
        processes = {"arbiter": server.process, "front": server.front, "scorer": server.scorers[0]}
        for name in order:
            with suppress(psutil.NoSuchProcess):
                processes[name].kill()
        server.process.wait(10)
        server.assert_nothing_left()
        with serve(target, "--scorers", "2", folder=tmp_path, port=server.port) as next_one:
            assert next_one.score(b"again").json == "again"
        server.process.returncode = 0  # what was asked for has happened


def test_kill_9_of_the_only_scorer_while_the_server_drains_loses_nothing_that_waits(
    echo, serve, tmp_path, wait_until, background
):
    with serve(echo, folder=tmp_path) as server:
        begun_one = background.submit(server.score, encode_number(-1))
        wait_until(lambda: begun(tmp_path))
        waiting = [background.submit(server.score, encode_number(number)) for number in (1, 2)]
        wait_until(lambda: b"scoring_queue_requests 2.0" in server.get("/metrics").body)
        (scorer,) = server.scorers
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.status("/"))
        scorer.kill()
        answers = [answer.result() for answer in waiting]
        server.stop()

    assert begun_one.result().json == LOST
    assert [(answer.status, answer.json) for answer in answers] == [(200, {"number": 1}), (200, {"number": 2})]
    assert max(begun(tmp_path).values()) == 1


def test_kill_9_of_the_front_while_the_server_drains_ends_everything(echo, serve, tmp_path, wait_until, background):
    with serve(echo, "--scorers", "2", folder=tmp_path) as server:
        asked = background.submit(server.score, encode_number(-1))
        wait_until(lambda: begun(tmp_path))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.status("/"))
        server.front.kill()
        assert isinstance(asked.exception(), ConnectionError)
        server.stop()


def test_sigterm_under_load_answers_everything_that_began(echo, serve, connect, tmp_path):
    with serve(echo, "--scorers", "2", "--drain-grace-s", "0.5", folder=tmp_path) as server:
        load = Load(server.port, connect, encode_number)

        def end():
            load.await_more(150)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()

        load.run(end)
        server.stop()

    for number, answer in load.answers.items():
        assert (answer.status, answer.json) == (200, {"number": number})
    # A request may cross with the end of an idle connection. Then nothing of it has begun.
    assert not begun(tmp_path).keys() & set(load.unanswered)
    assert len(load.unanswered) <= CONNECTIONS
    print(f"{len(load.answers)} requests answered, {len(load.unanswered)} crossed with the end of their connection")


def test_sigterm_says_not_ready_then_closes_the_port_then_finishes(echo, serve, tmp_path, wait_until, background):
    with serve(echo, "--scorers", "2", "--drain-grace-s", "0.6", folder=tmp_path) as server:
        last = background.submit(server.ask, "POST", "/score", encode_number(-1), {"Connection": "keep-alive"})
        wait_until(lambda: begun(tmp_path))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.status("/readyz") == 503)
        assert server.get("/readyz").body == b"not ready: the server is draining\n"
        assert server.get("/").body == b"Healthy"
        during_grace = server.score(encode_number(2))
        wait_until(lambda: not server.status("/"))
        assert not last.done()
        (tmp_path / "may-answer").touch()
        answer = last.result()
        server.stop()

    assert (during_grace.status, during_grace.json) == (200, {"number": 2})
    assert (answer.status, answer.json) == (200, {"number": -1})
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_while_init_runs_ends_the_server_at_once(number, echo, serve, tmp_path, wait_until):
    (tmp_path / "may-load").unlink()
    with serve(echo, "--scorers", "2", ready=False, folder=tmp_path) as server:
        wait_until(lambda: (tmp_path / "inits").exists() and (tmp_path / "inits").read_text().count("init") == 2)
        server.process.send_signal(number)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log


def test_sigterm_while_init_runs_answers_what_waits_for_it(echo, serve, tmp_path, wait_until, background):
    (tmp_path / "may-load").unlink()
    with serve(echo, ready=False, folder=tmp_path) as server:
        wait_until(lambda: server.status("/") == 200)
        asked = background.submit(server.score, encode_number(1))
        wait_until(lambda: one_waits(server))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.status("/"))
        (tmp_path / "may-load").touch()
        answer = asked.result()
        server.stop()

    assert (answer.status, answer.json) == (200, {"number": 1})


def test_ctrl_c_ends_the_whole_tree_at_once(echo, serve, tmp_path, wait_until, background):
    """A terminal sends SIGINT to the whole group: to the first process and to the front, which hears of it twice."""
    with serve(echo, "--scorers", "2", folder=tmp_path) as server:
        asked = background.submit(server.score, encode_number(-1))
        wait_until(lambda: begun(tmp_path))
        os.killpg(server.process.pid, signal.SIGINT)
        assert asked.result().json == LOST
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log


def test_a_stuck_run_does_not_keep_the_server_from_ending(echo, serve, tmp_path, wait_until, background):
    with serve(echo, "--drain-timeout-s", "0.5", folder=tmp_path) as server:
        stuck = background.submit(server.score, encode_number(-1))
        wait_until(lambda: begun(tmp_path))
        server.process.send_signal(signal.SIGTERM)
        answer = stuck.result()
        server.stop()
        assert "after 0.5 s" in server.log

    assert (answer.status, answer.json) == (500, LOST)


def test_a_scorer_that_ends_by_itself_while_idle_comes_back(script, serve, wait_until):
    leaves = "import os, threading\ndef init(): pass\ndef run(data):\n    if data == 'end': threading.Timer(0.01, os._exit, [0]).start()\n    return os.getpid()\n"
    with serve(script(leaves)) as server:
        first = json.loads(server.score(b"end").body)
        wait_until(lambda: [scorer.pid for scorer in server.scorers] not in ([], [first]))
        server.wait_ready()
        assert json.loads(server.score(b"stay").body) != first


POISON = """
import json, os, re
def init(): pass
def run(data):
    number = json.loads(data)["number"]
    if number in (100, 200, 300):
        os._exit(0)
    return {"number": number}
"""


def test_a_request_that_ends_its_process_fails_alone(script, serve, connect):
    with serve(script(POISON), "--scorers", "2") as server:
        load = Load(server.port, connect, encode_number)
        load.run(lambda: load.await_more(600))

    assert not load.unanswered
    poison = {100, 200, 300}
    failed = {number for number, answer in load.answers.items() if answer.status != 200}
    for number, answer in load.answers.items():
        assert answer.json == (LOST if number in failed else {"number": number})
    assert failed == poison  # what had run beside it has its answer, sent or not


HANGS = """
import re
def init(): pass
def run(data):
    if data == "slow":
        re.match("(a*)*b", "a" * 60)  # looks for signals now and then
    if data == "hang":
        sum(range(10**15))  # never does
    return data
"""


@pytest.mark.parametrize(
    ("kind", "survives", "message"),
    [("slow", True, {"message": "Scoring timeout after 200 ms"}), ("hang", False, None)],
)
def test_a_run_that_takes_too_long_delays_nobody(kind, survives, message, script, serve, wait_until, background):
    """It is interrupted; where that does not help, its scorer is killed and comes back."""
    with serve(script(HANGS), "--scorers", "2", "--scoring-timeout-ms", "200") as server:
        before = {scorer.pid for scorer in server.scorers}
        late = background.submit(server.score, kind.encode())
        answers = 0
        while not late.done():
            assert server.score(b"fine").json == "fine"
            answers += 1
        wait_until(lambda: both_ready(server))
        assert len(before & {scorer.pid for scorer in server.scorers}) == (2 if survives else 1)

    assert late.result().status == 500
    assert message in (None, late.result().json)
    assert late.result().json["message"]
    assert answers > 10


STOPS_AND_GROWS = """
import json, os, time
def init(): pass
def run(data):
    number = json.loads(data)["number"]
    if number == 50:
        os.kill(os.getpid(), 19)
    if number == 100:
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * (4 << 20))
            time.sleep(0.001)
    return {"number": number}
"""


def test_a_request_that_stops_its_process_or_grows_for_ever_fails_alone(script, serve, connect):
    with serve(script(STOPS_AND_GROWS), "--scorers", "2", "--max-scorer-memory-mb", "200") as server:
        load = Load(server.port, connect, encode_number)
        load.run(lambda: load.await_more(2000))
        metrics = server.get("/metrics").body.decode()
        assert 'scoring_scorer_ends_total{reason="stopped"} 1.0' in metrics
        assert 'scoring_scorer_ends_total{reason="memory"} 1.0' in metrics
        assert 'scoring_scorer_ends_total{reason="exited"} 0.0' in metrics
        assert "--max-scorer-memory-mb allows 200" in server.log

    assert not load.unanswered
    for number, answer in load.answers.items():
        assert answer.json == (LOST if number in (50, 100) else {"number": number})


def test_a_client_that_sends_poison_without_pause_keeps_nobody_waiting_long(script, serve, background):
    text = POISON.replace("number in (100, 200, 300)", "number < 0")
    with serve(script(text), "--scorers", "1") as server:
        stop = False

        def poison() -> set[int]:
            return {server.score(encode_number(-1)).status for _ in iter(lambda: stop, True)}

        poisoning = background.submit(poison)
        for number in range(10):
            assert server.score(encode_number(number)).json == {"number": number}
        stop = True
        assert poisoning.result() == {500}
        waits_s = [float(wait) for wait in re.findall(r"restart in ([\d.]+) s", server.log)]
        assert waits_s
        assert max(waits_s) <= 1.0


@pytest.mark.parametrize("line", ["", "Connection: close\r\n"], ids=["keep-alive", "close"])
def test_an_answer_that_is_still_being_read_is_not_cut_by_a_drain(serve, script, line):
    size = 30_000_000
    target = script(f"def init(): pass\ndef run(data): return 'x' * {size}")
    with serve(target, "--drain-timeout-s", "50") as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET /score HTTP/1.1\r\nHost: here\r\n{line}\r\n".encode())
        data = bytearray(client.recv(1000))  # all of it is with the network now, as far as the server goes
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.status("/livez"), "the port is closed")
        while piece := client.recv(1 << 20):
            data += piece
        assert len(data.partition(b"\r\n\r\n")[2]) == size + len('""')
        assert server.process.wait(60) == 0
        assert "are cut" not in server.log
