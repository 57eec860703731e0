"""Has the hot path become slower? Two checks that hold on a noisy machine.

Instructions: how many a request takes in each of the hot paths (hot_paths.py), counted by valgrind. The same code counts the
same on any day, within a percent; more than the bound, which leaves a tenth, is a regression. Counts belong to one version
of Python and to what is installed with it. Ratio: CPU time per request next to a null server in the same, interleaved run;
its bound is wide. Bounds are kept in guard.json; `--update` writes them from what is found.
"""

import argparse
import concurrent.futures
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measured
from benchmarks.hot_paths import CONNECTIONS, PATHS

HERE = Path(__file__).resolve().parent
BOUNDS = HERE / "guard.json"
BATCHES = 100
COUNTS = 3
ROOM = 1.10
"""What is allowed above what was found when the bounds were written."""

RATIO_ROOM = 1.75
LOAD = "32 connections"
COUNT_TIMEOUT_S = 300
_PROGRAM = (sys.executable, "-m", "benchmarks.hot_paths", "--batches", str(BATCHES))


class GuardError(Exception):
    """Nothing can be said; the message says what is missing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the bounds from what is found")
    parser.add_argument("--skip-ratio", action="store_true", help="count instructions only")
    arguments = parser.parse_args()
    try:
        found: dict[str, float] = {f"instructions {path}": count for path, count in count_all().items()}
        if not arguments.skip_ratio:
            found["ratio to null"] = ratio_to_null()
        if arguments.update:
            update(found)
            return 0
        return judge(found, read_bounds())
    except GuardError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2


def judge(found: dict[str, float], bounds: dict[str, float]) -> int:
    """Print each number beside its bound; 1 when one is above."""
    above = 0
    for name, value in found.items():
        if name not in bounds:
            raise GuardError(f"{BOUNDS.name} has no bound for {name!r}: make bench-guard BENCH_ARGS=--update")
        above += value > bounds[name]
        print(f"{name}: {value:,.4g} per request, at most {bounds[name]:,.4g}{' <-- ABOVE' * (value > bounds[name])}")
    if above:
        print(
            "A request has become dearer. If that is its worth, write new bounds: make bench-guard BENCH_ARGS=--update"
        )
    return 1 if above else 0


def version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def read_bounds() -> dict[str, float]:
    bounds: dict[str, dict[str, float]] = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {}
    if version() not in bounds:
        raise GuardError(f"{BOUNDS.name} has no bounds for Python {version()}: make bench-guard BENCH_ARGS=--update")
    return bounds[version()]


def update(found: dict[str, float]) -> None:
    bounds = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {}
    own = bounds.setdefault(version(), {})
    for name, value in found.items():
        own[name] = round(value * RATIO_ROOM, 1) if name == "ratio to null" else round(value * ROOM)
        print(f"{name}: {value:,.4g} per request, from now on at most {own[name]:,.4g}")
    BOUNDS.write_text(json.dumps(bounds, indent=1, sort_keys=True) + "\n")


# Instructions --------------------------------------------------------------------------------------------------------


def count_all() -> dict[str, float]:
    """Path -> instructions per request, the least of a few counts: rarely one is dearer, by how memory happens to lie."""
    if shutil.which("valgrind") is None:
        raise GuardError("valgrind is missing: make bench-apt")
    _run(_PROGRAM)  # what Python caches is there when it counts
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        counts = list(pool.map(lambda _: count(), range(COUNTS)))
    return {path: min(each[path] for each in counts) for path in PATHS}


def count() -> dict[str, float]:
    """Path -> instructions per request, counted once."""
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        out = Path(folder) / "counts"
        _run(["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", *_PROGRAM])
        totals = {path: _read(out.with_name(f"{out.name}.{number}")) for number, path in enumerate(PATHS, 1)}
    return {path: total / BATCHES / CONNECTIONS for path, total in totals.items()}


def _read(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE) if dump.exists() else None
    if found is None or int(found[1]) < BATCHES:
        raise GuardError(f"valgrind counted nothing: {dump.name}")
    return int(found[1])


def _run(command: Sequence[str]) -> None:
    """Run in an environment that is the same everywhere."""
    try:
        subprocess.run(
            command,
            cwd=HERE.parent,
            env={"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COUNT_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise GuardError(f"{' '.join(command)} ended with {error.returncode}: {error.stderr[-2000:]}") from None
    except subprocess.TimeoutExpired:
        raise GuardError(f"{' '.join(command)} took longer than {COUNT_TIMEOUT_S} s") from None


# Ratio ---------------------------------------------------------------------------------------------------------------


def ratio_to_null() -> float:
    """CPU per request of ours over the null server's, medians of a short, interleaved run."""
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        suite = [sys.executable, "-m", "benchmarks.suite", "--results", folder, "--only", "small", "--load", LOAD]
        suite += ["--server", "null", "--server", "ours", "--repeats", "3", "--seconds", "1"]
        done = subprocess.run(suite, cwd=HERE.parent, capture_output=True, text=True, check=False)
        results = measured.read(Path(folder))
    if done.returncode or "small" not in results:
        raise GuardError(f"the suite did not run: {done.stderr[-2000:]}")
    values = {name: results["small"].value(name, LOAD, measured.CPU_US) for name in ("ours", "null")}
    medians = [value.median for value in values.values() if value is not None]
    if len(medians) < 2:
        raise GuardError(f"the runs failed: {results['small'].failures()}")
    return medians[0] / medians[1]


if __name__ == "__main__":
    sys.exit(main())
