"""Tensors as raw bytes: the binary tensor data extension of the Open Inference Protocol.

Numbers follow each other as in memory, row by row, little-endian as on every machine that ONNX Runtime is built for. A
string is its length in bytes (u32) and its UTF-8.
"""

from math import prod
from struct import Struct

import numpy as np

from scoring_runtime.onnx.dtypes import Array, Dtype, bfloat16_bits, bfloat16_values
from scoring_runtime.onnx.tensors import BadInputError, Tensor, shape_text

Blob = bytes | bytearray | memoryview

_LENGTH = Struct("<I")


def from_bytes(data: memoryview, tensor: Tensor, shape: tuple[int, ...]) -> Array:
    """The array that `data` holds for an input; BadInputError when it is not exactly that.

    Nothing is copied where numpy has the type: the array is as read-only as `data`, and need not be aligned.
    """
    dtype = tensor.dtype
    count = prod(shape)
    if dtype.kind == "O":
        return np.array(_texts(data, tensor, count), object).reshape(shape)
    each_bytes = 2 if dtype.name == "bfloat16" else dtype.array.itemsize
    if len(data) != count * each_bytes:
        what = f"{dtype.datatype} {shape_text(shape)} takes {count * each_bytes} bytes"
        raise BadInputError(f"input {tensor.name!r}: {what}; given: {len(data)}")
    if not count:
        return np.empty(shape, dtype.array)
    if dtype.name == "bfloat16":
        return bfloat16_values(np.frombuffer(data, np.uint16)).reshape(shape)
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max() > 1:
        raise BadInputError(f"input {tensor.name!r}: a byte of a BOOL is neither 0 nor 1")
    return np.frombuffer(data, dtype.array).reshape(shape)


def to_bytes(array: Array, dtype: Dtype) -> Blob:
    """The bytes of an output. They may be those of the array itself."""
    if dtype.kind == "O":
        texts = [str(text).encode() for text in array.ravel().tolist()]
        return b"".join([part for text in texts for part in (_LENGTH.pack(len(text)), text)])
    if dtype.name == "bfloat16":
        array = bfloat16_bits(array)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _texts(data: memoryview, tensor: Tensor, count: int) -> list[str]:
    texts = []
    at = 0
    if count * _LENGTH.size <= len(data):  # else it is not even worth a look
        for _ in range(count):
            end = at + _LENGTH.size
            if end > len(data):
                break
            at, end = end, end + _LENGTH.unpack_from(data, at)[0]
            if end > len(data):
                break
            try:
                texts.append(str(data[at:end], "utf-8"))
            except UnicodeDecodeError:
                raise BadInputError(f"input {tensor.name!r}: string {len(texts)} is not UTF-8") from None
            at = end
    if len(texts) != count or at != len(data):
        what = f"{len(data)} bytes do not hold exactly {count} strings, each after its length (u32, little-endian)"
        raise BadInputError(f"input {tensor.name!r}: {what}")
    return texts
