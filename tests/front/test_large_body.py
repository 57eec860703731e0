"""Large bodies: bytes in, and where they lie; with nothing left when nobody needs them any more."""

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_runtime.front.connection import MAX_PIPELINED
from scoring_runtime.front.keys import KeyFile
from scoring_runtime.front.large_body import LEAST_BYTES
from scoring_runtime.front.phases import LEAST_BYTES_PER_S, LINGER_S, Phase
from scoring_runtime.pool import arena as arenas
from scoring_runtime.pool.arena import SIZE_BYTES, Arena, Block
from scoring_runtime.scorer import frames

from .test_connection import bodies, message, post

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no arena")

MakeFront = Callable[..., Any]


@pytest.fixture(scope="module")
def memory() -> Iterator[Arena]:
    made = arenas.create()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def arena(memory: Arena) -> Iterator[Arena]:
    """All of it is free again after the test, and nobody has collected garbage for that."""
    gc.collect()
    gc.disable()
    try:
        yield memory
        assert free(memory)
    finally:
        gc.enable()


def free(arena: Arena) -> bool:
    return arena._free.find(SIZE_BYTES) == 0


@pytest.fixture
def front(make_front: MakeFront, arena: Arena) -> Any:
    return make_front(arena=arena)


def body_of(size: int, mark: int = 0) -> bytes:
    return bytes((mark + number * 7) % 251 for number in range(251)) * (size // 251 + 1)


def large(size: int = 200_000, mark: int = 0) -> bytes:
    return body_of(size, mark)[:size]


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def test_a_large_body_lies_in_the_arena(front):
    client = front.connect().send(*pieces_of(post(large()), 65536))
    (exchange,) = front.taken
    assert type(exchange.body) is Block
    assert (exchange.body.offset, len(exchange.body), bytes(exchange.body)) == (0, 200_000, large())
    del exchange
    front.echo()
    assert bodies(client) == [large()]
    assert client.open
    assert client.connection.phase is Phase.IDLE


@pytest.mark.parametrize("size", [LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1])
def test_from_a_size_on(front, size):
    client = front.connect().send(post(large(size)))
    assert (type(front.taken[0].body) is Block) == (size >= LEAST_BYTES)
    front.echo()
    assert bodies(client) == [large(size)]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0, 3, 9000, 131_071, 131_072, 140_000, 300_000]), min_size=1, max_size=5),
    st.lists(st.integers(1, 400_000), max_size=12),
)
def test_requests_of_all_sizes_one_behind_the_other_cut_anywhere(memory, make_front, sizes, cuts):
    front = make_front(arena=memory)
    data = b"".join(post(large(size, number)) for number, size in enumerate(sizes))
    client = front.connect()
    for cut in cuts:
        client.send(data[:cut])
        data = data[cut:]
        if cut % 2:
            front.echo()
    client.send(data)
    front.echo()
    assert bodies(client) == [large(size, number) for number, size in enumerate(sizes)]
    assert client.connection.phase is Phase.IDLE
    assert client.wire.protocol in (client.connection, client.connection.large_reader)


def test_who_has_sent_a_large_body_is_read_for_the_next_one_until_a_small_one_comes(front):
    client = front.connect()
    for number in range(3):
        client.send(*pieces_of(post(large(mark=number)), 65536))
        assert client.wire.protocol is client.connection.large_reader
        front.echo()
    client.send(post(b"small"))
    assert client.wire.protocol is client.connection
    front.echo()
    assert bodies(client) == [large(), large(mark=1), large(mark=2), b"small"]


@pytest.mark.parametrize("piece", [1000, 140_000, 1_000_000])
def test_more_than_are_worked_on_wait(front, piece):
    count = MAX_PIPELINED + 4
    requests = [post(large(140_000, number)) for number in range(count)]
    client = front.connect().send(*pieces_of(b"".join(requests), piece))
    assert len(client.connection.exchanges) == MAX_PIPELINED + 1
    assert not client.connection.reading
    front.echo()
    assert bodies(client) == [large(140_000, number) for number in range(count)]


def test_the_client_is_told_to_send_a_body_that_it_holds_back(front):
    data = post(large(), "Expect: 100-continue")
    head = data[: -len(large())]
    client = front.connect().send(head)
    assert client.wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    front.pass_time(front.server.settings.body_timeout_s / 2)
    client.send(large())
    front.echo()
    assert [response.status for response in client.responses()] == [100, 200]


def test_it_is_told_so_when_the_answers_before_are_written(front):
    data = post(large(), "Expect: 100-continue")
    client = front.connect().send(post(b"1") + data[: -len(large())])
    assert client.wire.sent == b""
    front.echo()
    client.send(large())
    front.echo()
    assert [(response.status, response.body) for response in client.responses()] == [
        (200, b"1"),
        (100, b""),
        (200, large()),
    ]


def test_a_client_that_goes_away_takes_its_body_along(front, arena):
    client = front.connect().send(post(large())[:100_000])
    assert not free(arena)
    client.leave()
    assert free(arena)


def test_what_a_scorer_has_stays_where_it_is_until_its_reply(front, arena):
    client = front.connect().send(post(large()))
    client.leave()
    assert not free(arena)
    (exchange,) = front.taken
    assert bytes(exchange.body) == large()
    front.reply(exchange)
    del exchange
    assert free(arena)


def test_what_waits_in_the_line_goes_at_once_when_its_client_does(front, arena):
    front.connect().send(post(b"1"))
    client = front.connect().send(post(large()))
    assert not free(arena)
    client.leave()
    assert free(arena)
    front.echo()


def test_a_scorer_that_ends_gives_its_body_to_the_next(front, arena):
    client = front.connect().send(post(large()))
    front.lose(front.scorers[0], begun=0)
    front.echo()
    assert bodies(client) == [large()]
    client.send(post(large()))
    front.lose(front.scorers[0], begun=1)
    assert client.responses()[1].status == 500
    assert free(arena)


@pytest.mark.parametrize("ended", ["whole", "broken", "gone", "lost"])
def test_a_reply_in_pieces_holds_the_body_until_its_end(front, arena, ended):
    client = front.connect().send(post(large()))
    (exchange,) = front.taken
    front.piece(exchange, b"piece", frames.FLAG_MORE)
    assert not free(arena)
    (scorer,) = front.scorers
    if ended == "lost":
        front.lose(scorer, begun=1)
    else:
        if ended == "gone":
            client.leave()
            assert not free(arena)
        (number,) = scorer.in_flight
        del scorer.in_flight[number]
        flags = frames.FLAG_ABORT if ended == "broken" else 0
        front.server.scoring.streamed(scorer, exchange, (number, 200, flags, 0, b"", b""))
        front.loop.run()
    del exchange
    assert free(arena)


def test_a_slow_body_is_cut_off_and_what_comes_of_it_is_not_kept(front, arena):
    client = front.connect().send(post(large())[:100_000])
    allowed_s = front.server.settings.body_timeout_s + 100_000 / LEAST_BYTES_PER_S
    front.pass_time(allowed_s - 1.0)
    assert client.wire.sent == b""
    front.pass_time(2.0)
    assert client.response().status == 408
    assert free(arena)
    client.send(large())
    assert client.wire.protocol is client.connection
    front.pass_time(LINGER_S + 1.0)
    assert client.wire.closed


def test_what_arrives_is_progress(front):
    client = front.connect()
    data = post(large(1_000_000))
    client.send(data[:9000])
    for piece in pieces_of(data[9000:], 100_000):
        front.pass_time(front.server.settings.body_timeout_s * 0.8)
        client.send(piece)
    front.echo()
    assert bodies(client) == [large(1_000_000)]


def test_a_length_over_the_limit_takes_nothing(make_front, arena):
    front = make_front(arena=arena, max_body_bytes=150_000)
    assert front.ask(post(large(150_001))).response().status == 413
    assert front.ask(post(large(150_000))).response().body == large(150_000)


def test_who_has_no_key_takes_nothing(make_front, arena, tmp_path):
    path = tmp_path / "keys"
    path.write_text("somebody sha256:" + "0" * 64 + "\n")
    front = make_front(arena=arena, key_file=KeyFile(path))
    client = front.connect().send(post(large())[:140_000])
    assert client.response().status == 401
    assert free(arena)


def test_bodies_in_chunks_stay_on_the_heap(front):
    data = post(b"", "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (200_000, large())
    client = front.connect().send(data)
    assert type(front.taken[0].body) is bytes
    front.echo()
    assert bodies(client) == [large()]


def test_when_there_is_no_room_a_body_comes_the_other_way(front, arena):
    everything = arena.take(SIZE_BYTES)
    client = front.connect().send(post(large()))
    assert type(front.taken[0].body) is bytes
    front.echo()
    assert bodies(client) == [large()]
    del everything


def test_an_offer_to_upgrade_changes_nothing(front):
    client = front.connect().send(post(large(), "Connection: upgrade", "Upgrade: h2c"))
    front.echo()
    client.send(post(b"next"))
    front.echo()
    assert bodies(client) == [large(), b"next"]


@pytest.mark.parametrize("lines", [{"version": "1.0"}, {}])
def test_nothing_is_read_behind_the_last_request(front, lines):
    data = post(large(), *([] if lines else ["Connection: close"]), **lines)
    client = front.connect().send(*pieces_of(data + post(b"behind"), 150_000))
    assert len(front.taken) == 1
    front.echo()
    (response,) = client.responses()
    assert (response.body, response.headers["connection"]) == (large(), "close")
    assert not client.open


def test_a_refusal_behind_a_large_body_waits_for_its_turn(front):
    client = front.connect().send(post(large()) + b"nonsense\r\n\r\n")
    front.echo()
    first, second = client.responses()
    assert (first.body, second.status) == (large(), 400)
    assert "not valid HTTP" in message(second)


def test_a_stalled_answer_holds_the_body_up_and_lets_it_go_on(front):
    client = front.connect().send(post(b"1") + post(large())[:100_000])
    client.wire.backlog_bytes = 1
    client.wire.protocol.pause_writing()
    assert not client.connection.reading
    client.wire.arriving.append(post(large())[100_000:])
    client.wire.deliver()
    client.wire.backlog_bytes = 0
    client.wire.protocol.resume_writing()
    front.loop.run()
    front.echo()
    assert bodies(client) == [b"1", large()]


def test_the_drain_waits_for_it(front):
    client = front.connect().send(post(large())[:100_000])
    front.server.closing = True
    client.connection.close_when_idle()
    assert client.connection.under_way
    client.send(post(large())[100_000:])
    front.echo()
    response = client.response()
    assert (response.body, response.headers["connection"]) == (large(), "close")
    assert not client.open


def test_the_control_plane_answers_what_has_a_large_body(front):
    client = front.connect().send(post(large(), target="/"))
    assert client.response().status == 405
    client.send(post(b"next"))
    front.echo()
    assert client.responses()[1].body == b"next"
