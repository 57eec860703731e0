"""The loop that decodes while it runs: real models, real threads, the front's end of the channel in our hand."""

import json
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from scoring_runtime.onnx import cpus, pipeline
from scoring_runtime.onnx.engine import Engine
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan
from scoring_runtime.onnx.session import RunStoppedError
from scoring_runtime.scorer import frames
from scoring_runtime.scorer.loop import Channel

from ..looping import FOREVER, looping_model

WAIT_S = 60


def until(condition: Callable[[], Any]) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


class Front:
    """Our end of the channel, and the loop in a thread of its own at the other."""

    def __init__(self, engine: Engine) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(WAIT_S)
        self._theirs = theirs
        self._decoder = frames.Decoder()
        self._frames: deque[frames.Frame] = deque()
        self.loop = pipeline.Pipeline(Channel(theirs), engine, None)
        self.thread = threading.Thread(target=self.loop.serve)
        self.thread.start()

    def send(self, first_id: int, *bodies: Any) -> range:
        """One frame. Its ids."""
        ids = range(first_id, first_id + len(bodies))
        blobs = [body if isinstance(body, bytes) else json.dumps({"data": body}).encode() for body in bodies]
        requests = [
            frames.Request(number, 0, frames.ROUTE_SCORE, 2, b"", blob) for number, blob in zip(ids, blobs, strict=True)
        ]
        self.channel.sendall(b"".join(frames.encode_requests(requests)))
        return ids

    def stop(self, number: int) -> None:
        self.channel.sendall(frames.encode_control(frames.STOP, number))

    def replies(self) -> list[frames.Reply]:
        """Those of the next frame of replies."""
        while not self._frames:
            data = self.channel.recv(65536)
            assert data, "the channel is closed"
            self._frames.extend(self._decoder.feed(data))
        return [frames.Reply(*reply) for reply in frames.decode_replies(self._frames.popleft())]

    def answers(self, count: int) -> list[tuple[int, int, Any]]:
        """So many replies in the order in which they come: id, status, body."""
        found: list[frames.Reply] = []
        while len(found) < count:
            found += self.replies()
        assert len(found) == count
        return [(reply.id, reply.status, json.loads(bytes(reply.body))) for reply in found]

    def until_running(self) -> None:
        """Wait for a run that has begun."""
        until(lambda: self.loop._runner is not None and self.loop._runner._present is not None)
        time.sleep(0.01)

    def end(self) -> None:
        self.channel.close()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self._theirs.close()


@pytest.fixture(scope="session")
def looping(tmp_path_factory: pytest.TempPathFactory, load_engine: Callable[..., Engine]) -> Engine:
    engine = load_engine(looping_model(), tmp_path_factory.mktemp("looping"), max_batch_size=16)
    assert engine.info["batchable"], engine.info["why_not_batchable"]
    return engine


@pytest.fixture
def front(looping: Engine) -> Iterator[Front]:
    before, descriptors = threading.active_count(), psutil.Process().num_fds()
    front = Front(looping)
    yield front
    front.end()
    assert (threading.active_count(), psutil.Process().num_fds()) == (before, descriptors)


def whole(value: float) -> Any:
    """The answer to one row."""
    return {"outputs": {"y": [[value + 1]]}}


def test_frames_are_answered_in_their_order_and_each_alone(front):
    front.send(1, [[1]], b"rubbish", [[2]])
    front.send(4, [[3]], [[1, 2]], [[4], [5]])
    answers = front.answers(6)
    assert sorted(number for number, _, _ in answers[:3]) == [1, 2, 3]
    by_id = {number: (status, body) for number, status, body in answers}
    assert [by_id[number][0] for number in range(1, 7)] == [200, 400, 200, 200, 400, 200]
    assert by_id[1][1] == whole(1)
    assert by_id[6][1] == {"outputs": {"y": [[5], [6]]}}


def test_the_next_frame_is_decoded_while_one_runs_and_answered_after_it(front):
    front.send(1, [[3000]])
    front.until_running()
    front.send(2, [[7]], b"rubbish")
    until(lambda: len(front.loop._open) > 1 and front.loop._open[1].begun)
    assert [number for number, _, _ in front.answers(3)] in ([1, 2, 3], [1, 3, 2])


def test_the_time_of_a_second_frame_counts_from_the_end_of_the_first(front):
    front.send(1, [[3000]])
    front.until_running()
    front.send(2, [[1]])
    busy_us: dict[int, int] = {}
    while len(busy_us) < 2:
        data = front.channel.recv(65536)
        busy_us.update({frame.busy_us: frames.decode_replies(frame)[0][0] for frame in front._decoder.feed(data)})
    first, second = [one for one, _ in sorted(busy_us.items(), key=lambda item: item[1])]
    assert second < first / 2


def test_a_run_that_nobody_waits_for_ends_early_and_the_next_one_begins(front):
    front.send(1, [[FOREVER]], [[2]])
    front.until_running()
    front.send(3, [[5]])
    began = time.monotonic()
    front.stop(2)  # any id of the frame
    assert [(number, status) for number, status, _ in front.answers(2)] == [(1, 503), (2, 503)]
    assert front.answers(1) == [(3, 200, whole(5))]
    assert time.monotonic() - began < 5


def test_a_frame_that_was_sent_ahead_is_not_begun_when_it_is_stopped(front):
    front.send(1, [[FOREVER]])
    front.until_running()
    front.send(2, [[FOREVER]], b"rubbish")
    front.stop(3)
    front.stop(1)
    assert [(number, status) for number, status, _ in front.answers(3)] == [(1, 503), (3, 400), (2, 503)]
    front.send(4, [[1]])
    assert front.answers(1) == [(4, 200, whole(1))]


def test_of_a_frame_in_several_runs_none_begins_after_a_stop(front):
    front.send(1, *[[[FOREVER]]] * 40)  # more than two runs of at most 16 rows
    front.until_running()
    front.stop(1)
    assert {(number, status) for number, status, _ in front.answers(40)} == {(number, 503) for number in range(1, 41)}


def test_nothing_of_a_stopped_frame_runs_and_its_answers_wait_for_their_turn(front, looping, monkeypatch):
    run, runs = looping._session.run, []

    def count(arrays: Any) -> Any:
        runs.append(len(arrays[0]))
        return run(arrays)

    monkeypatch.setattr(looping._session, "run", count)
    front.send(1, [[FOREVER]])
    front.until_running()
    front.send(2, *[[[FOREVER]]] * 40)
    until(lambda: front.loop._given == pipeline.RUNS_AHEAD)
    front.stop(2)
    front.stop(1)
    answers = front.answers(41)
    assert answers[0][:2] == (1, 503)
    assert {status for _, status, _ in answers} == {503}
    assert runs == [1]


def test_a_stop_that_is_late_hits_nobody(front):
    front.send(1, [[1]])
    assert front.answers(1) == [(1, 200, whole(1))]
    front.send(2, [[2000]])
    front.until_running()
    front.stop(1)
    assert front.answers(1) == [(2, 200, whole(2000))]
    front.stop(2)
    front.send(3, [[1]])
    assert front.answers(1) == [(3, 200, whole(1))]


def test_a_stop_never_hits_another_frame_however_it_falls(front):
    chance = random.Random(6)
    stopped: set[int] = set()
    under_way: deque[int] = deque()
    statuses: dict[int, int] = {}
    for number in range(1, 400):
        front.send(number, [[chance.choice((1, 20, 200))]])
        under_way.append(number)
        if chance.random() < 0.5:
            time.sleep(chance.random() * 0.004)
            target = chance.randrange(max(1, number - 2), number + 1)  # it may be over by now
            stopped.add(target)
            front.stop(target)
        while len(under_way) > 1:
            for reply in front.replies():
                assert reply.id == under_way.popleft()
                statuses[reply.id] = reply.status
    for reply in front.replies():
        statuses[reply.id] = reply.status
    assert sorted(statuses) == list(range(1, 400))
    ended_early = {number for number, status in statuses.items() if status != 200}
    assert ended_early <= stopped
    assert ended_early


def test_short_runs_happen_in_one_thread_after_a_while(front):
    for number in range(1, 40):
        front.send(number, [[1]])
        assert front.answers(1) == [(number, 200, whole(1))]
    until(lambda: front.loop._runs_here)
    front.send(50, [[3000]])  # a long one: the next may be long too
    front.answers(1)
    until(lambda: not front.loop._runs_here)


def test_where_frames_come_ahead_runs_are_handed_over(front):
    front.loop._long_runs_held = 0
    front.loop._came_ahead = False
    bodies = [[[60]]] * 8
    for first in (1, 101, 201):
        front.send(first, *bodies)
    front.answers(24)
    until(lambda: front.loop._last_us >= pipeline.WORTH_OVERLAP_US)
    assert front.loop._runner is not None


def test_on_one_cpu_that_runs_the_model_nothing_is_sent_ahead(tmp_path, load_engine, monkeypatch):
    infos = []
    for granted in (None, 1.0, 2.0):
        monkeypatch.setattr(cpus, "quota", lambda granted=granted: granted)
        monkeypatch.setattr(cpus, "by_affinity", lambda: 2)
        infos.append(load_engine(looping_model(), tmp_path).info)
    assert [info["ahead"] for info in infos] == [1, 0, 1]
    assert all(info["stops"] for info in infos)


def test_the_channel_closes_while_a_run_goes_on(front):
    front.send(1, [[FOREVER]])
    front.until_running()
    # the fixture closes it, and sees that the threads end


def test_a_session_says_that_it_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "looping.onnx"
    path.write_bytes(looping_model().SerializeToString())
    session = open_session(SessionPlan(path, 1))
    timer = threading.Timer(0.05, session.stop)
    timer.start()
    with pytest.raises(RunStoppedError):
        session.run([np.array([[FOREVER]], np.float32)])
    timer.join()
    session.stop()  # nothing runs
    outputs: Sequence[Any] = session.run([np.array([[1]], np.float32)])
    assert outputs[0].tolist() == [[2]]
