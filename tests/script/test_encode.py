import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import types
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.scorer.script.encode import encode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(st.characters()), inner),
)


@given(PLAIN)
def test_plain_values_are_written_as_json_dumps_writes_them(value: object) -> None:
    assert encode(value) == json.dumps(value).encode()


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    when: datetime.date


DAY = datetime.date(2024, 2, 29)
UTC = datetime.UTC


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"caf\xc3\xa9", '"caf\\u00e9"'),
        (bytearray(b"x"), '"x"'),
        (DAY, '"2024-02-29"'),
        (datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), '"2024-02-29T01:02:03+00:00"'),
        (datetime.time(1, 2), '"01:02:00"'),
        (datetime.timedelta(milliseconds=1500), "1.5"),
        (decimal.Decimal("1.10"), '"1.10"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ({"b", "a", "c"}, '["a", "b", "c"]'),
        (frozenset([1]), "[1]"),
        ({"a": 1}.values(), "[1]"),
        ({"a": 1}.items(), '[["a", 1]]'),
        (collections.deque([1, 2]), "[1, 2]"),
        (range(2), "[0, 1]"),
        (Colour.RED, '"red"'),
        (Point(1.5, DAY), '{"x": 1.5, "when": "2024-02-29"}'),
        (types.MappingProxyType({"a": b"1"}), '{"a": "1"}'),
        ([{"deep": {decimal.Decimal(1)}}], '[{"deep": ["1"]}]'),
        ({DAY: 1, Colour.RED: 2, 3: 4, None: 5}, '{"2024-02-29": 1, "red": 2, "3": 4, "null": 5}'),
        (float("nan"), "NaN"),
        ("\ud800", '"\\ud800"'),
        ((1, 500), "[1, 500]"),
    ],
)
def test_other_values(value: object, text: str) -> None:
    assert encode(value) == text.encode()


def test_a_mixed_set_is_a_list_in_some_order() -> None:
    assert sorted(json.loads(encode({1, "a"})), key=str) == [1, "a"]


class Tensor:
    """Stands for arrays of libraries that are not installed here."""

    def tolist(self) -> list[float]:
        return [1.0, math.inf]


def test_whatever_has_tolist() -> None:
    assert encode({"t": Tensor()}) == b'{"t": [1.0, Infinity]}'


def circle() -> list[object]:
    value: list[object] = []
    value.append({"self": value})
    return value


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        (1j, TypeError),
        ({(1, 2): 3}, TypeError),
        ((n for n in [1]), TypeError),
        (Tensor, TypeError),
        (b"\xff", UnicodeDecodeError),
        (circle(), ValueError),
        (nested(100_000), RecursionError),
        ({object(): circle()}, (TypeError, RecursionError)),
    ],
)
def test_refused_values_leave_nothing_behind(value: object, error: type[Exception]) -> None:
    shared = ["shared"]
    for _ in range(3):
        with pytest.raises(error):
            encode([shared, value])
    assert encode([shared, shared]) == b'[["shared"], ["shared"]]'
