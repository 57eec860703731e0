"""The frames that the front and a scorer exchange over one stream socket.

Every frame is a header and a payload. All integers are little-endian and unsigned.

    offset 0        2         3      4           8             12            20
           +--------+---------+------+-----------+-------------+-------------+
           | magic  | version | kind | count u32 | busy_us u32 | bytes u64   |  payload ...
           | b"SR"  | 1       | u8   |           |             | of payload  |
           +--------+---------+------+-----------+-------------+-------------+

`count` is the number of entries in the payload (0 for JSON payloads). `busy_us` is how long the scorer worked since it
read the frame that it answers, or since it settled the one before where that was later, in microseconds (0 in frames that
the front sends).

The payload of HELLO, READY and FATAL is one JSON object in UTF-8. The payload of PULL, CANCEL, RECALL and STOP is one id
(u64), that of RETURNED `count` ids. The payload of REQUESTS, SHARING and REPLIES is a table of `count` entries, column by column, then all heads, then all bodies, in the
order of the entries:

    requests    id u64 * count | timeout_ms u32 * count | head_bytes u32 * count | body_bytes u32 * count
                | route u16 * count | method u16 * count | heads ... | bodies ...
    replies     id u64 * count | run_us u32 * count | head_bytes u32 * count | body_bytes u32 * count
                | status u16 * count | flags u16 * count | heads ... | bodies ...

A body that lies in the memory which front and scorers share (`arena.py`) does not travel. A frame with at least one such
request is of kind SHARING, and else as REQUESTS: where the route of an entry has the bit SHARED, its body in the frame is
a reference

    offset u64 | bytes u64

to where in that memory the body lies. It stays there until the reply has come, the last piece of it where there are several.

Columns, because one call then packs or unpacks a whole table: 0.4 us for each request and direction less than with rows.

`route` says in which form the body is: ROUTE_SCORE (1), that of /score, or ROUTE_V2 (2), that of the Open Inference
Protocol, for engines whose READY has "open_inference".

The head of a request is latin-1 text: the request target, then one `name: value` line for each header that the scorer
asked for in its READY frame ("headers", and for ROUTE_V2 those of "open_inference"), joined by LF. It is empty when the
scorer asked for none. The head of a reply is
`name: value` lines joined by LF; empty means `content-type: application/json` and nothing else.

`run_us` is the time that the request's own run took. `timeout_ms` is how long its client still waits, counted from when
the frame was read: where it is over before the request's turn has come, it need not run. 0 means for ever.

A reply may come in pieces, each alone in its frame: all but the last carry FLAG_MORE; status, head, `run_us` and the
other flags count in the first piece only; the last is empty. After each piece with FLAG_MORE the scorer waits for PULL
(send the next one) or CANCEL (nobody reads any more: it sends the last one at once). A PULL or CANCEL that comes after
the last piece is ignored.

With RECALL the front asks a scorer, which sends a reply in pieces at its client's pace, for the other requests of the frame.
The scorer strikes those that it has not begun from its list, and only then says RETURNED with their ids. A RECALL that comes
after the last piece is ignored.

A scorer whose READY has "ahead" may be sent so many frames more while it works on one. It settles frames in the order in which
they came: no reply to one goes out before all replies to the one before.

With STOP the front tells a scorer whose READY has "stops" that nobody waits for any request of the frame with this id. The
scorer ends the run of that frame if it can, runs nothing more of it, and answers its requests in any way. A STOP that comes
after the last reply to the frame is ignored, whatever runs by then.
"""

from functools import lru_cache, partial
from json import dumps, loads
from struct import Struct
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

MAGIC = b"SR"
VERSION = 1

HELLO, READY, FATAL, REQUESTS, REPLIES, PULL, CANCEL, RECALL, RETURNED, SHARING, STOP = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
)
KINDS = frozenset((HELLO, READY, FATAL, REQUESTS, REPLIES, PULL, CANCEL, RECALL, RETURNED, SHARING, STOP))
_JSON_KINDS = frozenset((HELLO, READY, FATAL))

ROUTE_SCORE, ROUTE_V2 = 1, 2
SHARED = 1 << 15
"""A bit of the route: the body is a reference."""

METHODS = {"GET": 1, "POST": 2, "OPTIONS": 3, "HEAD": 4, "PUT": 5, "DELETE": 6, "PATCH": 7}
METHOD_NAMES = {number: name for name, number in METHODS.items()}

FLAG_RUN_FAILED = 1
"""The user's run() raised, or did not finish: the front says so in a header, and says that it did not otherwise."""
FLAG_RUN_RETURNED = 2
"""The user's run() returned: the front tells the client how long it took (`run_us`)."""
FLAG_NO_FAILED_HEADER = 4
"""The front says nothing about a failed run: the head of the reply says what is to be said."""
FLAG_MORE = 8
"""More pieces of this reply follow."""
FLAG_EXPIRED = 32
"""The request did not run: its time was over before its turn came."""
FLAG_ABORT = 16
"""The reply broke off: the front aborts the connection, so that the client does not take what it has for the whole."""

HEADER = Struct("<2sBBIIQ")
ENTRY_BYTES = 24
CONTROL = Struct("<Q")

PACKET = Struct("<Bqq")
"""What goes over the control socket of a preload process (`scorer/nursery.py`): kind, pid, code.

To fork, kind FORK; the answer has the pid of the fork, or 0 and in code the errno. To reap, kind REAP with the pid; the
answer has the return code, as subprocess has it, or UNKNOWN_EXIT.
"""
FORK, REAP = 1, 2
UNKNOWN_EXIT = 1 << 16

MAX_COUNT = 65536
MAX_PAYLOAD_BYTES = 1 << 31
MAX_JSON_BYTES = 1 << 23
"""Of HELLO, READY and FATAL: they are read on the event loop, in one go."""
MAX_U32 = (1 << 32) - 1
COPY_BELOW_BYTES = 65536

LEAST_SHARED_BYTES = 1 << 17
"""Smaller bodies are never shared. One of 66 kB costs 0.31 ms of CPU when it is and 0.28 when not, one of 250 kB 0.46 and 0.58."""

Blob = Union[bytes, bytearray, memoryview]
_REFERENCE = Struct("<QQ")


class FrameError(Exception):
    """The peer sent bytes that are no frame of ours. The channel is of no more use."""


class SharedBody:
    """A body in the memory that front and scorers share, for the front: `size` bytes from `offset` on."""

    __slots__ = ("offset", "size")

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size

    def __len__(self) -> int:
        return self.size


class Frame(NamedTuple):
    """One frame as it came in."""

    kind: int
    count: int  # type: ignore[assignment]  # not tuple.count
    busy_us: int
    payload: Blob


class Request(NamedTuple):
    """One request as the front sends it. Field meanings and units: see the head of this module."""

    id: int
    timeout_ms: int
    route: int
    method: int
    head: bytes
    body: Blob


class Reply(NamedTuple):
    """One reply as the scorer sends it. Field meanings and units: see the head of this module."""

    id: int
    status: int
    flags: int
    run_us: int
    head: bytes
    body: Blob


def encode_json(kind: int, message: Dict[str, Any]) -> bytes:
    """A HELLO, READY or FATAL frame; FrameError when it is too large."""
    payload = dumps(message).encode("utf-8")
    if len(payload) > MAX_JSON_BYTES:
        raise FrameError("a message of %d bytes is over the limit of %d" % (len(payload), MAX_JSON_BYTES))
    return HEADER.pack(MAGIC, VERSION, kind, 0, 0, len(payload)) + payload


def decode_json(frame: Frame) -> Dict[str, Any]:
    """The JSON object of a HELLO, READY or FATAL frame; FrameError when it is none."""
    try:
        message = loads(str(frame.payload, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError("frame of kind %d holds no JSON: %s" % (frame.kind, error)) from None
    if not isinstance(message, dict):
        raise FrameError("frame of kind %d holds JSON that is not an object" % frame.kind)
    return message


def encode_control(kind: int, request_id: int) -> bytes:
    """A PULL, CANCEL, RECALL or STOP frame."""
    return HEADER.pack(MAGIC, VERSION, kind, 0, 0, CONTROL.size) + CONTROL.pack(request_id)


def decode_control(frame: Frame) -> int:
    """The request that a PULL, CANCEL, RECALL or STOP frame is about."""
    if len(frame.payload) != CONTROL.size:
        raise FrameError("frame of kind %d holds %d bytes, not one id" % (frame.kind, len(frame.payload)))
    return int(CONTROL.unpack(frame.payload)[0])


def encode_returned(request_ids: Sequence[int]) -> bytes:
    """A RETURNED frame."""
    payload = Struct("<%dQ" % len(request_ids)).pack(*request_ids)
    return HEADER.pack(MAGIC, VERSION, RETURNED, len(request_ids), 0, len(payload)) + payload


def decode_returned(frame: Frame) -> List[int]:
    """The ids of a RETURNED frame; FrameError when it does not hold as many as it says."""
    if len(frame.payload) != frame.count * CONTROL.size:
        raise FrameError("frame of %d ids holds %d bytes" % (frame.count, len(frame.payload)))
    return list(Struct("<%dQ" % frame.count).unpack(frame.payload))


def encode_requests(requests: Sequence[Tuple[int, int, int, int, bytes, Union[Blob, SharedBody]]]) -> List[Blob]:
    """A REQUESTS or SHARING frame, as the pieces to be written one after the other; the tuples are as Request.

    The bodies are the caller's own objects: nothing is copied. FrameError when they are too many or too much.
    """
    return encode_request_columns(*zip(*requests))


def encode_request_columns(
    ids: Sequence[int],
    timeouts_ms: Sequence[int],
    routes: Sequence[int],
    methods: Sequence[int],
    heads: Sequence[bytes],
    bodies: Sequence[Union[Blob, SharedBody]],
) -> List[Blob]:
    """The same, from what the table holds: its columns."""
    return _encode(REQUESTS, 0, ids, timeouts_ms, routes, methods, heads, bodies)


def encode_replies(replies: Sequence[Tuple[int, int, int, int, bytes, Blob]], busy_us: int) -> List[Blob]:
    """A REPLIES frame, as the pieces to be written one after the other; the tuples are as Reply."""
    ids, statuses, flags, runs_us, heads, bodies = zip(*replies)
    return _encode(REPLIES, min(busy_us, MAX_U32), ids, runs_us, statuses, flags, heads, bodies)


def encode_alike(ids: Sequence[int], bodies: Sequence[Blob], run_us: int, busy_us: int) -> List[Blob]:
    """A REPLIES frame of requests that ran together: all with status 200, and nothing else to say."""
    count = len(ids)
    zeros = [0] * count
    runs_us = [min(run_us, MAX_U32)] * count
    return _encode(REPLIES, min(busy_us, MAX_U32), ids, runs_us, [200] * count, zeros, (), bodies)


def decode_requests(frame: Frame, find: Optional[Callable[[int, int], memoryview]] = None) -> List[Request]:
    """The requests of a REQUESTS or SHARING frame; FrameError when table and blobs do not fill the payload exactly.

    find: the body of so many bytes at an offset of the shared memory, if there is any; it may raise FrameError.
    """
    ids, timeouts_ms, routes, methods, heads, bodies = _decode(frame)
    if frame.kind == SHARING:
        routes, bodies = _find_shared(routes, bodies, find)
    return list(map(_REQUEST, zip(ids, timeouts_ms, routes, methods, heads, bodies)))


def _find_shared(
    routes: Sequence[int], bodies: List[Blob], find: Optional[Callable[[int, int], memoryview]]
) -> Tuple[List[int], List[Blob]]:
    """Routes and bodies with each reference replaced by what it refers to."""
    found: List[Blob] = []
    for route, body in zip(routes, bodies):
        if not route & SHARED:
            found.append(body)
        elif find is None or len(body) != _REFERENCE.size:
            raise FrameError("a reference of %d bytes to a body that cannot be found" % len(body))
        else:
            found.append(find(*_REFERENCE.unpack(body)))
    return [route & ~SHARED for route in routes], found


def decode_replies(frame: Frame) -> List[Tuple[int, int, int, int, bytes, Blob]]:
    """The replies of a REPLIES frame, as Reply but plain tuples: three times as quick to make.

    FrameError when table and blobs do not fill the payload exactly.
    """
    ids, runs_us, statuses, flags, heads, bodies = _decode(frame)
    return list(zip(ids, statuses, flags, runs_us, heads, bodies))


_REQUEST = partial(tuple.__new__, Request)


@lru_cache(maxsize=1024)
def _table(count: int) -> Struct:
    return Struct("<{0}Q{0}I{0}I{0}I{0}H{0}H".format(count))


def _encode(
    kind: int,
    busy_us: int,
    ids: Sequence[int],
    times: Sequence[int],
    lefts: Sequence[int],
    rights: Sequence[int],
    heads: Sequence[bytes],
    bodies: Sequence[Any],
) -> List[Blob]:
    count = len(ids)
    head_sizes = list(map(len, heads)) if any(heads) else [0] * count
    body_sizes = list(map(len, bodies))
    size = count * ENTRY_BYTES + sum(head_sizes) + sum(body_sizes)
    if size >= LEAST_SHARED_BYTES and kind == REQUESTS and any(isinstance(body, SharedBody) for body in bodies):
        lefts, bodies = _refer(lefts, bodies)
        return _encode(SHARING, busy_us, ids, times, lefts, rights, heads, bodies)
    if size > MAX_PAYLOAD_BYTES or count > MAX_COUNT:
        raise FrameError("frame of %d entries and %d bytes is over the limit" % (count, size))
    pieces: List[Blob] = [
        HEADER.pack(MAGIC, VERSION, kind, count, busy_us, size)
        + _table(count).pack(*ids, *times, *head_sizes, *body_sizes, *lefts, *rights)
    ]
    pieces.extend(filter(None, heads))
    pieces.extend(bodies if all(body_sizes) else filter(len, bodies))
    return pieces


def _refer(routes: Sequence[int], bodies: Sequence[Any]) -> Tuple[List[int], List[Blob]]:
    """Routes and bodies with a reference in the place of each body that does not travel."""
    shared = [isinstance(body, SharedBody) for body in bodies]
    return (
        [route | SHARED if one else route for route, one in zip(routes, shared)],
        [_REFERENCE.pack(body.offset, body.size) if one else body for body, one in zip(bodies, shared)],
    )


def _decode(frame: Frame) -> Tuple[Any, Any, Any, Any, List[bytes], List[Blob]]:
    count = frame.count
    payload = frame.payload
    at = count * ENTRY_BYTES
    if at > len(payload):
        raise FrameError("frame of %d entries is only %d bytes long" % (count, len(payload)))
    columns = _table(count).unpack_from(payload)
    head_sizes = columns[2 * count : 3 * count]
    body_sizes = columns[3 * count : 4 * count]
    heads = [b""] * count
    if any(head_sizes):
        for index, size in enumerate(head_sizes):
            heads[index] = bytes(payload[at : at + size])
            at += size
    # Slices of bytes are copies: cheaper than views for small bodies, ruinous for large ones.
    source: Blob = payload if len(payload) <= COPY_BELOW_BYTES else memoryview(payload)
    bodies: List[Blob] = []
    for size in body_sizes:
        bodies.append(source[at : at + size])
        at += size
    if at != len(payload):
        raise FrameError("the entries describe %d bytes, the payload holds %d" % (at, len(payload)))
    return (
        columns[:count],
        columns[count : 2 * count],
        columns[4 * count : 5 * count],
        columns[5 * count :],
        heads,
        bodies,
    )


class Decoder:
    """Cuts a stream of bytes, however it is split, into frames. No I/O.

    max_payload_bytes caps what a frame may announce, before anything is allocated for it.
    """

    def __init__(self, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._pending = b""  # bytes that are less than a header
        self._header = (0, 0, 0)  # kind, count, busy_us of the payload being filled
        self._payload: Union[bytearray, None] = None
        self._wanted = 0

    def feed(self, data: bytes) -> List[Frame]:
        """The frames that `data` completes, in order; FrameError on bytes that are no frame."""
        frames: List[Frame] = []
        at = 0
        size = len(data)
        while True:
            if self._payload is not None:
                take = min(size - at, self._wanted - len(self._payload))
                self._payload += memoryview(data)[at : at + take]
                at += take
                if len(self._payload) < self._wanted:
                    return frames
                frames.append(Frame(*self._header, payload=self._payload))
                self._payload = None
            if self._pending:
                data = self._pending + data[at:]
                self._pending = b""
                at = 0
                size = len(data)
            if size - at < HEADER.size:
                self._pending = data[at:]
                return frames
            magic, version, kind, count, busy_us, payload_bytes = HEADER.unpack_from(data, at)
            self._check(magic, version, kind, count, payload_bytes)
            at += HEADER.size
            if size - at >= payload_bytes:
                frames.append(Frame(kind, count, busy_us, data[at : at + payload_bytes]))
                at += payload_bytes
            else:
                self._header = (kind, count, busy_us)
                self._payload = bytearray()  # it grows with what comes: the peer may announce what it never sends
                self._wanted = payload_bytes

    def _check(self, magic: bytes, version: int, kind: int, count: int, payload_bytes: int) -> None:
        if magic != MAGIC:
            raise FrameError("stream out of step: a frame starts with %r, not %r" % (MAGIC, magic))
        if version != VERSION:
            raise FrameError("frame version %d; this side speaks version %d" % (version, VERSION))
        if kind not in KINDS:
            raise FrameError("unknown frame kind %d" % kind)
        most = self._max_payload_bytes
        if kind in _JSON_KINDS:
            most = min(most, MAX_JSON_BYTES)
        if count > MAX_COUNT or payload_bytes > most:
            raise FrameError("frame of %d entries and %d bytes is over the limit" % (count, payload_bytes))
