"""How exactly a provider computes: by how much floats may differ between two runs that should give the same. Pure.

On a CPU a row comes out the same in any company, up to the last digits. A GPU chooses its algorithms by the shape of the whole
batch: a row alone and a row of 32 are multiplied by different kernels, some of them in TF32, which keeps ten bits. That is no
reason to call rows dependent on each other: a model that mixes them shows differences as large as its values.
"""

from collections.abc import Mapping

from .dtypes import BY_NAME, Tolerance

_KERNELS = Tolerance(1e-4, 1e-5)
_QUANTISED = Tolerance(1e-1, 5e-2)
_ON = ("1", "true", "True")


def of_provider(name: str, options: Mapping[str, str]) -> tuple[Tolerance, str] | None:
    """How far floats may differ, and why so far; None where the tolerance of their type is enough. By our names.

    options: with which the provider is opened.
    """
    if name == "cuda":
        if options.get("use_tf32", "1") in _ON:
            return _of_type("float16"), _TF32
        return _KERNELS, "kernels are chosen by the shape of a batch, and add in other orders"
    if name == "tensorrt":
        return of_tensorrt(options)
    if name == "openvino":
        if options.get("device_type", "CPU") == "CPU" and options.get("precision", "").upper() in ("FP32", "F32"):
            return None
        return _of_type("bfloat16"), "OpenVINO rounds to halves between layers"
    return None


_TF32 = "products of single precision are made in TF32, which has the ten bits of a half"


def of_tensorrt(options: Mapping[str, str]) -> tuple[Tolerance, str]:
    """The same, of TensorRT with these options."""
    if options.get("trt_int8_enable") in _ON:
        return _QUANTISED, "trt_int8_enable keeps eight bits"
    if options.get("trt_fp16_enable") in _ON or options.get("trt_bf16_enable") in _ON:
        return _of_type("bfloat16"), "trt_fp16_enable or trt_bf16_enable rounds to halves between layers"
    return _of_type("float16"), _TF32


def wider(one: Tolerance, other: Tolerance | None) -> Tolerance:
    """What both allow."""
    if other is None:
        return one
    return Tolerance(max(one.relative, other.relative), max(one.of_largest, other.of_largest))


def _of_type(name: str) -> Tolerance:
    found = BY_NAME[name].tolerance
    assert found is not None
    return found
