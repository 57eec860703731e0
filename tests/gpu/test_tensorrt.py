"""TensorRT on a GPU: engines are kept, no request builds one, and a session is swapped in behind a serving one.

These need an NVIDIA GPU, onnxruntime-gpu and TensorRT 10 (`libnvinfer.so.10`), which PyPI has as tensorrt-cu13==10.*.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from scoring_runtime.onnx import exactness, gpu, tensorrt
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan
from scoring_runtime.onnx.session import RunRefusedError
from scoring_runtime.scorer.loop import LoadError

ONNX_NAME = "TensorrtExecutionProvider"
BUILD_S = 600


def why_not_here() -> str:
    if ONNX_NAME not in onnxruntime.get_available_providers():
        return f"this onnxruntime {onnxruntime.__version__} has no TensorRT: it is not onnxruntime-gpu"
    if gpu.look(0) is None:
        return "there is no NVIDIA GPU, or no driver"
    if gpu.tensorrt_version() is None:
        return "TensorRT is not installed: libnvinfer.so.10 was not found"
    return ""


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(BUILD_S),
    pytest.mark.skipif(bool(why_not_here()), reason=why_not_here()),
]


def plan_of(path: Path, cache: Path, **more: Any) -> SessionPlan:
    return SessionPlan(path, 1, ("tensorrt", "cuda"), cache_dir=cache, most_rows=8, **more)


def files(cache: Path, suffix: str) -> list[Path]:
    return sorted(cache.glob(f"tensorrt/*/*{suffix}"))


def states(cache: Path) -> list[tuple[Path, int, int]]:
    """What of the engines would change by a build."""
    return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files(cache, ".engine")]


def pictures(rows: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).uniform(0, 1, (rows, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def path(real_model):
    return real_model("orientation").path


@pytest.fixture(scope="module")
def kept(path, tmp_path_factory):
    """A cache with the engines of a model, and how long they took to build."""
    cache = tmp_path_factory.mktemp("engines")
    began = time.monotonic()
    opened = tensorrt.open_runner(plan_of(path, cache), "orientation")
    assert opened.runner.providers[0] == ONNX_NAME
    return cache, time.monotonic() - began


def test_engines_are_kept_with_what_they_were_built_for(kept):
    cache, _ = kept
    assert files(cache, ".engine")
    (manifest,) = cache.glob("tensorrt/*.json")
    text = manifest.read_text()
    device = gpu.look(0)
    assert device is not None
    for part in (device.name, device.compute_capability, "x:1x3x224x224", "x:8x3x224x224", onnxruntime.__version__):
        assert part in text


def test_the_second_start_is_quick_and_builds_nothing(path, kept):
    cache, built_s = kept
    before = states(cache)
    began = time.monotonic()
    tensorrt.open_runner(plan_of(path, cache), "orientation")
    assert time.monotonic() - began < built_s / 2
    assert states(cache) == before


def test_no_request_builds_an_engine(path, kept):
    cache, built_s = kept
    runner = tensorrt.open_runner(plan_of(path, cache), "orientation").runner
    before = states(cache)
    for rows in (1, 2, 3, 5, 8, 4):
        began = time.monotonic()
        runner.run([pictures(rows)])
        assert time.monotonic() - began < min(1.0, built_s / 2)
    assert states(cache) == before
    with pytest.raises(RunRefusedError, match="axis 0 is 9; the engine was built for 1 to 8"):
        runner.run([pictures(9)])
    assert states(cache) == before


def test_answers_are_those_of_the_cpu(path, kept):
    cache, _ = kept
    allowed, _ = exactness.of_tensorrt({})
    runner = tensorrt.open_runner(plan_of(path, cache), "orientation").runner
    direct = open_session(SessionPlan(path, 1, ("cpu",)))
    for rows in (1, 8):
        (output,), (expected,) = runner.run([pictures(rows)]), direct.run([pictures(rows)])
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(output, expected, rtol=allowed.relative, atol=allowed.of_largest * largest)


def test_a_damaged_engine_is_built_again_once(path, kept, tmp_path, caplog):
    source, _ = kept
    cache = tmp_path / "damaged"
    shutil.copytree(source, cache, copy_function=shutil.copy2)
    for engine in files(cache, ".engine"):
        engine.write_bytes(engine.read_bytes()[:1000])
    runner = tensorrt.open_runner(plan_of(path, cache), "orientation").runner
    assert "are damaged" in caplog.text
    runner.run([pictures(2)])
    assert all(engine.stat().st_size > 1000 for engine in files(cache, ".engine"))


def test_sizes_of_free_axes_are_asked_for(real_model, tmp_path):
    with pytest.raises(LoadError, match=r"--provider-option tensorrt\.trt_profile_min_shapes="):
        tensorrt.open_runner(plan_of(real_model("lac").path, tmp_path), "lac")
