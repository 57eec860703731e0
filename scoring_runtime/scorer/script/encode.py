"""Results of run() as JSON.

Bytes are those of json.dumps with its defaults (contract §4.7). On top of it, values that are common in results and that
json refuses are written in the plainest form that they have:

    numpy arrays and scalars, pandas Series and Index, tensors     their tolist(); dates as ISO text, missing ones null
    structured arrays                                              a list of objects
    pandas DataFrame                                               a list of records
    sets (sorted where they can be), dict views, deque, range      a list
    dataclasses, mappings                                          an object
    bytes                                                          their text, if they are UTF-8
    datetime, date, time                                           ISO text
    timedelta                                                      seconds
    Decimal, UUID                                                  text
    Enum                                                           its value

Neither numpy nor pandas is imported here: a value that is of theirs brings what it takes.
"""

import collections
import collections.abc
import datetime
import decimal
import enum
import json
import sys
import uuid
from json import encoder
from typing import Any, Callable, Iterable

_LISTS = (
    set,
    frozenset,
    collections.abc.KeysView,
    collections.abc.ValuesView,
    collections.abc.ItemsView,
    collections.deque,
    range,
)
_PLAIN_KEYS = (str, int, float, bool, type(None))


def encode(value: Any) -> bytes:
    """`value` as JSON text in ASCII. TypeError, ValueError, RecursionError and whatever a value's own code raises."""
    global _chunks
    try:
        return "".join(_chunks(value, 0)).encode("ascii")
    except TypeError:
        _chunks = _make_encoder()  # it remembers the containers that it was in
    except BaseException:
        _chunks = _make_encoder()
        raise
    # Perhaps only a key is the trouble: numpy scalars and dates are common as keys.
    return "".join(_make_encoder()(_with_plain_keys(value), 0)).encode("ascii")


def plain(value: Any) -> Any:
    """The default hook of json: `value` in a form that json knows; TypeError when it has none."""
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if kind.__name__ in ("NaTType", "NAType"):  # pandas; the former passes for a datetime
        return None
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8")
    if isinstance(value, (set, frozenset)):
        return _sorted(value)
    if isinstance(value, _LISTS):
        return list(value)
    if isinstance(value, enum.Enum):
        return value.value
    if module == "pandas" and hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _with_plain_keys(value.to_dict(orient="records"))
    if module == "numpy" and hasattr(value, "dtype"):
        return _plain_array(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, collections.abc.Mapping):
        return _with_plain_keys(dict(value))
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    raise TypeError("Object of type %s is not JSON serializable" % kind.__name__)


def _plain_array(array: Any) -> Any:
    if array.dtype.names:
        return _records(array.tolist(), array.dtype.names)
    if array.dtype.kind == "M":
        return _without_nat(array.astype(str).tolist())
    if array.dtype.kind == "m":
        return (array / sys.modules["numpy"].timedelta64(1, "s")).tolist()
    return array.tolist()


def _records(rows: Any, names: Iterable[str]) -> Any:
    return dict(zip(names, rows)) if isinstance(rows, tuple) else [_records(row, names) for row in rows]


def _without_nat(texts: Any) -> Any:
    if isinstance(texts, list):
        return [_without_nat(text) for text in texts]
    return None if texts == "NaT" else texts


def _sorted(values: Iterable[Any]) -> Any:
    try:
        return sorted(values)  # the order of a set of texts is another one in each process
    except TypeError:
        return list(values)


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain_key(key): _with_plain_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_plain_keys(item) for item in value]
    return value


def _plain_key(key: Any) -> Any:
    if isinstance(key, _PLAIN_KEYS):
        return key
    result = plain(key)
    if not isinstance(result, _PLAIN_KEYS):
        raise TypeError("keys must be str, int, float, bool or None, not %s" % type(key).__name__)
    return result


_make = getattr(encoder, "c_make_encoder", None)
_encode_text = encoder.encode_basestring_ascii


def _make_encoder() -> Callable[[Any, int], Iterable[str]]:
    """What JSONEncoder makes anew for each value, made once: 0.5 us for a small result instead of 1.9."""
    try:
        return _make({}, plain, _encode_text, None, ": ", ", ", False, False, True)  # type: ignore[misc,no-any-return]
    except TypeError:  # another implementation of Python: what JSONEncoder offers to everybody
        dumps = json.JSONEncoder(default=plain).encode
        return lambda value, _: (dumps(value),)


_chunks = _make_encoder()
