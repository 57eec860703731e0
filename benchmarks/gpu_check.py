"""Does a model really run on the GPU of this machine, does it give the same answers there, and is it served as fast as it runs?

Needs no network. `make gpu-check`, or on a machine where nothing can be installed, from this repository's folder:

    python -m benchmarks.gpu_check --path FOLDER_WITH_PACKAGES

`--provider cpu` rehearses it: the same steps on this CPU, but for those that only a GPU can take.
"""

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.gpu_steps import Check

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/gpu-check.json"
NO_GPU = 2
"""The exit code where there is nothing to check."""


def why_no_gpu() -> str | None:
    """Asked of the driver itself, before anything else is imported."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "NVIDIA's driver is not installed (libcuda.so.1)"
    count = ctypes.c_int(0)
    if (code := driver.cuInit(0)) or (code := driver.cuDeviceGetCount(ctypes.byref(count))):
        return f"the driver finds no usable GPU (CUDA error {code})"
    return None if count.value else "the driver sees none"


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    names = (
        "onnxruntime",
        "onnxruntime-gpu",
        "numpy",
        "nvidia-cudnn-cu13",
        "nvidia-cuda-runtime",
        "nvidia-ml-py",
        "uvloop",
    )
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    cpus = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": versions,
        "commit": git.stdout.strip() or None,
        "load": os.getloadavg(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def run(check: "Check", only: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Take the steps; each is what it is whatever became of the others."""
    from benchmarks.gpu_steps import STEPS, FailedError, NotHereError

    for step in STEPS:
        name = step.__name__
        if only and name not in only:
            continue
        began = time.perf_counter()
        outcome: Mapping[str, Any]
        try:
            outcome = {"state": "ok", **step(check)}
        except (NotHereError, ModuleNotFoundError) as error:
            outcome = {"state": "not here", "says": str(error)}
        except FailedError as error:
            outcome = {"state": "failed", "says": str(error)}
        except Exception as error:  # noqa: BLE001 - the other steps are worth to be seen
            outcome = {"state": "failed", "says": f"{error!r}", "traceback": traceback.format_exc()}
        yield name, {**outcome, "seconds": round(time.perf_counter() - began, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse it (default: cuda)")
    parser.add_argument("--path", action="append", default=[], metavar="DIR", help="look for packages here; repeatable")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="only these; repeatable")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only these; repeatable")
    parser.add_argument("--short", action="store_true", help="few rows, one second of load")
    parser.add_argument("--port", type=int, default=0, help="of the server (default: any free one)")
    parser.add_argument(
        "--clients", type=int, default=max(1, (os.cpu_count() or 1) // 4), help="processes that load it"
    )
    parser.add_argument(
        "--json", type=Path, help=f"where the result goes (default on a GPU: {RESULT.relative_to(ROOT)})"
    )
    arguments = parser.parse_args()
    sys.path[:0] = [str(Path(path).resolve()) for path in arguments.path]
    if arguments.provider == "cuda" and (why := why_no_gpu()):
        print(f"gpu-check: there is no GPU on this machine: {why}. `--provider cpu` rehearses the check on a CPU.")
        return NO_GPU

    import onnxruntime

    from benchmarks import gpu_models, gpu_serving, gpu_steps

    if unknown := set(arguments.only) - (names := {step.__name__ for step in gpu_steps.STEPS}):
        parser.error(f"there is no step {', '.join(sorted(unknown))}: expected some of {', '.join(sorted(names))}")
    if arguments.provider == "cuda":
        onnxruntime.preload_dlls()
    models = [model for model in gpu_models.found() if not arguments.model or model.name in arguments.model]
    report: dict[str, Any] = {
        "provider": arguments.provider,
        "short": arguments.short,
        "machine": machine(),
        "steps": {},
    }
    print(f"{arguments.provider}: {', '.join(model.name for model in models)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        folder = Path(scratch)
        python = gpu_serving.interpreter(folder / "python")
        check = gpu_steps.Check(
            arguments.provider, models, python, folder, arguments.short, arguments.port, arguments.clients
        )
        for name, outcome in run(check, arguments.only):
            report["steps"][name] = outcome
            print(f"{outcome['state']:9} {name:12} {outcome['seconds']:6.1f} s  {outcome['says']}", flush=True)
    states = [outcome["state"] for outcome in report["steps"].values()]
    target = arguments.json or (RESULT if arguments.provider == "cuda" else None)
    if target is not None:
        target.write_text(json.dumps(report, indent=1) + "\n")
    print(f"gpu-check: {states.count('ok')} ok, {states.count('failed')} failed, {states.count('not here')} not here")
    return 1 if "failed" in states else 0


if __name__ == "__main__":
    sys.exit(main())
