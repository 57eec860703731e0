"""Buckets: the few numbers of rows that batches are padded to, so that a GPU meets few shapes. Pure.

A new shape is dear on a GPU: algorithms are searched for it, memory is arranged for it, and a captured graph holds for one
shape only. Padding is sound only where rows do not depend on each other, which is proved before anything is padded.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .dtypes import Array

AUTO, OFF = "auto", "off"


def choose(text: str, most_rows: int, *, gpu: bool) -> tuple[int, ...]:
    """The buckets that the setting asks for, rising; none where batches are not padded.

    auto: powers of two up to `most_rows`, and `most_rows`, on a GPU. A CPU computes each padded row, and gains nothing by it.
    """
    if text == OFF or (text == AUTO and not gpu):
        return ()
    if text != AUTO:
        return tuple(sorted({int(part) for part in text.split(",")}))
    powers = [1 << exponent for exponent in range(most_rows.bit_length())]
    return tuple(sorted({*powers, most_rows}))


def bucket_for(rows: int, buckets: Sequence[int]) -> int | None:
    """The least bucket that holds so many rows; None where none does."""
    return next((bucket for bucket in buckets if bucket >= rows), None)


def parts(rows: int, most_rows: int) -> Iterator[slice]:
    """Cut so many rows into runs of at most `most_rows`, in order."""
    return (slice(first, min(first + most_rows, rows)) for first in range(0, rows, most_rows))


def rows_of(arrays: Sequence[Array]) -> int | None:
    """How many rows these inputs have; None where they have none, or not all as many, so that they cannot be padded or cut."""
    if not arrays or not all(array.ndim for array in arrays):
        return None
    rows = len(arrays[0])
    return rows if rows and all(len(array) == rows for array in arrays) else None


def pad(arrays: Sequence[Array], rows: int, bucket: int) -> list[Array]:
    """Inputs of `rows` rows as inputs of `bucket` rows.

    The last row is repeated: whatever a model demands of a row, such as an index that exists or a length above zero, this
    one has it. A row of zeros may make a NaN, or an error.
    """
    if rows == bucket:
        return list(arrays)
    padded = [np.empty((bucket, *array.shape[1:]), array.dtype) for array in arrays]
    for cells, array in zip(padded, arrays, strict=True):
        fill(cells, array)
    return padded


def fill(cells: Array, array: Array) -> None:
    """Write an input into memory for at least as many rows, padded to it."""
    rows = len(array)
    cells[:rows] = array
    cells[rows:] = array[-1]


def cut(outputs: Sequence[Any], rows: int) -> list[Any]:
    """The outputs without those of padding."""
    return [output[:rows] for output in outputs]


def join(answers: Sequence[Sequence[Any]]) -> list[Any]:
    """The outputs of runs one after the other as those of one run."""
    if len(answers) == 1:
        return list(answers[0])
    return [
        np.concatenate(column) if isinstance(column[0], np.ndarray) else list(chain.from_iterable(column))
        for column in zip(*answers, strict=True)
    ]
