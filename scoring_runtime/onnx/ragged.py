"""Requests of different lengths in one run: padded to the longest of it, and the answers cut back.

Only where the model itself says which cells count, by a mask or by the lengths of the rows, and where it was shown that
padding changes no answer. Padding is zeros, in the mask as well. Arrays in, arrays out: no session, no clock.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .batch import RowsError, Run, Signature, difference, split
from .dtypes import Array, Tolerance
from .tensors import Output, Size, Tensor

MOST_WASTE = 0.25
"""Of the cells of a run, at most this share is padding."""

LENGTHS = (20, 5, 12)
"""Of the samples. A model that takes only multiples of something refuses them, and is not padded."""
SCALES = ((0.0, 1.0), (-3.0, -1.0), (0.0, 100.0))
"""Of their floats, one range for each. Negative ones too: among them a zero of the padding is the largest."""

ANY_LENGTH = -1

_LENGTH_NAME = re.compile(r"(?i:(^|[^a-z])(seq|input)?(len|length)s?)$|(Len|Length)s?$")


@dataclass(frozen=True)
class Axes:
    """Where a model is ragged, by number of input: what its declaration says."""

    padded: tuple[int | None, ...]
    """The axis that is padded; None where there is none."""
    masks: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """What the settings say."""

    on: bool = True
    masks: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()
    most_cells: int = 16384


def read(hello: dict[str, Any]) -> Wanted:
    """The settings that HELLO holds."""

    def names(setting: str) -> tuple[str, ...]:
        return tuple([name.strip() for name in hello.get(setting, "").split(",") if name.strip()])

    return Wanted(
        hello.get("ragged", "auto") != "off",
        names("mask_inputs"),
        names("length_inputs"),
        hello.get("max_batch_tokens", Wanted.most_cells),
    )


def find_axes(inputs: Sequence[Tensor], masks: Sequence[str], lengths: Sequence[str]) -> Axes | str:
    """The axes that may be padded, or why there are none. `masks`, `lengths`: names that were set; else they are guessed."""
    known = {tensor.name for tensor in inputs}
    for setting, names in (("--mask-inputs", masks), ("--length-inputs", lengths)):
        for name in names:
            if name not in known:
                return f"{setting} names {name!r}, but the model's inputs are {', '.join(map(repr, sorted(known)))}"
    padded: list[int | None] = []
    symbols: set[Size] = set()
    for tensor in inputs:
        free = [axis for axis, size in enumerate(tensor.shape or ()) if axis and not isinstance(size, int)]
        if len(free) > 1:
            return f"input {tensor.name!r} has more than one free axis beside its rows"
        if free and tensor.dtype.kind == "O":
            return f"input {tensor.name!r} holds strings, which are not padded"
        padded.append(free[0] if free else None)
        symbols.update((tensor.shape or ())[axis] for axis in free)
    if not symbols:
        return "no input has a free axis beside its rows"
    if len(symbols) > 1:
        return f"the inputs have free axes of different names: {', '.join(sorted(map(str, symbols)))}"
    by_mask = tuple([
        number
        for number, (tensor, axis) in enumerate(zip(inputs, padded, strict=True))
        if (tensor.name in masks if masks else axis is not None and "mask" in tensor.name.lower())
    ])  # fmt: skip
    by_length = tuple([
        number
        for number, (tensor, axis) in enumerate(zip(inputs, padded, strict=True))
        if (tensor.name in lengths if lengths else axis is None and _holds_lengths(tensor))
    ])  # fmt: skip
    for number in by_mask:
        if padded[number] is None:
            return f"the mask {inputs[number].name!r} has no free axis beside its rows"
    for number in by_length:
        if padded[number] is not None or inputs[number].dtype.kind not in "iu":
            return f"the lengths {inputs[number].name!r} are not one whole number for each row"
    if not by_mask and not by_length:
        return "no input is a mask or holds lengths (--mask-inputs and --length-inputs name them)"
    if all(axis is None or number in by_mask for number, axis in enumerate(padded)):
        return "only masks have a free axis"
    return Axes(tuple(padded), by_mask, by_length)


def _holds_lengths(tensor: Tensor) -> bool:
    shape = tensor.shape or ()
    one_each = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    return one_each and tensor.dtype.kind in "iu" and _LENGTH_NAME.search(tensor.name) is not None


@dataclass(frozen=True)
class Padding:
    """A model whose requests may be padded."""

    axes: Axes
    cut: tuple[tuple[int, ...], ...]
    """The axes of each output that have the padded length."""
    most_cells: int
    """Of a padded run: rows, times the length that they are padded to."""

    def length(self, arrays: Sequence[Array]) -> int | None:
        """How long a request is; None for one that must run alone or with its equals.

        That is one whose inputs disagree, and one whose mask or lengths say what a longer run would take in another way:
        rows of which no cell counts, or more cells than there are.
        """
        rows = len(arrays[0])
        length: int | None = None
        for array, axis in zip(arrays, self.axes.padded, strict=True):
            if len(array) != rows:
                return None
            if axis is not None:
                if length is not None and array.shape[axis] != length:
                    return None
                length = array.shape[axis]
        if not rows or not length:
            return None
        for number in self.axes.masks:
            axis = self.axes.padded[number]
            if not arrays[number].any(axis=axis).all():
                return None
        for number in self.axes.lengths:
            if not 0 < int(arrays[number].min()) <= int(arrays[number].max()) <= length:
                return None
        return length

    def signature(self, arrays: Sequence[Array], length: int = ANY_LENGTH) -> Signature:
        """Requests of equal signature can be padded to one length. `length` stands in it for their own."""
        return tuple([
            array.shape[1:] if axis is None else (*array.shape[1:axis], length, *array.shape[axis + 1 :])
            for array, axis in zip(arrays, self.axes.padded, strict=True)
        ])  # fmt: skip

    def stack(self, members: Sequence[Sequence[Array]], length: int) -> list[Array]:
        """The inputs of one run, each request's rows padded to `length`."""
        stacked = []
        for column, axis in zip(zip(*members, strict=True), self.axes.padded, strict=True):
            if axis is None:
                stacked.append(np.concatenate(column))
                continue
            first = column[0]
            shape = [sum(map(len, column)), *first.shape[1:]]
            shape[axis] = length
            padded = np.zeros(shape, first.dtype)
            row = 0
            for array in column:
                end = row + len(array)
                padded[row:end][_along(axis, slice(array.shape[axis]))] = array
                row = end
            stacked.append(padded)
        return stacked

    def split(self, outputs: Sequence[Any], rows: Sequence[int], lengths: Sequence[int]) -> list[list[Any]]:
        """Each request's own outputs, cut to its own length. RowsError when the sizes do not follow."""
        longest = max(lengths)
        for number, (output, axes) in enumerate(zip(outputs, self.cut, strict=True)):
            if any(output.shape[axis] != longest for axis in axes):
                raise RowsError(f"output {number} has not the length of the inputs")
        parts = split(outputs, rows)
        return [
            [_cut(output, axes, length) for output, axes in zip(part, self.cut, strict=True)]
            for part, length in zip(parts, lengths, strict=True)
        ]

    def runs(self, lengths: Sequence[int], rows: Sequence[int], most_rows: Callable[[int], int]) -> Iterator[list[int]]:
        """Requests of such lengths and so many rows, as runs: lists of their numbers, the longest requests first.

        most_rows: how many rows a run may hold that is padded to a length. It is asked when the run before has been taken.
        """
        members: list[int] = []
        total = cells = longest = bound = 0
        for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
            count, own_cells = rows[number], rows[number] * lengths[number]
            padded_cells = (total + count) * longest
            fits = (
                total + count <= bound
                and padded_cells <= self.most_cells
                and cells + own_cells >= (1 - MOST_WASTE) * padded_cells
            )
            if members and not fits:
                yield members
                members, total, cells = [], 0, 0
            if not members:
                longest = lengths[number]
                bound = most_rows(longest)
            members.append(number)
            total += count
            cells += own_cells
        if members:
            yield members


def _cut(output: Any, axes: tuple[int, ...], length: int) -> Any:
    if not axes or output.shape[axes[0]] == length:
        return output
    for axis in axes:
        output = output[_along(axis, slice(length))]
    return np.ascontiguousarray(output)  # what the encoders take


def _along(axis: int, cells: int | slice) -> tuple[Any, ...]:
    """The index of these cells of an axis, for all of the axes before it."""
    return (*[slice(None)] * axis, cells)


Make = Callable[[int, int, int, tuple[float, float]], Sequence[Array]]
"""Samples: length, rows, seed, range of floats to input arrays."""


def prove(
    run: Run, outputs: Sequence[Output], axes: Axes, make: Make, most_cells: int, inexact: Tolerance | None = None
) -> Padding | str:
    """The padding that was shown to change no answer, or why it was not.

    Samples of several lengths are run alone, and padded together in two orders. The same once more with the padding
    declared to be data: if that changes nothing either, the samples could not have shown a mask that is ignored.
    inexact: as in tolerance_of.
    """
    samples = [
        _say_what_counts(make(length, rows, rows, scale), axes, length, own_padding=rows == 2)
        for rows, (length, scale) in enumerate(zip(LENGTHS, SCALES, strict=True), start=1)
    ]
    alone = [run(sample) for sample in samples]
    cut = _axes_to_cut(outputs, alone)
    if isinstance(cut, str):
        return cut
    padding = Padding(axes, cut, most_cells)
    rows = [len(sample[0]) for sample in samples]
    longest = max(LENGTHS)
    try:
        for order in (range(len(samples)), range(len(samples) - 1, -1, -1)):
            stacked = run(padding.stack([samples[number] for number in order], longest))
            parts = padding.split(stacked, [rows[number] for number in order], [LENGTHS[number] for number in order])
            for number, part in zip(order, parts, strict=True):
                for output, one, other in zip(outputs, part, alone[number], strict=True):
                    if (text := difference(output, one, other, inexact)) is not None:
                        return f"output {output.name!r} differs when rows are padded{text}"
        # The longest sample has no padding, and says nothing here.
        everything = _say_what_counts(padding.stack(samples, longest), axes, longest)
        parts = padding.split(run(everything), rows, LENGTHS)
    except RowsError as error:
        return str(error)
    if not any(
        difference(output, one, other, inexact) is not None
        for number, length in enumerate(LENGTHS)
        if length < longest
        for output, one, other in zip(outputs, parts[number], alone[number], strict=True)
    ):
        return f"{_names_of(axes)} changed no answer of the samples, so that nothing is proved"
    return padding


def _say_what_counts(arrays: Sequence[Array], axes: Axes, length: int, *, own_padding: bool = False) -> list[Array]:
    """The same inputs, with mask and lengths that say that all cells count; with `own_padding` all but the first row's last."""
    told = list(arrays)
    for number in axes.masks:
        told[number] = np.ones_like(arrays[number])
        axis = axes.padded[number]
        if own_padding and axis is not None:
            told[number][0][_along(axis - 1, -1)] = 0
    for number in axes.lengths:
        told[number] = np.full_like(arrays[number], length)
        if own_padding:
            told[number][0] = length - 1
    return told


def _axes_to_cut(outputs: Sequence[Output], answers: Sequence[Sequence[Any]]) -> tuple[tuple[int, ...], ...] | str:
    """For each output its axes that have the length of the inputs, or why that cannot be said. `answers`: of LENGTHS."""
    cut = []
    for number, output in enumerate(outputs):
        shapes = [getattr(answer[number], "shape", None) for answer in answers]
        if any(shape is None or len(shape) != len(shapes[0] or ()) or not shape for shape in shapes):
            return f"output {output.name!r} is not one tensor with a row for each row"
        axes = []
        for axis, sizes in enumerate(zip(*[shape or () for shape in shapes], strict=True)):
            if not axis or len(set(sizes)) == 1:
                continue
            if sizes != LENGTHS:
                return (
                    f"axis {axis} of output {output.name!r} has the size {sizes[0]} where the inputs have {LENGTHS[0]}"
                )
            axes.append(axis)
        cut.append(tuple(axes))
    return tuple(cut)


def _names_of(axes: Axes) -> str:
    return " and ".join(["the mask"] * bool(axes.masks) + ["the lengths"] * bool(axes.lengths))
