"""Nested lists, as a JSON parser leaves them, to arrays: exactly checked, and refused with words that help."""

import json
from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from scoring_runtime.onnx.dtypes import Array
from scoring_runtime.onnx.tensors import BadInputError, Tensor, shape_text

_LISTS = {list}
_WORDS = {
    float: "float",
    int: "integer",
    str: "string",
    bool: "bool",
    type(None): "null",
    dict: "object",
    list: "list",
}


def to_array(value: Any, tensor: Tensor) -> Array:
    """The array that `value` spells for this input. BadInputError when type, rank, size of an axis or range do not fit.

    The lists are checked axis by axis over their whole width, so a ragged list never passes.
    """
    shape = tensor.shape
    rank = _depth(value) if shape is None else len(shape)
    cells = [value]
    sizes: list[int] = []
    for axis in range(rank):
        if not cells:  # an axis of size 0 ends what the lists can say: the rest is as declared
            declared = shape[axis] if shape is not None else 0
            sizes.append(declared if isinstance(declared, int) else 0)
            continue
        if set(map(type, cells)) != _LISTS:
            _refuse(value, tensor)
        lengths = set(map(len, cells))
        size = lengths.pop()
        if lengths or (shape is not None and isinstance(shape[axis], int) and shape[axis] != size):
            _refuse(value, tensor)
        sizes.append(size)
        cells = cells[0] if len(cells) == 1 else list(chain.from_iterable(cells))
    if rank and not sizes[0]:
        raise BadInputError(f"input {tensor.name!r} expects {tensor}; given: no rows")
    dtype = tensor.dtype
    if not dtype.json_types.issuperset(map(type, cells)):
        _refuse(value, tensor)
    try:
        # numpy turns a float that is too large into infinity. np.errstate notices, for 0.75 microseconds; for a few
        # numbers their sum rules it out sooner (four: 0.2).
        if dtype.kind == "f" and (len(cells) > 16 or sum(map(abs, cells)) > dtype.high):
            with np.errstate(over="raise"):
                return np.array(cells, dtype.array).reshape(sizes)
        return np.array(cells, dtype.array).reshape(sizes)
    except (OverflowError, FloatingPointError):
        _refuse_range(cells, sizes, tensor)


def _depth(value: Any) -> int:
    depth = 0
    while type(value) is list and value:
        depth += 1
        value = value[0]
    return depth + (type(value) is list)


def _refuse(value: Any, tensor: Tensor) -> NoReturn:
    raise BadInputError(f"input {tensor.name!r} expects {tensor}; given: {_describe(value, tensor)}")


def _describe(value: Any, tensor: Tensor) -> str:
    """What the client sent: `float [2, 3]`, or where the lists are ragged, or what else stands among the numbers."""
    cells = [value]
    sizes: list[int] = []
    while list in map(type, cells):
        types = set(map(type, cells))
        if types != _LISTS:
            return f"a ragged list that mixes {_words(types)} on axis {len(sizes)}"
        lengths = sorted(set(map(len, cells)))
        if len(lengths) > 1:
            return f"a ragged list: lists of length {lengths[0]} and {lengths[-1]} on axis {len(sizes)}"
        sizes.append(lengths[0])
        cells = list(chain.from_iterable(cells))
    given = f"{_words(set(map(type, cells))) or 'nothing'} {shape_text(sizes)}"
    accepted = tensor.dtype.json_types
    odd = _first(cells, sizes, lambda cell: type(cell) not in accepted)
    return f"{given}, {odd}" if odd else given


def _refuse_range(cells: list[Any], sizes: list[int], tensor: Tensor) -> NoReturn:
    low, high = tensor.dtype.low, tensor.dtype.high
    odd = _first(cells, sizes, lambda cell: not low <= cell <= high)
    given = f"{shape_text(sizes)} with {odd or 'a number'}, which is out of range"
    raise BadInputError(f"input {tensor.name!r} expects {tensor}, numbers from {low} to {high}; given: {given}")


def _words(types: set[type]) -> str:
    return " and ".join(sorted(_WORDS[each] for each in types))


def _first(cells: list[Any], sizes: list[int], odd: Callable[[Any], bool]) -> str:
    """`300 at [0][2]` for the first odd cell; empty when there is none."""
    for number, cell in enumerate(cells):
        if odd(cell):
            where = "".join(f"[{index}]" for index in np.unravel_index(number, sizes)) if sizes else "the top"
            text = _WORDS[type(cell)] if isinstance(cell, list | dict) else json.dumps(cell)[:40]
            return f"{text} at {where}"
    return ""
