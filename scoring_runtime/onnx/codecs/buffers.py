"""Regular nested lists of numbers, from simdjson's objects straight into arrays."""

from typing import Any

import numpy as np

from scoring_runtime.onnx.dtypes import Array
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
    return narrow(flatten(value, tensor).reshape(shape), tensor)


def flatten(value: Any, tensor: Tensor) -> Array:
    """The numbers of a simdjson array, however nested, as wide as the parser has them; one of UNFIT is raised as by `fill`."""
    return np.frombuffer(value.as_buffer(of_type=tensor.dtype.buffer), _BUFFER_TYPES[tensor.dtype.buffer or "d"])


def narrow(wide: Array, tensor: Tensor) -> Array:
    """The same numbers in the type of the input; ArithmeticError when one is out of its range."""
    if wide.dtype == tensor.dtype.array:
        return wide
    if tensor.dtype.kind in "iu":
        if wide.min() < tensor.dtype.low or wide.max() > tensor.dtype.high:
            raise OverflowError
        return wide.astype(tensor.dtype.array)
    with np.errstate(over="raise"):
        return wide.astype(tensor.dtype.array)
