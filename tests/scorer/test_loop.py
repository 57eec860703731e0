"""What a scorer writes when, and what it reads, with a clock that stands still unless it is moved."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from scoring_runtime.scorer import frames, loop
from scoring_runtime.scorer.frames import (
    CANCEL,
    FLAG_ABORT,
    FLAG_MORE,
    FLAG_RUN_RETURNED,
    PULL,
    RECALL,
    Decoder,
    Frame,
    FrameError,
    Reply,
    Request,
)
from scoring_runtime.scorer.loop import FLUSH_AFTER_S, FLUSH_BYTES, Channel, ChannelClosedError, Outbox


class Written:
    """The end of the channel that replies are written to: keeps the frames, and pulls or cancels as it is told."""

    def __init__(self, *wants_more: bool) -> None:
        self.frames: list[Frame] = []
        self.wishes = list(wants_more)
        self.closed = False

    def send(self, pieces: list[frames.Blob]) -> None:
        if self.closed:
            raise ChannelClosedError
        self.frames += Decoder().feed(b"".join(pieces))

    def wants_more(self, request_id: int, on_recall: Any) -> bool:
        assert self.replies[-1].id == request_id
        if not self.wishes:
            raise ChannelClosedError
        return self.wishes.pop(0)

    @property
    def replies(self) -> list[Reply]:
        return [Reply(*reply) for frame in self.frames for reply in frames.decode_replies(frame)]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, "perf_counter", clock.perf_counter)
    return clock


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def outbox(written: Any, clock: Clock) -> Outbox:
    outbox = Outbox(written, None)
    outbox.open([])
    return outbox


# When replies are written


def test_replies_wait_for_company(outbox, written, clock):
    outbox.add(1, 200, b"one")
    outbox.flush_if_due()
    clock.now += FLUSH_AFTER_S / 2
    outbox.add(2, 200, b"two")
    outbox.flush_if_due()
    assert written.frames == []
    outbox.flush()
    assert [frame.count for frame in written.frames] == [2]


def test_what_was_held_is_written_in_frames_of_usual_size(outbox, written):
    """All of it in one could be more than a frame can hold."""
    outbox.open([], held=True)
    large = b"x" * (FLUSH_BYTES * 2 // 3)
    for number in range(5):
        outbox.add(number, 200, large)
    outbox.add_all([5, 6], [b"small", b"last"], 1)
    assert written.frames == []
    outbox.release()
    outbox.flush()
    assert [frame.count for frame in written.frames] == [2, 2, 3]
    assert [reply.id for reply in written.replies] == list(range(7))


def test_a_reply_that_took_long_is_written_at_once(outbox, written, clock):
    clock.now += 0.5
    outbox.add(1, 200, b"slow")
    outbox.flush_if_due()
    assert [reply.body for reply in written.replies] == [b"slow"]


def test_the_time_to_wait_counts_from_the_last_write(outbox, written, clock):
    clock.now += 0.5
    outbox.add(1, 200, b"slow")
    outbox.flush_if_due()
    clock.now += FLUSH_AFTER_S / 2
    outbox.add(2, 200, b"quick")
    outbox.flush_if_due()
    assert len(written.frames) == 1
    clock.now += FLUSH_AFTER_S
    outbox.flush_if_due()
    assert len(written.frames) == 2


def test_nothing_there_nothing_written(outbox, written, clock):
    clock.now += 10
    outbox.flush_if_due()
    outbox.flush()
    assert written.frames == []


def test_replies_that_are_much_together_do_not_wait(outbox, written):
    half = b"x" * (FLUSH_BYTES // 2)
    outbox.add(1, 200, half)
    outbox.add(2, 200, half)
    assert written.frames == []
    outbox.add(3, 200, b"one more byte")
    assert [frame.count for frame in written.frames] == [3]
    outbox.add(4, 200, b"counting starts again")
    assert len(written.frames) == 1


def test_the_busy_time_counts_from_when_the_frame_was_read(outbox, written, clock):
    clock.now += 0.25
    outbox.add(1, 200, b"")
    outbox.flush()
    clock.now += 0.5
    outbox.add(2, 200, b"")
    outbox.flush()
    clock.now += 100
    outbox.open([])
    clock.now += 0.125
    outbox.add(3, 200, b"")
    outbox.flush()
    assert [frame.busy_us for frame in written.frames] == [250_000, 750_000, 125_000]


# What is written


def test_a_reply_carries_what_it_was_given(outbox, written):
    outbox.add(5, 418, b"body", b"content-type: text/tea", FLAG_RUN_RETURNED, 1234)
    outbox.flush()
    assert written.replies == [Reply(5, 418, FLAG_RUN_RETURNED, 1234, b"content-type: text/tea", b"body")]


def test_a_run_time_beyond_the_field_is_the_most_that_it_holds(outbox, written):
    outbox.add(1, 200, b"", run_us=1 << 40)
    outbox.add_all([2], [b""], 1 << 40)
    outbox.flush()
    assert [reply.run_us for reply in written.replies] == [frames.MAX_U32, frames.MAX_U32]


class Sized(bytes):
    """Bytes that say that they are many."""

    def __len__(self) -> int:
        return loop.MAX_REPLY_BYTES + 1


def test_a_reply_that_no_frame_can_hold_is_refused_and_harms_no_other(outbox, written):
    outbox.add(1, 200, b"before")
    with pytest.raises(FrameError, match="a reply of"):
        outbox.add(2, 200, Sized())
    outbox.add(2, 500, b"too large")
    outbox.flush()
    assert [(reply.id, reply.body) for reply in written.replies] == [(1, b"before"), (2, b"too large")]


def test_requests_that_ran_together_are_settled_together(outbox, written):
    outbox.add_all([1, 2, 3], [b"a", b"b", b"c"], 77)
    assert written.frames == []
    outbox.flush()
    assert written.replies == [
        Reply(number, 200, 0, 77, b"", body) for number, body in ((1, b"a"), (2, b"b"), (3, b"c"))
    ]


def test_requests_that_ran_together_and_answer_much_are_written_as_they_fit(outbox, written):
    body = b"x" * (FLUSH_BYTES // 2)
    outbox.add_all([1, 2, 3, 4], [body] * 4, 77)
    outbox.flush()
    assert [frame.count for frame in written.frames] == [3, 1]
    assert [reply.id for reply in written.replies] == [1, 2, 3, 4]


# Replies in pieces


def stream(outbox: Outbox, pieces: Iterator[bytes]) -> BaseException | None:
    return outbox.stream(9, 201, b"x: y", FLAG_RUN_RETURNED, 55, pieces)


def test_each_piece_is_written_when_it_is_asked_for(outbox, written):
    written.wishes = [True, True]
    outbox.add(8, 200, b"before")
    assert stream(outbox, iter([b"a", b"b"])) is None
    assert [frame.count for frame in written.frames] == [1, 1, 1, 1]
    assert written.replies[1:] == [
        Reply(9, 201, FLAG_RUN_RETURNED | FLAG_MORE, 55, b"x: y", b"a"),
        Reply(9, 201, FLAG_MORE, 0, b"", b"b"),
        Reply(9, 201, 0, 0, b"", b""),
    ]


def test_no_piece_is_made_before_it_is_asked_for(outbox, written):
    made = []

    def pieces() -> Iterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            made.append(piece)
            yield piece

    written.wishes = [True, False]
    assert stream(outbox, pieces()) is None
    assert made == [b"a", b"b"]


def test_a_cancelled_reply_ends_at_once(outbox, written):
    written.wishes = [False]
    assert stream(outbox, iter([b"a", b"b"])) is None
    assert [(reply.flags & FLAG_MORE, reply.body) for reply in written.replies] == [(FLAG_MORE, b"a"), (0, b"")]


def test_a_reply_without_pieces_is_an_empty_one(outbox, written):
    assert stream(outbox, iter([])) is None
    outbox.flush()
    assert written.replies == [Reply(9, 201, FLAG_RUN_RETURNED, 55, b"x: y", b"")]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_what_is_raised_between_pieces_breaks_the_reply_off(outbox, written, error):
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise error

    written.wishes = [True]
    assert stream(outbox, pieces()) is error
    assert [(reply.flags & FLAG_ABORT, reply.body) for reply in written.replies] == [(0, b"a"), (FLAG_ABORT, b"")]


def test_what_is_raised_before_the_first_piece_settles_nothing(outbox, written):
    def pieces() -> Iterator[bytes]:
        raise ValueError("at once")
        yield b""

    with pytest.raises(ValueError, match="at once"):
        stream(outbox, pieces())
    outbox.flush()
    assert written.frames == []


def test_a_channel_that_closes_between_pieces_is_no_fault_of_the_users(outbox, written):
    written.wishes = []
    with pytest.raises(ChannelClosedError):
        stream(outbox, iter([b"a", b"b"]))


# The channel


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    """The front's socket, and the scorer's channel."""
    front, scorer = socket.socketpair()
    front.settimeout(10)
    scorer.settimeout(10)
    with front, scorer:
        yield front, Channel(scorer)


def test_frames_come_one_by_one_and_the_end_is_none(ends):
    front, channel = ends
    front.sendall(frames.encode_control(PULL, 1) + frames.encode_control(CANCEL, 2))
    front.close()
    assert [frame and frame.kind for frame in (channel.receive(), channel.receive(), channel.receive())] == [
        PULL,
        CANCEL,
        None,
    ]


def test_waiting_for_a_pull_keeps_the_frames_of_others_in_their_turn(ends):
    front, channel = ends
    requests = [b"".join(frames.encode_requests([Request(number, 0, 1, 2, b"", b"")])) for number in (10, 11)]
    front.sendall(
        requests[0]
        + frames.encode_control(PULL, 4)  # about a reply that has ended
        + requests[1]
        + frames.encode_control(RECALL, 4)
        + frames.encode_control(PULL, 5)
        + frames.encode_control(RECALL, 5)
        + frames.encode_control(CANCEL, 5)
    )
    recalled: list[int] = []
    assert channel.wants_more(5, recalled.append) is True
    assert channel.wants_more(5, recalled.append) is False
    assert recalled == [5]
    waiting = [channel.receive(), channel.receive()]
    assert [frames.decode_requests(frame)[0].id for frame in waiting if frame] == [10, 11]


def test_a_close_while_waiting_for_a_pull_is_told(ends):
    front, channel = ends
    front.close()
    with pytest.raises(ChannelClosedError):
        channel.wants_more(5, print)


def test_a_close_while_writing_is_told(ends):
    front, channel = ends
    front.close()
    with pytest.raises(ChannelClosedError):
        channel.send([b"x" * 100])


def test_a_front_that_resets_the_channel_ends_it(ends):
    front, channel = ends
    channel.send([b"never read"])
    front.close()
    assert channel.receive() is None


# The life


class Echo:
    """An engine."""

    def __init__(self) -> None:
        self.info = {"engine": "echo", "idempotent": False, "headers": "none"}
        self.scored: list[int] = []

    def score(self, requests: list[Request], outbox: Outbox) -> None:
        self.scored.append(len(requests))
        for request in requests:
            outbox.begin(request.id)
            outbox.add(request.id, 200, request.body)


def test_it_serves_until_the_channel_is_closed(ends):
    front, channel = ends
    one, two, three = (Request(number, 0, 1, 2, b"", b"%d" % number) for number in (1, 2, 3))
    front.sendall(b"".join(frames.encode_requests([one, two])))
    front.sendall(frames.encode_control(CANCEL, 1))  # crossed with the reply that it is about
    front.sendall(b"".join(frames.encode_requests([three])))
    front.shutdown(socket.SHUT_WR)
    engine = Echo()
    marks: list[int] = []
    kept: list[int] = []

    def keep(number: int, *_: Any) -> bool:
        kept.append(number)
        return True

    progress = SimpleNamespace(mark=marks.append, keep=keep, forget=lambda: kept.append(0))
    loop.serve(channel, engine, progress)  # type: ignore[arg-type]
    assert engine.scored == [2, 1]
    assert marks == [1, 2, 3]
    assert kept == [1, 0]  # only what waits when another request begins, and only until it is sent
    got = Decoder().feed(front.recv(1 << 16))
    assert [reply[0] for frame in got for reply in frames.decode_replies(frame)] == [1, 2, 3]


class Streams:
    """An engine that answers each request in two pieces."""

    def __init__(self) -> None:
        self.info = {"engine": "streams", "idempotent": False, "headers": "none"}

    def score(self, requests: list[Request], outbox: Outbox) -> None:
        for one in requests:
            outbox.begin(one.id)
            outbox.stream(one.id, 200, b"", 0, 0, iter([b"first", b"second"]))


def test_what_is_recalled_is_given_back_and_does_not_run(ends):
    front, channel = ends
    front.sendall(b"".join(frames.encode_requests([Request(number, 0, 1, 2, b"", b"") for number in (1, 2, 3)])))
    front.sendall(b"".join(frames.encode_control(*one) for one in ((PULL, 1), (PULL, 1))))
    front.sendall(b"".join(frames.encode_control(*one) for one in ((RECALL, 1), (RECALL, 2), (PULL, 2), (PULL, 2))))
    front.sendall(b"".join(frames.encode_requests([Request(4, 0, 1, 2, b"", b"")])))
    front.sendall(b"".join(frames.encode_control(*one) for one in ((RECALL, 2), (RECALL, 4), (PULL, 4), (PULL, 4))))
    front.shutdown(socket.SHUT_WR)
    marks: list[int] = []
    loop.serve(channel, Streams(), SimpleNamespace(mark=marks.append))  # type: ignore[arg-type]
    assert marks == [1, 2, 4]
    told = []
    for frame in Decoder().feed(front.recv(1 << 16)):
        if frame.kind == frames.RETURNED:
            told.append(("returned", frames.decode_returned(frame)))
        else:
            told += [(bytes(reply[5]).decode(), [reply[0]]) for reply in frames.decode_replies(frame)]
    assert told == [
        ("first", [1]), ("second", [1]), ("", [1]),  # recalled too late: 2 begins as if nothing had been asked
        ("first", [2]), ("returned", [3]), ("second", [2]), ("", [2]),
        ("first", [4]), ("second", [4]), ("", [4]),
    ]  # fmt: skip


def test_a_front_that_has_gone_ends_the_work(ends):
    front, channel = ends
    front.sendall(b"".join(frames.encode_requests([Request(1, 0, 1, 2, b"", b"")])))
    engine = Echo()
    front.close()
    loop.serve(channel, engine, None)
    assert engine.scored == [1]
