"""Host memory that a GPU reads without a copy in between: pinned, from the CUDA runtime that this process has loaded.

ONNX Runtime's Python offers none (its device type cuda_pinned is refused), so the runtime is asked itself.
"""

import ctypes
import os
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .dtypes import Array

LIBRARIES = ("libcudart.so.13", "libcudart.so.12")


def empty(shape: Sequence[int], dtype: "np.dtype[Any]", libraries: Sequence[str] = LIBRARIES) -> Array | None:
    """An array in pinned memory, which is given back with it; None where there is none to be had."""
    runtime = _loaded(libraries)
    size_bytes = prod(shape) * dtype.itemsize
    if runtime is None or not size_bytes:
        return None
    address = ctypes.c_void_p()
    if runtime.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size_bytes), ctypes.c_uint(0)) or not address.value:
        return None
    cells = (ctypes.c_char * size_bytes).from_address(address.value)
    # At the end of the process the driver takes back everything, and may be gone before we could.
    weakref.finalize(cells, runtime.cudaFreeHost, address).atexit = False
    array: Array = np.frombuffer(memoryview(cells).cast("B"), dtype)
    return array.reshape(shape)


def _loaded(libraries: Sequence[str]) -> ctypes.CDLL | None:
    """The CUDA runtime of this process. It is not loaded for this: a second one would have its own state."""
    for name in libraries:
        try:
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    return None
