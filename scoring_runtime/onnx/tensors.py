"""What a model declares of its inputs and outputs, and the error that says that a request does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from .dtypes import Array, Dtype

Size = int | str | None
"""The size of an axis: fixed, or free under a name, or free without one."""


class BadInputError(Exception):
    """The request cannot be scored as it stands. The text is for the client."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor input or output as the model declares it. `shape` None: not even the rank is declared."""

    name: str
    dtype: Dtype
    shape: tuple[Size, ...] | None

    def __str__(self) -> str:
        return (
            f"{self.dtype.name} of any shape" if self.shape is None else f"{self.dtype.name} {shape_text(self.shape)}"
        )


@dataclass(frozen=True, slots=True)
class Sequential:
    """An output that is no tensor: a sequence or a map. `type` is ONNX's own spelling."""

    name: str
    type: str


Output = Tensor | Sequential


def shape_text(shape: Sequence[Size]) -> str:
    """`[N, 3, ?]`: a free axis without a name is a question mark."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def unequal_sizes(inputs: Sequence[Tensor], arrays: Sequence[Array]) -> str | None:
    """Which free axis of one name has two sizes in a request, as text; None when every name has one."""
    seen: dict[str, tuple[str, int]] = {}
    for tensor, array in zip(inputs, arrays, strict=True):
        for symbol, size in zip(tensor.shape or (), array.shape, strict=False):
            if not isinstance(symbol, str):
                continue
            first_name, first_size = seen.setdefault(symbol, (tensor.name, size))
            if size != first_size:
                return f"axis {symbol!r} has size {first_size} in input {first_name!r} and size {size} in input {tensor.name!r}"
    return None
