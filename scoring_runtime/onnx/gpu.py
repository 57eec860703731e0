"""What a built engine depends on beside the model: the GPU, its driver, TensorRT. Asked of the driver's own library."""

import contextlib
import ctypes
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_LIBRARY = "libnvinfer.so.10"
_PACKAGES = ("tensorrt-cu13-libs", "tensorrt-cu13", "tensorrt")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one part of one, as programs see it."""

    name: str
    compute_capability: str
    """As in `9.0`."""
    driver: str


def look(number: int) -> Gpu | None:
    """The GPU of this number, of those that CUDA_VISIBLE_DEVICES leaves; None when there is none, or no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), number):
        return None
    name = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGetName(name, len(name), device):
        return None
    capability = ".".join(_ask(cuda.cuDeviceGetAttribute, attribute, device) for attribute in (_MAJOR, _MINOR))
    driver = f"{driver_version()}, CUDA {_ask(cuda.cuDriverGetVersion)}"
    return Gpu(name.value.decode("utf-8", "replace"), capability, driver)


def _ask(function: Any, *arguments: Any) -> str:
    """The whole number that a function of the driver writes to its first argument."""
    value = ctypes.c_int()
    return UNKNOWN if function(ctypes.byref(value), *arguments) else str(value.value)


def driver_version() -> str:
    """Of the kernel module."""
    try:
        return parse_driver(_DRIVER_FILE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return UNKNOWN


def parse_driver(text: str) -> str:
    """The version in /proc/driver/nvidia/version."""
    found = re.search(r"Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else UNKNOWN


def tensorrt_version() -> str | None:
    """Of the TensorRT that ONNX Runtime would load: by the library's own number, or of its package; None for neither."""
    with contextlib.suppress(OSError, AttributeError):
        return str(ctypes.CDLL(_LIBRARY).getInferLibVersion())
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{package} {metadata.version(package)}"
    return None
