"""The steps of gpu_check.py: each proves one thing, and returns what it found."""

import dataclasses
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.gpu_models import ROOT, Inputs, Model, why_differs
from benchmarks.gpu_serving import binary_request, post_again, serving
from scoring_runtime.onnx.buckets import rows_of
from scoring_runtime.onnx.graphs import open_capturing
from scoring_runtime.onnx.loading import first_provider, open_session
from scoring_runtime.onnx.memory import Halving
from scoring_runtime.onnx.plan import read
from scoring_runtime.onnx.providers import Placement
from scoring_runtime.onnx.session import NO_GRAPH, Session
from scoring_runtime.scorer.frames import ROUTE_V2, Request

ONNX_NAMES = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
OPTIONS = {"cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}, "cpu": {}}
"""TF32 keeps ten bits of each factor: with it no output equals that of a CPU."""

LEAST_REAL_MODELS = 5
LONG_RUN_MS = 2.0
TARGET_SHARE = 0.95
"""Of the rows a second of a raw loop, for models whose run is at least that long."""
MOST_INPUT_BYTES_PER_S = 1e9
"""A raw loop that takes more than this is not a matter of the server: no client brings it over HTTP."""
REQUESTS_PER_BATCH = 16


class NotHereError(Exception):
    """A step cannot be taken on this machine, or in this build. The text says why."""


class FailedError(Exception):
    """A step did not show what it should."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What all steps are given."""

    provider: str
    models: Sequence[Model]
    python: Path
    """The isolated interpreter of the server."""
    folder: Path
    short: bool
    port: int
    clients: int

    @property
    def on_gpu(self) -> bool:
        return self.provider == "cuda"

    def model(self, *names: str) -> Model:
        """The first of these that there is."""
        for name in names:
            for model in self.models:
                if model.name == name:
                    return model
        raise NotHereError(f"there is none of the models {', '.join(names)}")

    def hello(self, model: Model, **more: Any) -> dict[str, Any]:
        """As the front would say it."""
        options = ";".join(f"{self.provider}.{name}={value}" for name, value in OPTIONS[self.provider].items())
        return {
            "target": str(model.path),
            "provider": self.provider,
            "provider_option": options,
            "log_level": "warning",
            **more,
        }


# Steps: each returns what it found, to be written down; a text under "says" is printed


def nodes(check: Check) -> dict[str, Any]:
    """The provider loads, and nodes of the models run on it."""
    found = {}
    for model in check.models:
        counts = _nodes_by_provider(_raw(check, model))
        found[model.name] = counts
    wanted = ONNX_NAMES[check.provider]
    on_it = [name for name, counts in found.items() if counts.get(wanted)]
    if not on_it:
        raise FailedError(f"no node of any model runs on {wanted}: {found}")
    parts = [f"{name} {counts.get(wanted, 0)} of {sum(counts.values())}" for name, counts in found.items()]
    return {"nodes": found, "says": f"nodes on {wanted}: {', '.join(parts)}"}


def parity(check: Check) -> dict[str, Any]:
    """The same outputs as on the CPU."""
    found = {}
    worst_of_all = 0.0
    for model in check.models:
        inputs = model.make(_random(), 5)
        here, there = _raw(check, model), _raw(check, model, "cpu")
        why, worst = why_differs(model, here.run(None, inputs), there.run(None, inputs))
        worst_of_all = max(worst_of_all, worst)
        tolerance = {"relative": model.relative, "of_largest": model.of_largest}
        found[model.name] = {"differs": why, "largest_difference": worst, "tolerance": tolerance}
    wrong = [f"{name}: {each['differs']}" for name, each in found.items() if each["differs"]]
    if wrong:
        raise FailedError("; ".join(wrong))
    real = sum(model.real for model in check.models)
    if real < LEAST_REAL_MODELS and not check.short:
        raise NotHereError(
            f"{real} real models agree; {LEAST_REAL_MODELS} are needed: give --path the others' packages"
        )
    return {
        "models": found,
        "says": f"{real} real models agree with the CPU, within {worst_of_all:.1e} of the largest value",
    }


def buckets(check: Check) -> dict[str, Any]:
    """Padded runs give the rows of unpadded ones; how each bucket runs was chosen by time."""
    found = {}
    for model in check.models:
        largest = 8 if check.short or not check.on_gpu else 64
        engine = _load(check.hello(model, batch_buckets=_powers(largest), max_batch_size=largest))
        if not engine.info["batchable"]:
            found[model.name] = {"why_not": engine.info["why_not_batchable"]}
            continue
        raw = _raw(check, model)
        for rows in (1, 3, largest - 1, largest + 3):
            inputs = model.make(_random(), rows)
            why, _ = why_differs(model, engine._session.run(_ordered(raw, inputs)), raw.run(None, inputs))
            if why:
                raise FailedError(f"{model.name}, {rows} rows: {why}")
        found[model.name] = {name: engine.info[name] for name in ("buckets", "why_no_cuda_graphs", "warm_up_ms")}
    padded = [name for name, each in found.items() if each.get("buckets")]
    if not padded:
        raise FailedError(f"no model runs in buckets: {found}")
    return {"models": found, "says": f"{', '.join(padded)}: padded rows are the plain ones"}


def binding(check: Check) -> dict[str, Any]:
    """Fixed memory on the device: the same outputs, none of which the next run overwrites; the time beside a plain run."""
    return _ways(check, capture=False)


def cuda_graphs(check: Check) -> dict[str, Any]:
    """Captured runs: the same outputs for other inputs, too; the time beside a plain run."""
    if not check.on_gpu:
        raise NotHereError("not on a CPU")
    return _ways(check, capture=True)


def memory(check: Check) -> dict[str, Any]:
    """A batch that does not fit is halved, and answered."""
    model = check.model("digits")
    session, rows = _little_memory(check, model)
    raw = _raw(check, model, "cpu")
    inputs = model.make(_random(), rows)
    arrays = _ordered(raw, inputs)
    runner = Halving(session)
    why, _ = why_differs(model, runner.run(arrays), raw.run(None, inputs))
    if why:
        raise FailedError(why)
    if runner.bound.most_bytes is None:
        raise FailedError(f"{rows} rows fitted: nothing was halved")
    fits = runner.bound.most_bytes * rows // sum(array.nbytes for array in arrays)
    return {"rows": rows, "fits": fits, "says": f"{rows} rows did not fit, ran in parts of {fits}, and are right"}


def nvml(check: Check) -> dict[str, Any]:
    """What the driver says of the GPU."""
    if not check.on_gpu:
        raise NotHereError("not on a CPU")
    if importlib.util.find_spec("pynvml") is None:
        raise NotHereError("nvidia-ml-py is not importable")
    import pynvml

    pynvml.nvmlInit()
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        used = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        gpus.append({"name": _text(pynvml.nvmlDeviceGetName(gpu)), "used": used.used, "total": used.total})
    return {
        "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
        "gpus": gpus,
        "says": ", ".join(f"{gpu['name']}: {gpu['used'] >> 20} of {gpu['total'] >> 20} MiB used" for gpu in gpus),
    }


def served(check: Check) -> dict[str, Any]:
    """Rows a second over HTTP with binary bodies, beside a raw loop at the same batch size, and beside one row a run."""
    names = ("digits",) if check.short else ("dense", "lac", "orientation")
    models = [model for model in check.models if model.name in names]
    found = {model.name: _serve_one(check, model) for model in models}
    missed = [
        f"{name}: {each['share_of_raw']:.0%} of the raw loop"
        for name, each in found.items()
        if each["judged"] and each["share_of_raw"] < TARGET_SHARE
    ]
    says = "; ".join(
        f"{name}: batches of {each['batch']} in {each['run_ms']:.2f} ms: {each['share_of_raw']:.0%} of the raw loop's "
        f"{each['raw_per_s']:.0f} rows/s{'' if each['judged'] else ' (not judged)'}, "
        f"{each['times_of_batch_1']:.1f} times that of one row a run"
        for name, each in found.items()
    )
    if missed and check.on_gpu:
        raise FailedError(f"below {TARGET_SHARE:.0%}: {'; '.join(missed)} ({says})")
    return {"models": found, "says": says}


def overlap(check: Check) -> dict[str, Any]:
    """The next frame is decoded while one runs: together they take less time than one after the other."""
    if not check.on_gpu:
        raise NotHereError("not on a CPU: decoding and running share it")
    model = check.model("orientation", "dense")
    found = _serve_one(check, model)
    one_by_one_ms = _decode_run_encode_ms(check, model, found["batch"], found["rows_per_request"])
    served_ms = found["batch"] / found["served_per_s"] * 1000
    says = f"{model.name}: a batch is served in {served_ms:.2f} ms; its parts one by one take {one_by_one_ms:.2f}"
    if served_ms >= one_by_one_ms:
        raise NotHereError(f"not seen: {says}")
    return {"served_ms": served_ms, "one_by_one_ms": one_by_one_ms, "says": says}


def tests(check: Check) -> dict[str, Any]:
    """The tests that are marked gpu."""
    if not check.on_gpu:
        raise NotHereError("not on a CPU")
    needed = ("pytest", "pytest_timeout", "hypothesis", "onnx", "sklearn", "skl2onnx", "psutil", "h11", "httpx")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise NotHereError(f"not importable: {', '.join(missing)}")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(ROOT)]))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    last = ended.stdout.strip().rpartition("\n")[2]
    if ended.returncode == 5:
        raise NotHereError("no test is marked gpu")
    if ended.returncode:
        raise FailedError(ended.stdout[-3000:])
    return {"says": last}


STEPS: tuple[Callable[[Check], dict[str, Any]], ...] = (
    *(nodes, parity, buckets, binding, cuda_graphs, memory, nvml, served, overlap, tests),
)


# What the steps are made of


def _raw(check: Check, model: Model, provider: str = "") -> Any:
    """A plain session, opened without any code of ours."""
    provider = provider or check.provider
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider == "cpu":
        options.intra_op_num_threads = 1
    asked = [(ONNX_NAMES[provider], OPTIONS[provider])]
    session = onnxruntime.InferenceSession(str(model.path), options, providers=asked, enable_fallback=0)
    session.disable_fallback()
    if session.get_providers()[0] != ONNX_NAMES[provider]:
        raise FailedError(f"{model.name} runs on {session.get_providers()}, not on {ONNX_NAMES[provider]}")
    return session


def _load(hello: dict[str, Any]) -> Any:
    """An engine. Imported here: it needs packages that not every step does."""
    from scoring_runtime.onnx.engine import load

    return load(hello)


def _nodes_by_provider(session: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _ordered(session: Any, inputs: Inputs) -> list[Any]:
    return [inputs[each.name] for each in session.get_inputs()]


def _ways(check: Check, *, capture: bool) -> dict[str, Any]:
    """Bound or captured runs of the models beside their plain runs."""
    sizes = (1, 8) if check.short or not check.on_gpu else (1, 8, 64)
    found: dict[str, Any] = {}
    for model in check.models:
        plan = read(check.hello(model, batch_buckets=_powers(sizes[-1]), cuda_graphs="auto" if capture else "off"), 1)
        session, why_not = open_capturing(plan, open_session, first_provider(plan))
        if capture and why_not:
            found[model.name] = {"why_not": why_not}
            continue
        times: dict[Any, Any] = {}
        for rows in reversed(sizes):
            first, second = (_ordered_as(session, model.make(_random(seed), rows)) for seed in (1, 2))
            if rows_of(first) is None:  # rows lie elsewhere than on the first axis
                break
            expected = [session.run(first), session.run(second)]
            bound = session.bind(first, expected[0], rows if capture else NO_GRAPH)
            if bound is None:
                break
            answers = [bound.run(first), bound.run(second), bound.run(first)]
            for answer, wanted in zip(answers, [*expected, expected[0]], strict=True):
                why, _ = why_differs(model, answer, wanted)
                if why:
                    raise FailedError(f"{model.name}, {rows} rows: {why}")
            pairs = [
                (_ms(session.run, first), _ms(bound.run, first))
                for _ in range(20 if _ms(session.run, first) < 50 else 3)
            ]
            plain_ms, bound_ms = (round(statistics.median(column), 4) for column in zip(*pairs, strict=True))
            times[rows] = {"plain_ms": plain_ms, "ms": bound_ms}
        found[model.name] = times or {"why_not": "its types cannot be bound"}
    shown = [
        f"{name} {rows} rows {each['plain_ms']:.3f} -> {each['ms']:.3f} ms"
        for name, times in found.items()
        for rows, each in times.items()
        if rows != "why_not"
    ]
    if not shown:
        raise FailedError(f"for no model: {found}")
    return {"models": found, "says": ", ".join(shown)}


def _ordered_as(session: Any, inputs: Inputs) -> list[Any]:
    return [inputs[each.name] for each in session.inputs]


def _little_memory(check: Check, model: Model) -> tuple[Any, int]:
    """A session with less memory than so many rows need."""
    if check.on_gpu:
        return open_session(read(check.hello(model, gpu_memory_mb=64), 1)), 1 << 20
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    limits = {"max_mem": 8 << 20, "arena_extend_strategy": 1, "initial_chunk_size_bytes": 1 << 20}
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(limits))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 4
    raw = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    return Session(raw, {}, 1, Placement({}, "CPU")), 1 << 17


def _serve_one(check: Check, model: Model) -> dict[str, Any]:
    raw = _raw(check, model)
    row_bytes = sum(array.nbytes for array in model.make(_random(), 1).values())
    batch = REQUESTS_PER_BATCH if check.short else 2 * REQUESTS_PER_BATCH
    while not check.short and batch < 4096 and batch * row_bytes < 1 << 25 and _run_ms(raw, model, batch) < LONG_RUN_MS:
        batch *= 2
    seconds, repeats = (1.0, 1) if check.short else (3.0, 3)
    flags = ["--provider", check.provider, "--log-level", "warning", "--batch-target-ms", "1000"]
    flags += ["--max-batch-bytes", str(1 << 28)]
    for name, value in OPTIONS[check.provider].items():
        flags += ["--provider-option", f"{check.provider}.{name}={value}"]
    asked = {"served": (batch, batch // REQUESTS_PER_BATCH), "batch_1": (1, 1)}
    rates: dict[str, list[float]] = {"raw": [], "served": [], "batch_1": []}
    for _ in range(repeats):  # interleaved: a machine that changes its pace does so for all
        rates["raw"].append(_raw_rows_per_s(raw, model, batch, seconds))
        for name, (most, rows) in asked.items():
            more = ["--max-batch-size", str(most)]
            connections = 4 * REQUESTS_PER_BATCH
            with serving(check.python, model.path, [*flags, *more], check.folder, check.port) as port:
                per_s = post_again(
                    *(port, model.path.stem, model.make(_random(), rows), connections, seconds),
                    *(check.clients, check.folder),
                )
            rates[name].append(per_s * rows)
    raw_per_s, served_per_s, alone_per_s = (statistics.median(rates[name]) for name in ("raw", "served", "batch_1"))
    run_ms = batch / raw_per_s * 1000
    return {
        "batch": batch,
        "rows_per_request": batch // REQUESTS_PER_BATCH,
        "run_ms": run_ms,
        "raw_per_s": raw_per_s,
        "served_per_s": served_per_s,
        "share_of_raw": served_per_s / raw_per_s,
        "times_of_batch_1": served_per_s / max(alone_per_s, 1e-9),
        "judged": run_ms >= LONG_RUN_MS and raw_per_s * row_bytes <= MOST_INPUT_BYTES_PER_S,
        "repeats": rates,
    }


def _run_ms(session: Any, model: Model, rows: int) -> float:
    inputs = model.make(_random(), rows)
    session.run(None, inputs)
    return min(_ms(lambda given: session.run(None, given), inputs) for _ in range(3))


def _raw_rows_per_s(session: Any, model: Model, rows: int, seconds: float) -> float:
    inputs = model.make(_random(), rows)
    session.run(None, inputs)
    began = time.perf_counter()
    runs = 0
    while (took := time.perf_counter() - began) < seconds:
        session.run(None, inputs)
        runs += 1
    return runs * rows / took


class _Replies:
    """Takes replies, and leaves them."""

    def add(self, *_: Any, **__: Any) -> None:
        """One."""

    def add_all(self, *_: Any) -> None:
        """Many."""

    def flush_if_due(self) -> None:
        """None waits."""


def _decode_run_encode_ms(check: Check, model: Model, batch: int, rows: int) -> float:
    """The time of a batch in the engine, with nothing beside it."""
    engine = _load(check.hello(model, max_batch_size=batch))
    headers, body = binary_request(model.make(_random(), rows))
    head = b"/v2/models/model/infer\n" + headers.splitlines()[-1].lower().encode()
    requests = [Request(number, 0, ROUTE_V2, 2, head, body) for number in range(batch // rows)]
    engine.score(requests, _Replies())
    return statistics.median(_ms(lambda given: engine.score(given, _Replies()), requests) for _ in range(10))


def _ms(run: Callable[[Any], Any], given: Any) -> float:
    began = time.perf_counter()
    run(given)
    return (time.perf_counter() - began) * 1000


def _random(seed: int = 1) -> Any:
    return np.random.default_rng(seed)


def _powers(most: int) -> str:
    return ",".join(str(1 << exponent) for exponent in range(most.bit_length()))


def _text(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)
