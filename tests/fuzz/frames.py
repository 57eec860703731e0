"""scorer/frames.py: any bytes, cut anywhere, into a decoder.

- What comes out is what a plain reader of the format finds, or FrameError; however the stream is cut.
- A table that can be read is written back byte for byte.
- What is kept is less than a header, and what a header within the cap announced.
"""

import struct
from typing import Any

from scoring_runtime.scorer import frames
from scoring_runtime.scorer.frames import Decoder, Frame, FrameError

from .draw import Draw, cut

CAP_BYTES = 4096
TABLES: dict[int, Any] = {frames.REQUESTS: frames.decode_requests, frames.REPLIES: frames.decode_replies}
TOKENS = (b"SR\x01\x04", b"SR\x01\x05", b"SR\x01\x02", b"SR\x01\x06", b"\0\0\0\0\0\0\0\0", b"\xff\xff\xff\xff")


def seed(stream: bytes, *cuts: int) -> bytes:
    """An input for `check`."""
    return bytes([len(cuts)]) + b"".join(at.to_bytes(2, "little") for at in cuts) + stream


_REQUESTS = b"".join(frames.encode_requests([(1, 0, 1, 2, b"", b"[1]"), (2, 9, 1, 1, b"/score\na: b", b"")]))
_REPLIES = b"".join(frames.encode_replies([(1, 200, 2, 7, b"", b"{}"), (2, 404, 0, 0, b"a:b", b"x" * 30)], 99))
SEEDS = (
    seed(_REQUESTS + _REPLIES),
    seed(
        _REPLIES + frames.encode_control(frames.PULL, 1) + frames.encode_json(frames.READY, {"headers": "none"}), 5, 40
    ),
    seed(frames.encode_json(frames.FATAL, {"message": "é"}) + _REQUESTS, 1, 19, 20, 21),
    seed(frames.HEADER.pack(b"SR", 1, frames.REQUESTS, 3, 0, 72) + b"\xff" * 72),
    seed(frames.HEADER.pack(b"SR", 1, frames.REPLIES, 0, 0, 0)),
    seed(frames.HEADER.pack(b"SR", 1, frames.REPLIES, 1, 0, 29) + b"\0" * 29),
    seed(frames.HEADER.pack(b"SR", 1, frames.REPLIES, 65536, 0, 1 << 40)),
)


def check(data: bytes) -> None:
    draw = Draw(data)
    cuts = draw.cuts()
    stream = draw.rest()
    expected, rest = read_plainly(stream)
    found: list[tuple[int, int, int, bytes]] = []
    refused = False
    decoder = Decoder(CAP_BYTES)
    for piece in cut(stream, cuts):
        try:
            for frame in decoder.feed(piece):
                found.append((*frame[:3], bytes(frame.payload)))
                check_payload(frame)
        except FrameError:
            refused = True
            break
        assert len(decoder._pending) < frames.HEADER.size
        assert decoder._payload is None or len(decoder._payload) <= CAP_BYTES
    assert refused == (rest is None)
    # The frames before what is none are lost with it when they came in one piece.
    assert found == expected if not refused else found == expected[: len(found)]


def read_plainly(stream: bytes) -> tuple[list[tuple[int, int, int, bytes]], bytes | None]:
    """The frames of a stream, and the unfinished rest: None when what follows is no frame."""
    found: list[tuple[int, int, int, bytes]] = []
    while len(stream) >= 20:
        if stream[:3] != b"SR\x01" or not 1 <= stream[3] <= 7:
            return found, None
        count, busy_us = (int.from_bytes(stream[at : at + 4], "little") for at in (4, 8))
        size = int.from_bytes(stream[12:20], "little")
        if count > 65536 or size > CAP_BYTES:
            return found, None
        if len(stream) < 20 + size:
            return found, stream
        found.append((stream[3], count, busy_us, stream[20 : 20 + size]))
        stream = stream[20 + size :]
    return found, stream


def check_payload(frame: Frame) -> None:
    payload = bytes(frame.payload)
    if frame.kind not in TABLES:
        try:
            if frame.kind in (frames.PULL, frames.CANCEL):
                assert frames.encode_control(frame.kind, frames.decode_control(frame))[20:] == payload
            else:
                message = frames.decode_json(frame)
                assert frames.decode_json(Decoder().feed(frames.encode_json(frame.kind, message))[0]) == message
        except FrameError:
            pass
        return
    expected = read_table(frame.count, payload)
    try:
        entries = TABLES[frame.kind](frame)
    except FrameError:
        assert expected is None, "a table that is one was refused"
        return
    assert expected is not None, "a table that is none was read"
    replies = frame.kind == frames.REPLIES
    assert [tuple(entry) for entry in entries] == [
        (number, left, right, time, head, body) if replies else (number, time, left, right, head, body)
        for number, time, left, right, head, body in expected
    ]
    if entries:
        pieces = frames.encode_replies(entries, frame.busy_us) if replies else frames.encode_requests(entries)
        assert b"".join(pieces)[20:] == payload


def read_table(count: int, payload: bytes) -> list[tuple[int, int, int, int, bytes, bytes]] | None:
    """The rows of a table, read one by one; None when it does not fill the payload exactly."""
    if count * 24 > len(payload):
        return None
    rows = []
    head_at = count * 24
    sizes = [struct.unpack_from("<I", payload, count * 12 + 4 * row)[0] for row in range(count)]
    body_at = head_at + sum(sizes)
    for row in range(count):
        (number,) = struct.unpack_from("<Q", payload, 8 * row)
        (time,) = struct.unpack_from("<I", payload, count * 8 + 4 * row)
        (body_bytes,) = struct.unpack_from("<I", payload, count * 16 + 4 * row)
        left, right = (struct.unpack_from("<H", payload, count * at + 2 * row)[0] for at in (20, 22))
        head, body = payload[head_at : head_at + sizes[row]], payload[body_at : body_at + body_bytes]
        rows.append((number, time, left, right, head, body))
        head_at += sizes[row]
        body_at += body_bytes
    return rows if body_at == len(payload) else None
