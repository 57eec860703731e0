"""What two readers could understand differently is refused, and nothing behind it is read."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .smuggling import NEXT, REFUSED, TAKEN, chunks

ALL = {name: data for name, (data, _) in (REFUSED | TAKEN).items()}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_behind_it_is_read(front, name):
    data, status = REFUSED[name]
    client = front.ask(data + NEXT)
    assert client.response().status == status
    assert not client.open
    assert front.server.metrics.batch_size.counts == [0] * 10
    assert front.server.known_heads == {}


@pytest.mark.parametrize("name", TAKEN)
def test_what_means_one_thing_is_served(front, name):
    data, body = TAKEN[name]
    assert [response.body for response in front.ask(data + NEXT).responses()] == [body, b"next"]


@pytest.mark.parametrize("name", ALL)
def test_it_is_answered_alike_when_it_comes_byte_by_byte(make_front, name):
    data = ALL[name] + NEXT
    whole, split = make_front().ask(data), make_front().ask(*(data[at : at + 1] for at in range(len(data))))
    assert [(response.status, response.body) for response in split.responses()] == [
        (response.status, response.body) for response in whole.responses()
    ]
    assert split.open == whole.open


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([NEXT, *ALL.values()]), min_size=1, max_size=6),
    st.lists(st.sampled_from([*ALL.values()]), max_size=3),
    st.lists(st.integers(0, 5000), max_size=5),
    st.booleans(),
)
def test_what_is_known_of_heads_hides_nothing(make_front, messages, before, cuts, at_once):
    """A server that has seen such heads, and one that never does, take the same bytes for the same requests."""
    knowing, forgetful = make_front(), make_front()
    for data in (NEXT, *before):
        knowing.ask(data)
    stream = b"".join(messages)
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(edges)] if cuts else messages
    seen = []
    for front in (knowing, forgetful):
        client = front.connect()
        for piece in pieces:
            if front is forgetful:
                front.server.known_heads.clear()
            client.send(piece)
            if at_once:
                front.echo()
        front.echo()
        seen.append(([(response.status, response.body) for response in client.responses()], client.open))
    assert seen[0] == seen[1]


# Bounds of what is neither head nor body


@pytest.mark.parametrize("size", [100, 10_000])
def test_chunk_extensions_without_end_are_refused(make_front, size):
    front = make_front(max_head_bytes=2000, max_target_bytes=100)
    client = front.connect().send(chunks(b"1;"))
    sent = 0
    while not client.wire.sent and sent < 50_000:
        client.send(b"x" * size)
        sent += size
    assert client.response().status == 431
    assert sent <= 2200 + size


def test_chunk_extensions_in_every_chunk_are_refused(make_front):
    front = make_front(max_head_bytes=2000, max_target_bytes=100)
    client = front.connect().send(chunks(b""))
    sent = 0
    while not client.wire.sent and sent < 200:
        client.send(b"1;" + b"x" * 100 + b"\r\ny\r\n")
        sent += 1
    assert client.response().status == 431
    assert sent <= 30


def test_trailers_without_end_are_refused(make_front):
    front = make_front(max_head_bytes=2000, max_target_bytes=100)
    client = front.connect().send(chunks(b"5\r\nhello\r\n0\r\n"))
    sent = 0
    while not client.wire.sent and sent < 1000:
        client.send(b"X-%d: y\r\n" % sent)
        sent += 1
    assert client.response().status == 431
    assert sent <= 300
    assert front.taken == []
