"""The one table of element types: what ONNX Runtime, numpy, JSON and the Open Inference Protocol call them, and how exactly two answers agree."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two numbers agree when they differ by at most `relative` of the second, plus `of_largest` of the tensor's largest."""

    relative: float
    of_largest: float


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type of tensors."""

    name: str
    onnx: str
    datatype: str
    """Its name in the Open Inference Protocol."""
    array: np.dtype[Any]
    """What arrays of it hold between decoding and encoding. The session turns bfloat16, which numpy lacks, into bits."""
    json_types: frozenset[type]
    """The Python types that parsed JSON may have for it."""
    buffer: str | None
    """The kind of buffer that simdjson fills for it: d(ouble), i(nt64) or u(int64); None when it has none."""
    low: float
    high: float
    """The least and the greatest number it can hold; 0 for what holds no numbers."""
    tolerance: Tolerance | None
    """None: values are equal or they are not."""

    @property
    def kind(self) -> str:
        """One of numpy's letters: f, i, u, b, or O for strings."""
        return self.array.kind


_NUMBERS = frozenset((int, float))
_INTEGERS = frozenset((int,))
# Single precision loses about 1e-7 in each operation, and a matrix product of another height adds in another order.
_SINGLE = Tolerance(1e-5, 1e-6)
_HALF = Tolerance(4e-3, 1e-3)


def _floating(name: str, onnx: str, datatype: str, array: str, tolerance: Tolerance) -> Dtype:
    limits = np.finfo(array)
    return Dtype(
        name,
        f"tensor({onnx})",
        datatype,
        np.dtype(array),
        _NUMBERS,
        "d",
        float(limits.min),
        float(limits.max),
        tolerance,
    )


def _integer(name: str) -> Dtype:
    limits = np.iinfo(name)
    array = np.dtype(name)
    return Dtype(name, f"tensor({name})", name.upper(), array, _INTEGERS, array.kind, limits.min, limits.max, None)


TABLE = (
    _floating("float16", "float16", "FP16", "float16", _HALF),
    _floating("bfloat16", "bfloat16", "BF16", "float32", Tolerance(2e-2, 8e-3)),
    _floating("float32", "float", "FP32", "float32", _SINGLE),
    _floating("float64", "double", "FP64", "float64", _SINGLE),
    *(_integer(f"{sign}int{bits}") for bits in (8, 16, 32, 64) for sign in ("", "u")),
    Dtype("bool", "tensor(bool)", "BOOL", np.dtype(bool), frozenset((bool,)), None, 0, 0, None),
    Dtype("string", "tensor(string)", "BYTES", np.dtype(object), frozenset((str,)), None, 0, 0, None),
)

BY_ONNX_TYPE = {dtype.onnx: dtype for dtype in TABLE}
BY_NAME = {dtype.name: dtype for dtype in TABLE}


def bfloat16_bits(values: Array) -> Array:
    """The bit patterns (uint16) of float32 values in bfloat16, rounded half to even as the hardware does."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # Rounding could carry the payload of a NaN over into the sign: NaNs keep their upper half and a quiet bit.
    return np.where(np.isnan(values), (bits >> 16) | 0x0040, rounded).astype(np.uint16)


def bfloat16_values(bits: Array) -> Array:
    """The float32 values of bfloat16 bit patterns. Exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
