"""Made-up inputs that suit what a model declares: for warming up, for the proof of batching, and as an example request.

A declaration says little of what a model accepts: a tensor of int64 may hold token numbers, flags, lengths or a sampling
rate, and a free axis may demand a multiple of 32. So there are several guesses, to be tried in order until one runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .dtypes import Array
from .tensors import Size, Tensor

FREE_SIZES = (32, 64, 16, 1, 224)
"""For free axes other than the first."""

INTEGERS = ("small", "by name", "flags", "ones", "zeros")
"""Families of integers. `by name`: small ones, but masks are ones and types are zeros, as in language models."""

SCALES = ((0.0, 1.0), (-3.0, 3.0), (0.0, 100.0))
"""Ranges of floats, one for each sample: a model that scales by its whole batch shows it when the ranges differ."""

MOST_CELLS = 1 << 22
WORDS = ("the", "quick", "brown", "fox", "jumps over", "the lazy dog", "setosa", "Lorem ipsum dolor sit amet", "42", "")


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to fill the inputs of a model."""

    inputs: Sequence[Tensor]
    free_size: int
    integers: str
    usual: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Sizes by input, where somebody has said them: they are taken in place of `free_size`."""

    @property
    def varied(self) -> bool:
        """Whether rows differ from each other at all: samples of equal rows prove nothing."""
        return any(
            tensor.dtype.kind not in "iu"
            or _range_of(self.integers, tensor.name)[1] > 1 + _range_of(self.integers, tensor.name)[0]
            for tensor in self.inputs
        )

    def make(self, rows: int, seed: int, scale: tuple[float, float] = SCALES[0]) -> list[Array]:
        """Inputs of `rows` rows. The same arguments make the same inputs."""
        random = np.random.default_rng(seed)
        return [self._fill(tensor, self.shape(tensor, rows), random, scale) for tensor in self.inputs]

    def fill(
        self, shapes: Mapping[str, tuple[int, ...]], seed: int, scale: tuple[float, float] = SCALES[0]
    ) -> list[Array]:
        """Inputs of these shapes by name, and of one row where none is given."""
        random = np.random.default_rng(seed)
        return [self._fill(each, shapes.get(each.name) or self.shape(each, 1), random, scale) for each in self.inputs]

    def shape(self, tensor: Tensor, rows: int) -> tuple[int, ...]:
        batch = {each.shape[0] for each in self.inputs if each.shape and isinstance(each.shape[0], str)}
        usual = self.usual.get(tensor.name, ())

        def size_of(axis: int, size: Size) -> int:
            if isinstance(size, int):
                return size
            if axis == 0 or size in batch:
                return rows
            return usual[axis] if usual else self.free_size

        return tuple([size_of(axis, size) for axis, size in enumerate(tensor.shape or ())])

    def _fill(
        self, tensor: Tensor, shape: tuple[int, ...], random: np.random.Generator, scale: tuple[float, float]
    ) -> Array:
        if tensor.dtype.kind == "f":
            # Few digits: read well in an example, and are the same number in every width of float.
            return random.uniform(*scale, shape).round(2).astype(tensor.dtype.array)
        if tensor.dtype.kind == "b":
            return random.integers(0, 2, shape).astype(bool)
        if tensor.dtype.kind == "O":
            return random.choice(np.array(WORDS, object), shape)
        return random.integers(*_range_of(self.integers, tensor.name), shape).astype(tensor.dtype.array)


def guesses(inputs: Sequence[Tensor], usual: Mapping[str, tuple[int, ...]] | None = None) -> Iterator[Guess]:
    """What to try, likeliest first. None for shapes that are too large to try. usual: as in Guess."""
    integers = INTEGERS if any(tensor.dtype.kind in "iu" for tensor in inputs) else INTEGERS[:1]
    seen = set()
    for free_size in FREE_SIZES:
        for family in integers:
            guess = Guess(inputs, free_size, family, usual or {})
            shapes = tuple([guess.shape(tensor, 1) for tensor in inputs])
            cells = sum(float(np.prod(shape, dtype=np.float64)) for shape in shapes)
            if (shapes, family) not in seen and cells <= MOST_CELLS:
                seen.add((shapes, family))
                yield guess


def _range_of(family: str, name: str) -> tuple[int, int]:
    """The least integer and the one after the greatest."""
    if family == "by name":
        if "mask" in name:
            return 1, 2
        return (0, 1) if "type" in name else (1, 10)
    return {"small": (1, 10), "flags": (0, 2), "ones": (1, 2), "zeros": (0, 1)}[family]
