"""The frames byte for byte, and for any bytes."""

import itertools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring_runtime.scorer import frames
from scoring_runtime.scorer.frames import (
    CANCEL,
    FATAL,
    FLAG_MORE,
    FLAG_RUN_RETURNED,
    HELLO,
    LEAST_SHARED_BYTES,
    PULL,
    READY,
    RECALL,
    REPLIES,
    REQUESTS,
    RETURNED,
    SHARING,
    Decoder,
    Frame,
    FrameError,
    Reply,
    Request,
    SharedBody,
    decode_control,
    decode_json,
    decode_replies,
    decode_requests,
    decode_returned,
    encode_control,
    encode_json,
    encode_replies,
    encode_requests,
    encode_returned,
)

GOLDEN_HELLO = (
    b"SR\x01\x01" b"\0\0\0\0" b"\0\0\0\0" b"\x13\0\0\0\0\0\0\0"
    b'{"name": "m\\u00e9"}'
)  # fmt: skip

GOLDEN_REQUESTS = (
    b"SR\x01\x04" b"\x02\0\0\0" b"\0\0\0\0" b"\x45\0\0\0\0\0\0\0"
    b"\x07\0\0\0\0\0\0\0" b"\x08\0\0\0\0\0\0\x80"  # ids
    b"\0\0\0\0" b"\xe8\x03\0\0"  # timeouts
    b"\0\0\0\0" b"\x0b\0\0\0"  # sizes of heads
    b"\x04\0\0\0" b"\x06\0\0\0"  # sizes of bodies
    b"\x01\0" b"\x01\0"  # routes
    b"\x02\0" b"\x01\0"  # methods
    b"/score\na: b"
    b"[42]"
    b"\x00\xff\r\n\r\n"
)  # fmt: skip

GOLDEN_REPLIES = (
    b"SR\x01\x05" b"\x02\0\0\0" b"\x15\xcd\x5b\x07" b"\x3e\0\0\0\0\0\0\0"
    b"\x08\0\0\0\0\0\0\x80" b"\x07\0\0\0\0\0\0\0"  # ids
    b"\x2c\x01\0\0" b"\xff\xff\xff\xff"  # run times
    b"\x0c\0\0\0" b"\0\0\0\0"  # sizes of heads
    b"\0\0\0\0" b"\x02\0\0\0"  # sizes of bodies
    b"\x94\x01" b"\xc8\0"  # statuses
    b"\0\0" b"\x0a\0"  # flags
    b"retry-after:"
    b"{}"
)  # fmt: skip

GOLDEN_PULL = b"SR\x01\x06" b"\0\0\0\0" b"\0\0\0\0" b"\x08\0\0\0\0\0\0\0" b"\x02\x01\0\0\0\0\0\0"  # fmt: skip

THE_REQUESTS = [
    Request(7, 0, 1, 2, b"", b"[42]"),
    Request(8 + (128 << 56), 1000, 1, 1, b"/score\na: b", b"\x00\xff\r\n\r\n"),
]
THE_REPLIES = [
    Reply(8 + (128 << 56), 404, 0, 300, b"retry-after:", b""),
    Reply(7, 200, FLAG_RUN_RETURNED | FLAG_MORE, (1 << 32) - 1, b"", b"{}"),
]


# Byte for byte


def test_hello_byte_for_byte():
    assert encode_json(HELLO, {"name": "mé"}) == GOLDEN_HELLO
    (frame,) = Decoder().feed(GOLDEN_HELLO)
    assert (frame.kind, frame.count, frame.busy_us, decode_json(frame)) == (HELLO, 0, 0, {"name": "mé"})


def test_requests_byte_for_byte():
    assert b"".join(encode_requests(THE_REQUESTS)) == GOLDEN_REQUESTS
    (frame,) = Decoder().feed(GOLDEN_REQUESTS)
    assert (frame.kind, frame.count, frame.busy_us) == (REQUESTS, 2, 0)
    assert decode_requests(frame) == THE_REQUESTS


def test_replies_byte_for_byte():
    assert b"".join(encode_replies(THE_REPLIES, 123456789)) == GOLDEN_REPLIES
    (frame,) = Decoder().feed(GOLDEN_REPLIES)
    assert (frame.kind, frame.count, frame.busy_us) == (REPLIES, 2, 123456789)
    assert decode_replies(frame) == THE_REPLIES


def test_pull_byte_for_byte():
    assert encode_control(PULL, 258) == GOLDEN_PULL
    (frame,) = Decoder().feed(GOLDEN_PULL)
    assert (frame.kind, decode_control(frame)) == (PULL, 258)


def test_returned_byte_for_byte():
    golden = b"SR\x01\x09" b"\x02\0\0\0" + bytes(4) + b"\x10\0\0\0\0\0\0\0" b"\x02\x01\0\0\0\0\0\0" b"\x03" + bytes(7)  # fmt: skip
    assert encode_returned([258, 3]) == golden
    (frame,) = Decoder().feed(golden)
    assert (frame.kind, decode_returned(frame)) == (RETURNED, [258, 3])


def test_the_numbers_of_the_protocol_stay_what_they_are():
    assert (HELLO, READY, FATAL, REQUESTS, REPLIES, PULL, CANCEL) == (1, 2, 3, 4, 5, 6, 7)
    assert (RECALL, RETURNED) == (8, 9)
    assert frames.METHODS == {"GET": 1, "POST": 2, "OPTIONS": 3, "HEAD": 4, "PUT": 5, "DELETE": 6, "PATCH": 7}
    assert (
        frames.ROUTE_SCORE,
        frames.FLAG_RUN_FAILED,
        frames.FLAG_RUN_RETURNED,
        frames.FLAG_NO_FAILED_HEADER,
        frames.FLAG_MORE,
        frames.FLAG_ABORT,
    ) == (1, 1, 2, 4, 8, 16)


def test_a_busy_time_beyond_the_field_is_the_most_that_it_holds():
    (frame,) = Decoder().feed(b"".join(encode_replies([Reply(1, 200, 0, 0, b"", b"")], 1 << 40)))
    assert frame.busy_us == (1 << 32) - 1


# There and back, however the stream is cut

u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
heads = st.binary(max_size=20)
bodies = st.binary(max_size=50)
request_lists = st.lists(st.builds(Request, u64, u32, u16, u16, heads, bodies), min_size=1, max_size=5)
reply_lists = st.lists(st.builds(Reply, u64, u16, u16, u32, heads, bodies), min_size=1, max_size=5)
json_objects = st.dictionaries(
    st.text(max_size=5), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5)
)

encoded_frames = st.one_of(
    request_lists.map(lambda requests: b"".join(encode_requests(requests))),
    st.builds(lambda replies, busy_us: b"".join(encode_replies(replies, busy_us)), reply_lists, u32),
    st.builds(encode_json, st.sampled_from([HELLO, READY, FATAL]), json_objects),
    st.builds(encode_control, st.sampled_from([PULL, CANCEL, RECALL]), u64),
    st.builds(encode_returned, st.lists(u64, max_size=5)),
)


def feed_cut(decoder: Decoder, stream: bytes, cuts: list[int]) -> list[Frame]:
    """Feed the stream in pieces that end at `cuts`."""
    got: list[Frame] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, end in itertools.pairwise(edges):
        got += decoder.feed(stream[begin:end])
    return got


def content(got: list[Frame]) -> list[tuple[int, int, int, bytes]]:
    return [(frame.kind, frame.count, frame.busy_us, bytes(frame.payload)) for frame in got]


@settings(deadline=None)
@given(request_lists)
def test_requests_come_back_as_they_went(requests):
    (frame,) = Decoder().feed(b"".join(encode_requests(requests)))
    assert decode_requests(frame) == requests


@settings(deadline=None)
@given(reply_lists, u32)
def test_replies_come_back_as_they_went(replies, busy_us):
    (frame,) = Decoder().feed(b"".join(encode_replies(replies, busy_us)))
    assert frame.busy_us == busy_us
    assert decode_replies(frame) == replies


@settings(deadline=None)
@given(json_objects)
def test_json_comes_back_as_it_went(message):
    (frame,) = Decoder().feed(encode_json(READY, message))
    assert decode_json(frame) == message


@settings(deadline=None, max_examples=200)
@given(st.lists(encoded_frames, max_size=6), st.lists(st.integers(0, 2000), max_size=12))
def test_a_stream_gives_the_same_frames_however_it_is_cut(encoded, cuts):
    stream = b"".join(encoded)
    whole = content(Decoder().feed(stream))
    assert len(whole) == len(encoded)
    assert content(feed_cut(Decoder(), stream, cuts)) == whole


def test_a_stream_gives_the_same_frames_byte_by_byte():
    stream = GOLDEN_HELLO + GOLDEN_REQUESTS + GOLDEN_PULL + GOLDEN_REPLIES
    assert content(feed_cut(Decoder(), stream, list(range(len(stream))))) == content(Decoder().feed(stream))


def test_large_bodies_are_views_of_the_payload_and_small_ones_copies():
    large = b"x" * (frames.COPY_BELOW_BYTES + 1)
    for body, kind in ((b"x", bytes), (large, memoryview)):
        (frame,) = Decoder().feed(b"".join(encode_requests([Request(1, 0, 1, 2, b"", body)])))
        (request,) = decode_requests(frame)
        assert type(request.body) is kind
        assert request.body == body


def test_what_is_encoded_is_the_callers_own_object():
    body = memoryview(b"x" * 100)
    assert encode_requests([Request(1, 0, 1, 2, b"head", body)])[-1] is body


# Garbage


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(  # a good header before garbage gets further
            lambda kind, count, payload, more: (
                frames.HEADER.pack(b"SR", 1, kind, count, 0, len(payload)) + payload + more
            ),
            st.integers(1, 7),
            st.integers(0, 3),
            st.binary(max_size=100),
            st.binary(max_size=30),
        ),
        st.builds(  # one wrong byte in a good stream
            lambda frame, at, byte: frame[: at % len(frame)] + bytes([byte]) + frame[at % len(frame) + 1 :],
            encoded_frames,
            st.integers(0, 500),
            st.integers(0, 255),
        ),
    ),
    st.lists(st.integers(0, 200), max_size=4),
)
@example(encode_json(READY, {})[:-2] + b"[]", [])
def test_garbage_gives_frames_or_a_frame_error_and_nothing_else(data, cuts):
    try:
        for frame in feed_cut(Decoder(max_payload_bytes=1 << 16), data, cuts):
            decode: dict[int, Any] = {REQUESTS: decode_requests, SHARING: decode_requests}
            decode |= {REPLIES: decode_replies, PULL: decode_control, CANCEL: decode_control}
            decode |= {RECALL: decode_control, RETURNED: decode_returned}
            decode.get(frame.kind, decode_json)(frame)
    except FrameError:
        pass


@pytest.mark.parametrize(
    "payload",
    [b"", b"no json", b"[1]", b'"text"', b"null", b"\xff{}", b'{"a": 1} x', b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda payload: repr(payload[:10]),
)
def test_json_that_is_no_object_is_a_frame_error(payload):
    with pytest.raises(FrameError, match="frame of kind 2 holds"):
        decode_json(Frame(READY, 0, 0, payload))


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        (b"HT" + GOLDEN_PULL[2:], "out of step"),
        (b"SR\x02" + GOLDEN_PULL[3:], "frame version 2; this side speaks version 1"),
        (b"SR\x01\x00" + GOLDEN_PULL[4:], "unknown frame kind 0"),
        (b"SR\x01\x0c" + GOLDEN_PULL[4:], "unknown frame kind 12"),
    ],
)
def test_a_header_that_is_none_says_why(header, cause):
    with pytest.raises(FrameError, match=cause):
        Decoder().feed(header)


@pytest.mark.parametrize(
    ("sizes", "cause"),
    [
        ([24 - 1], "only 23 bytes"),
        ([24 + 0], "describe 28 bytes, the payload holds 24"),
        ([24 + 3], "describe 28 bytes, the payload holds 27"),
        ([24 + 5], "describe 28 bytes, the payload holds 29"),
    ],
)
def test_a_table_that_does_not_fill_the_payload_is_a_frame_error(sizes, cause):
    table = b"\x01\0\0\0\0\0\0\0" b"\0\0\0\0" b"\0\0\0\0" b"\x04\0\0\0" b"\x01\0" b"\x02\0" b"{} \n"  # fmt: skip
    payload = (table + b"!")[: sizes[0]]
    for decode in (decode_requests, decode_replies):
        with pytest.raises(FrameError, match=cause):
            decode(Frame(REQUESTS, 1, 0, payload))


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_control_frame_holds_one_id(size):
    with pytest.raises(FrameError, match=f"holds {size} bytes, not one id"):
        decode_control(Frame(PULL, 0, 0, b"x" * size))


@pytest.mark.parametrize("size", [0, 8, 15, 24])
def test_a_returned_frame_holds_as_many_ids_as_it_says(size):
    with pytest.raises(FrameError, match=f"frame of 2 ids holds {size} bytes"):
        decode_returned(Frame(RETURNED, 2, 0, b"x" * size))


# Limits


@pytest.mark.parametrize(
    ("count", "payload_bytes"),
    [(0, frames.MAX_PAYLOAD_BYTES + 1), (0, (1 << 64) - 1), (frames.MAX_COUNT + 1, 0), ((1 << 32) - 1, 24)],
)
def test_an_announced_size_over_the_cap_is_refused_before_anything_is_allocated(count, payload_bytes):
    header = frames.HEADER.pack(b"SR", 1, REQUESTS, count, 0, payload_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="over the limit"):
            Decoder().feed(header)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_cap_is_the_readers_to_choose():
    frame = encode_json(READY, {"a": 1})
    size = len(frame) - frames.HEADER.size
    assert len(Decoder(max_payload_bytes=size).feed(frame)) == 1
    with pytest.raises(FrameError, match="over the limit"):
        Decoder(max_payload_bytes=size - 1).feed(frame)


class Sized(bytes):
    """Bytes that say that they are many."""

    def __len__(self) -> int:
        return frames.MAX_PAYLOAD_BYTES


def test_what_no_frame_can_hold_is_not_encoded():
    with pytest.raises(FrameError, match="over the limit"):
        encode_requests([Request(1, 0, 1, 2, b"", Sized())])
    with pytest.raises(FrameError, match="65537 entries"):
        encode_replies([Reply(1, 200, 0, 0, b"", b"")] * (frames.MAX_COUNT + 1), 0)


def test_a_hello_is_plain_json_that_anything_can_read():
    assert json.loads(GOLDEN_HELLO[frames.HEADER.size :]) == {"name": "mé"}


def test_what_is_announced_is_not_allocated():
    head = frames.HEADER.pack(frames.MAGIC, frames.VERSION, frames.REPLIES, 1, 0, frames.MAX_PAYLOAD_BYTES)
    tracemalloc.start()
    try:
        assert frames.Decoder().feed(head + b"x" * 1000) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [frames.HELLO, frames.READY, frames.FATAL])
def test_json_has_a_lower_limit(kind):
    head = frames.HEADER.pack(frames.MAGIC, frames.VERSION, kind, 0, 0, frames.MAX_JSON_BYTES + 1)
    with pytest.raises(frames.FrameError, match="over the limit"):
        frames.Decoder().feed(head)
    with pytest.raises(frames.FrameError, match="over the limit of 8388608"):
        frames.encode_json(kind, {"text": "x" * frames.MAX_JSON_BYTES})


# Bodies that do not travel

MEMORY = bytes(range(256)) * 4096


def look_up(offset: int, size: int) -> memoryview:
    if offset + size > len(MEMORY):
        raise FrameError("outside")
    return memoryview(MEMORY)[offset : offset + size]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.tuples(st.integers(0, 200_000), st.integers(LEAST_SHARED_BYTES, 500_000)),
        ),
        min_size=1,
        max_size=20,
    ),
    st.lists(st.integers(0, 2000), max_size=4),
)
def test_a_body_in_shared_memory_goes_by_where_it_is(bodies, cuts):
    given = [body if isinstance(body, bytes) else SharedBody(*body) for body in bodies]
    pieces = encode_requests([(number, 0, 1, 2, b"/score", body) for number, body in enumerate(given, 1)])
    assert sum(map(len, pieces)) < 20 * 400
    (frame,) = feed_cut(Decoder(), b"".join(pieces), cuts)
    shared = any(isinstance(body, SharedBody) for body in given)
    assert frame.kind == (SHARING if shared else REQUESTS)
    requests = decode_requests(frame, look_up)
    assert [bytes(request.body) for request in requests] == [
        body if isinstance(body, bytes) else MEMORY[body[0] : body[0] + body[1]] for body in bodies
    ]
    assert {(request.route, request.method, request.head) for request in requests} == {(1, 2, b"/score")}
    if shared:
        with pytest.raises(FrameError, match="cannot be found"):
            decode_requests(frame)


def test_the_reference_on_the_wire():
    data = b"".join(encode_requests([(7, 0, 1, 2, b"", SharedBody(4096, 200000))]))
    assert data[:20] == b"SR\x01\x0a\x01\0\0\0\0\0\0\0\x28\0\0\0\0\0\0\0"
    assert data[20 + 16 : 20 + 24] == b"\x10\0\0\0\x01\x80\x02\0"
    assert data[20 + 24 :] == b"\0\x10\0\0\0\0\0\0\x40\x0d\x03\0\0\0\0\0"


def test_a_reference_that_is_none_is_refused():
    table = b"".join(encode_requests([(7, 0, 1 | frames.SHARED, 2, b"", b"x" * 15)]))
    (frame,) = Decoder().feed(table)
    with pytest.raises(FrameError, match="15 bytes"):
        decode_requests(frame._replace(kind=SHARING), look_up)
    (frame,) = Decoder().feed(b"".join(encode_requests([(7, 0, 1, 2, b"", SharedBody(len(MEMORY), 200000))])))
    with pytest.raises(FrameError, match="outside"):
        decode_requests(frame, look_up)
