"""Regular nested lists of numbers, from simdjson's objects straight into arrays."""

from typing import Any

import numpy as np

from scoring_runtime.onnx.dtypes import Array, Dtype
from scoring_runtime.onnx.tensors import Tensor

_BUFFER_TYPES = {"d": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.uint64)}

UNFIT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What simdjson and numpy raise for values that do not fit; RuntimeError for an integer of more than 64 bits."""


def structure(shape: tuple[int, ...]) -> bytes:
    """The brackets and commas of a regular nested list of this shape. Lists of no and of one number look the same."""
    text = b""
    for size in reversed(shape):
        text = b"[%b]" % b",".join([text] * size)
    return text


def shape_by_first(value: Any, rank: int) -> tuple[int, ...]:
    """The shape that the first list on every axis suggests."""
    sizes = []
    for _ in range(rank):
        sizes.append(len(value))
        if not sizes[-1]:
            raise LookupError("an axis of size 0")
        value = value[0]
    return tuple(sizes)


def fill(value: Any, tensor: Tensor, rows: int | None = None) -> Array:
    """The numbers of a simdjson array, in the shape that its first lists suggest, or of so many `rows` as declared.

    One of UNFIT is raised when they are not as many, of another type, or out of range.
    """
    declared = tensor.shape or ()
    if rows is None:
        shape = shape_by_first(value, len(declared))
        for expected, size in zip(declared, shape, strict=True):
            if isinstance(expected, int) and expected != size:
                raise ValueError(size)
    else:
        shape = (rows, *(size for size in declared[1:] if isinstance(size, int)))
    return narrow(numbers(value, tensor.dtype).reshape(shape), tensor.dtype)


def numbers(value: Any, dtype: Dtype) -> Array:
    """The numbers of a simdjson array, of 64 bits, however they are nested. One of UNFIT when there are other things in it."""
    return np.frombuffer(value.as_buffer(of_type=dtype.buffer), _BUFFER_TYPES[dtype.buffer or "d"])


def narrow(wide: Array, dtype: Dtype, into: Array | None = None) -> Array:
    """Numbers of 64 bits in a type of the same kind, in new memory or in `into`; one of UNFIT when they do not fit."""
    if wide.dtype != dtype.array and dtype.kind in "iu":
        if (dtype.low and wide.min() < dtype.low) or wide.max() > dtype.high:
            raise OverflowError
    elif wide.dtype == dtype.array and into is None:
        return wide
    with np.errstate(over="raise"):
        if into is None:
            return wide.astype(dtype.array)
        into[...] = wide
        return into


def is_regular(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether the lists of a simdjson array have these lengths, those of the last axis included."""
    if len(value) != shape[0]:
        return False
    if len(shape) == 2:
        return set(map(len, value)) <= {shape[1]}
    return len(shape) == 1 or all(is_regular(each, shape[1:]) for each in value)


def number_of_lists(shape: tuple[int, ...]) -> int:
    """How many lists a regular nested list of this shape is made of."""
    lists = 0
    for size in reversed(shape[:-1]):
        lists = size * (lists + 1)
    return lists + bool(shape)
