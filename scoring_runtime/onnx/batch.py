"""Batching on the value level: which requests may share a run, stacking, splitting, and the proof that all this is sound.

No session, no clock: arrays in, arrays out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import exactness
from .dtypes import BY_NAME, Array, Tolerance
from .tensors import Output, Tensor

Run = Callable[[Sequence[Array]], Sequence[Any]]
"""A model: input arrays to outputs, each an array or, for sequences and maps, a list."""

Signature = tuple[tuple[int, ...], ...]


class RowsError(Exception):
    """An output does not have one row for each row of the inputs. The text says which."""


def signature(arrays: Sequence[Array]) -> Signature | None:
    """Requests of equal signature can be stacked. None: the inputs have unequal numbers of rows, so this one cannot.

    Types need no mention: they are the model's, the same for all.
    """
    if len(arrays) > 1 and len({array.shape[0] for array in arrays}) != 1:
        return None
    return shapes(arrays)


def shapes(arrays: Sequence[Array]) -> Signature:
    """The shapes of a row."""
    return tuple([array.shape[1:] for array in arrays])


def chunks(rows: Sequence[int], most_rows: Callable[[], int]) -> Iterator[slice]:
    """Cut requests of so many rows into runs, in order; a request larger than a run may be is a run by itself.

    most_rows: how many rows a run may hold. It is asked when the run before has been taken.
    """
    first = total = bound = 0
    for number, count in enumerate(rows):
        if total and total + count > bound:
            yield slice(first, number)
            first, total = number, 0
        if not total:
            bound = most_rows()
        total += count
    if first < len(rows):
        yield slice(first, len(rows))


def stack(members: Sequence[Sequence[Array]]) -> list[Array]:
    """The inputs of one run for requests of equal signature, one below the other."""
    return [np.concatenate(column) for column in zip(*members, strict=True)]


def split(outputs: Sequence[Any], rows: Sequence[int]) -> list[list[Any]]:
    """Each request's own outputs, by its number of rows; RowsError when the sizes do not follow."""
    check_rows(outputs, sum(rows))
    parts = []
    start = 0
    for size in rows:
        end = start + size
        parts.append([output[start:end] for output in outputs])
        start = end
    return parts


def check_rows(outputs: Sequence[Any], total: int) -> None:
    """RowsError when an output has not one row for each of `total` rows of input."""
    for number, output in enumerate(outputs):
        count = _rows_of(output)
        if count != total:
            raise RowsError(f"output {number} has {'no' if count is None else count} rows for {total} rows of input")


def _rows_of(output: Any) -> int | None:
    if isinstance(output, list):
        return len(output)
    return int(output.shape[0]) if isinstance(output, np.ndarray) and output.ndim else None


def why_not_declared(inputs: Sequence[Tensor], outputs: Sequence[Output]) -> str | None:
    """Why the declared shapes alone forbid stacking on axis 0; None when they allow it."""
    if not inputs:
        return "the model has no inputs"
    symbols = {tensor.shape[0] for tensor in inputs if tensor.shape} - {None}
    for tensor in inputs:
        what = f"input {tensor.name!r}"
        if tensor.shape is None:
            return f"{what} declares no shape"
        if not tensor.shape:
            return f"{what} is a scalar: it has no batch axis"
        if isinstance(tensor.shape[0], int):
            elsewhere = [axis for axis, size in enumerate(tensor.shape) if axis and not isinstance(size, int)]
            hint = f" (free is axis {elsewhere[0]})" if elsewhere else ""
            return f"axis 0 of {what} has the fixed size {tensor.shape[0]}{hint}"
        for axis, size in enumerate(tensor.shape):
            if axis and size in symbols:
                return f"axis {axis} of {what} has the name of a batch axis, {size!r}"
    for output in outputs:
        if isinstance(output, Tensor) and output.shape and isinstance(output.shape[0], int):
            return f"axis 0 of output {output.name!r} has the fixed size {output.shape[0]}"
    return None


def why_not_proved(
    run: Run, samples: Sequence[Sequence[Array]], outputs: Sequence[Output], inexact: Tolerance | None = None
) -> str | None:
    """Why stacked samples do not score as each alone; None when f(a‖b) = f(a)‖f(b) held for all of them.

    The samples must be of equal signature and should differ in scale and in their number of rows. inexact: as in
    tolerance_of.
    """
    alone = [run(sample) for sample in samples]
    rows = [len(sample[0]) for sample in samples]
    try:
        for answer, count in zip(alone, rows, strict=True):
            split(answer, [count])
        # Two orders: a model that looks only at the first or only at earlier rows is found out as well.
        for order in (range(len(samples)), range(len(samples) - 1, -1, -1)):
            stacked = run(stack([samples[number] for number in order]))
            for number, part in zip(order, split(stacked, [rows[number] for number in order]), strict=True):
                for output, one, other in zip(outputs, part, alone[number], strict=True):
                    if (text := difference(output, one, other, inexact)) is not None:
                        return f"output {output.name!r} differs when rows are stacked{text}"
    except RowsError as error:
        return str(error)
    return None


def difference(output: Output, one: Any, other: Any, inexact: Tolerance | None = None) -> str | None:
    """By how much two values of an output differ, as far as that can be said; None when they agree."""
    return None if same(one, other, tolerance_of(output, inexact)) else by_how_much(one, other)


def tolerance_of(output: Output, inexact: Tolerance | None = None) -> Tolerance | None:
    """How far floats of an output may differ; None where values are equal or they are not.

    inexact: what the provider needs, where that is more than the type.
    """
    of_type = output.dtype.tolerance if isinstance(output, Tensor) else BY_NAME["float32"].tolerance
    return of_type and exactness.wider(of_type, inexact)


def by_how_much(one: Any, other: Any) -> str:
    """The largest difference of two arrays of floats, in words; nothing where it cannot be said."""
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return ""
    if one.shape != other.shape or one.dtype.kind != "f" or not one.size:
        return ""
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return f", by up to {np.max(np.abs(one - other)):.2g} where the largest value is {np.max(np.abs(other)):.3g}"


def same(one: Any, other: Any, tolerance: Tolerance | None) -> bool:
    """Whether two outputs agree: shapes, integers, bools and strings exactly, floats within `tolerance`."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.shape != other.shape:
            return False
        if tolerance is None or one.dtype.kind != "f":
            return bool((one == other).all())
        # In double precision: the difference of two halves may not exist as a half.
        one, other = one.astype(np.float64), other.astype(np.float64)
        largest = np.max(np.abs(other), initial=0.0, where=np.isfinite(other))
        return np.allclose(one, other, tolerance.relative, tolerance.of_largest * float(largest), equal_nan=True)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(*pair, tolerance) for pair in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return same(np.array(one), np.array(other), tolerance)
    return bool(one == other)
