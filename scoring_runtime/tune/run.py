"""The command `tune`, top to bottom: look at the model and the machine, search, conclude."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import UsageError
from ..pool import orphans
from ..settings import Settings
from ..target import Target
from . import bodies, conclusion, evidence, look
from .conclusion import Found, Grounds
from .measure import Bench
from .order import Order
from .progress import Progress
from .search import Search, Step
from .server import shared
from .space import Ground, is_open

MADE_UP = (
    "No --samples: measured with made-up inputs of one row each. Real requests may be larger, and take other ways through "
    "the model."
)


def tune(
    target: Target, settings: Settings, given: Mapping[str, Any], order: Order, environ: Mapping[str, str]
) -> Found:
    """Find the settings. `given`: those that the user has chosen, which are not searched.

    Raises TuneError when none keeps the limit, UsageError when it cannot begin.
    """
    _check(target, order)
    samples, source = bodies.read(order.samples), ", ".join(order.samples)
    progress = Progress(sys.stderr, ends_at := time.monotonic() + order.budget_s)
    search, grounds, interrupted = None, None, False
    orphans.adopt()
    with _stopped_by_signals(), tempfile.TemporaryDirectory(prefix="scoring-runtime-tune-") as folder:
        try:
            facts = look.at_model(target, settings, order, environ, ends_at)
            fixed = shared({name: getattr(settings, name) for name in given if not is_open(name, given[name])})
            working = look.working_providers(target, settings, order, given, environ, progress, ends_at)
            if not samples:
                samples, source = look.made_up(facts), "made up"
                progress.say(MADE_UP)
            grounds = Grounds(evidence.observe(target.path, facts.files), facts, samples, source, fixed)
            bench = Bench(
                target.path, fixed, samples, facts.tolerances, order.slo_p99_ms, Path(folder), progress.detail
            )
            started_s = bench.ask_reference(ends_at - time.monotonic())
            search = Search(
                Ground(max(1, int(evidence.usable_cpus())), working, facts.info["batchable"], fixed),
                bench.measure,
                order.slo_p99_ms,
                ends_at,
                started_s,
                time.monotonic,
                lambda step: progress.step(step.number, step.of, _describe(step)),
            )
            search.run()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            progress.end()
            orphans.end()
    if search is None or grounds is None:
        return conclusion.NOTHING_MEASURED
    return conclusion.conclude(target, order, search, grounds, interrupted)


def _check(target: Target, order: Order) -> None:
    """What can be seen before anything is spent."""
    if target.engine != "onnx":
        raise UsageError(
            f"{target.path}: tune searches settings of ONNX models. A script's answers may depend on more than the request, "
            "so that they cannot be compared: measure --scorers and --max-batch-size by serving it."
        )
    if not Path(order.out).name:
        raise UsageError("--out: expected the name of a file, got none.")
    out, reports = Path(order.out), order.report_paths(target.name)
    if out in reports:
        raise UsageError(
            f"--out {out}: the report would be written there, too. Name a .json file, or another --report."
        )
    for path in (out, *reports):
        if path.is_dir() or not _takes_files(path.absolute().parent):
            raise UsageError(f"{path}: no file can be written there. Name one in a folder that exists.")


def _takes_files(folder: Path) -> bool:
    """Tried, not asked for: root may do anything, but not where the system takes no files."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the search as Ctrl-C does, so that no server outlives it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe(step: Step) -> str:
    return f"{step.candidate}{', again' if step.again else ''}"
