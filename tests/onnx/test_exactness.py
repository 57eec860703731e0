"""How far answers may differ by provider: what differs by its kernels is stacked, and what mixes rows is not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from scoring_runtime import providers as table
from scoring_runtime.onnx import batch, exactness, providers
from scoring_runtime.onnx.dtypes import BY_NAME, Array, Tolerance
from scoring_runtime.onnx.plan import read
from scoring_runtime.onnx.tensors import Tensor

Y = Tensor("y", BY_NAME["float32"], ("N", 8))
SAMPLES = [[np.random.default_rng(rows).uniform(0, 10**rows, (rows, 256)).astype(np.float32)] for rows in (1, 2, 3)]
WEIGHTS = np.random.default_rng(9).normal(0, 1, (256, 8)).astype(np.float32)


def placed(name: str, **hello: Any) -> providers.Placement:
    """Where a model lies that was opened on this provider, whether or not this machine has it."""
    plan = read({"target": "m.onnx", "provider": name, **hello}, 1)
    machine = providers.Machine([*table.PROVIDERS], None)
    onnx_name = table.PROVIDERS[name].onnx_name
    _, placement = providers.place(plan, machine, lambda _: (None, [(onnx_name, "MatMul")]))
    return placement


def in_tf32(values: Array) -> Array:
    """Rounded to the ten bits that TF32 keeps."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: Array = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return rounded.view(np.float32)


def product(arrays: Sequence[Array]) -> list[Array]:
    """Single rows are multiplied exactly, batches in TF32, as cuBLAS may do it where it is allowed to."""
    (x,) = arrays
    return [x @ WEIGHTS if len(x) == 1 else in_tf32(x) @ in_tf32(WEIGHTS)]


def other_kernels(arrays: Sequence[Array]) -> list[Array]:
    """Single rows are added up in another order than batches, and products of single precision are rounded each."""
    (x,) = arrays
    if len(x) > 1:
        return [x @ WEIGHTS]
    total = np.zeros((1, 8), np.float32)
    for column in reversed(range(256)):
        total = total + x[:, column : column + 1] * WEIGHTS[column]
    return [total]


def mixing(arrays: Sequence[Array]) -> list[Array]:
    """Each row is scaled by the largest of the batch."""
    return [arrays[0][:, :8] / np.max(arrays[0])]


def rounding_by_batch(arrays: Sequence[Array]) -> list[Array]:
    """Eight bits between the least and the greatest value of the whole batch, as dynamic quantisation has them."""
    (x,) = arrays
    step = np.max(np.abs(x)) / 127
    return [(np.round(x / step) * step) @ WEIGHTS]


@pytest.mark.parametrize("option", ["", "cuda.use_tf32=1"])
def test_rows_that_mix_are_found_out_on_a_gpu_too(option):
    inexact = placed("cuda", provider_option=option).tolerance
    for function in (mixing, rounding_by_batch):
        assert batch.why_not_proved(function, SAMPLES, [Y], inexact) is not None


def test_kernels_chosen_by_shape_do_not_turn_batching_off_on_a_gpu():
    assert batch.why_not_proved(other_kernels, SAMPLES, [Y], placed("cuda").tolerance) is None


def test_tf32_is_off_by_default_and_batching_is_on_where_it_is_asked_for():
    assert batch.why_not_proved(product, SAMPLES, [Y], placed("cuda").tolerance) is not None
    asked = placed("cuda", provider_option="cuda.use_tf32=1")
    assert batch.why_not_proved(product, SAMPLES, [Y], asked.tolerance) is None
    assert providers.options("cuda", read({"target": "m.onnx"}, 1))["use_tf32"] == "0"


def test_a_cpu_is_as_exact_as_its_types():
    assert placed("cpu").tolerance is None
    assert placed("openvino").tolerance is None
    assert placed("openvino", provider_option="openvino.precision=BF16").tolerance == BY_NAME["bfloat16"].tolerance
    assert placed("tensorrt").tolerance == BY_NAME["float16"].tolerance


def test_the_wider_of_two_tolerances_counts():
    assert exactness.wider(Tolerance(1e-3, 1e-6), Tolerance(1e-4, 1e-5)) == Tolerance(1e-3, 1e-5)
    assert batch.tolerance_of(Tensor("n", BY_NAME["int64"], ("N",)), Tolerance(1, 1)) is None
