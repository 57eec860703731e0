"""An undecorated run(). A body that begins with `!` names what it is to return or to raise; others are echoed."""

import asyncio
import collections
import concurrent.futures
import datetime
import decimal
import enum
import socket
import sys
import uuid


class OwnError(Exception):
    pass


class OwnBaseError(BaseException):
    pass


class Text(str):
    pass


class Number(int):
    pass


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


Point = collections.namedtuple("Point", "x y")


def circle():
    value = {}
    value["self"] = value
    return value


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def fail(error):
    raise error


def recurse():
    return recurse() + 1


def items():
    yield 1
    yield 2


RETURNS = {
    "none": lambda: None,
    "dict": lambda: {"a": 1, "b": [True, None, 2.5]},
    "empty-dict": lambda: {},
    "list": lambda: [1, "zwei", 3.0],
    "empty-list": lambda: [],
    "tuple": lambda: ({"message": "bad"}, 500),
    "int": lambda: 7,
    "big-int": lambda: 2**70,
    "float": lambda: 0.1 + 0.2,
    "exponents": lambda: [1e300, 1e-7, 123456789012345680.0, -0.0, 1e16],
    "not-finite": lambda: [float("nan"), float("inf"), float("-inf")],
    "bool": lambda: False,
    "str": lambda: 'he said "hi"\n\u00e9 \u4e2d \U0001f600 </script> \x7f',
    "json-str": lambda: '{"already": "json"}',
    "empty-str": lambda: "",
    "text-keys": lambda: {1: "int", 1.5: "float", True: "bool", None: "none", "s": "str"},
    "tuple-key": lambda: {(1, 2): 3},
    "key-order": lambda: {"b": 1, "a": 2, "c": 3},
    "ordered-dict": lambda: collections.OrderedDict([("z", 1), ("a", 2)]),
    "default-dict": lambda: collections.defaultdict(list, a=[1]),
    "counter": lambda: collections.Counter("aab"),
    "named-tuple": lambda: Point(1, 2),
    "str-subclass": lambda: Text("text"),
    "int-subclass": lambda: Number(5),
    "int-enum": lambda: [Level.LOW],
    "surrogate": lambda: "\ud800",
    "large": lambda: ["x" * 1000] * 1000,
    "deep": lambda: deep(100),
    # What JSON has no form for
    "bytes": lambda: b"bytes",
    "bytes-not-text": lambda: b"\xff\xfe",
    "bytearray": lambda: bytearray(b"ab"),
    "set": lambda: {1},
    "decimal": lambda: decimal.Decimal("1.10"),
    "datetime": lambda: datetime.datetime(2026, 1, 2, 3, 4, 5),
    "date": lambda: datetime.date(2026, 1, 2),
    "time": lambda: datetime.time(3, 4),
    "timedelta": lambda: datetime.timedelta(seconds=1.5),
    "uuid": lambda: uuid.UUID(int=1),
    "enum": lambda: Colour.RED,
    "generator": items,
    "range": lambda: range(3),
    "deque": lambda: collections.deque([1]),
    "dict-keys": lambda: {"a": 1}.keys(),
    "map": lambda: map(str, [1]),
    "object": object,
    "class": lambda: OwnError,
    "function": lambda: items,
    "exception": lambda: OwnError("x"),
    "complex": lambda: 1j,
    "date-key": lambda: {datetime.date(2026, 1, 2): 1},
    "nested-object": lambda: {"fine": 1, "bad": [object()]},
    "circle": circle,
    "too-deep": lambda: deep(100000),
}

RAISES = {
    "value-error": lambda: fail(ValueError("secret detail")),
    "own-error": lambda: fail(OwnError("x")),
    "own-base-error": lambda: fail(OwnBaseError("x")),
    "assertion": lambda: fail(AssertionError()),
    "key-error": lambda: {}["missing"],
    "stop-iteration": lambda: fail(StopIteration()),
    "memory-error": lambda: fail(MemoryError()),
    "recursion": recurse,
    "unicode-error": lambda: b"\xff".decode("utf-8"),
    "timeout-error": lambda: fail(TimeoutError("theirs")),
    "socket-timeout": lambda: fail(socket.timeout("theirs")),
    "asyncio-timeout": lambda: fail(asyncio.TimeoutError()),
    "futures-timeout": lambda: fail(concurrent.futures.TimeoutError()),
    "system-exit": lambda: sys.exit(),
    "system-exit-3": lambda: sys.exit(3),
    "keyboard-interrupt": lambda: fail(KeyboardInterrupt()),
    "generator-exit": lambda: fail(GeneratorExit()),
    "cancelled": lambda: fail(asyncio.CancelledError()),
}

calls = 0


def init():
    global calls
    calls = 0


def run(data):
    global calls
    calls += 1
    if data == "!calls":
        return calls
    if data.startswith("!"):
        name = data[1:]
        return RETURNS[name]() if name in RETURNS else RAISES[name]()
    return {"type": type(data).__name__, "length": len(data), "data": data[:1000]}
