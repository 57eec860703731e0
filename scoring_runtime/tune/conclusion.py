"""What came of a search: the text for the terminal, the page, the plot, and the file of settings with its evidence."""

import dataclasses
import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import TuneError
from ..target import Target
from . import evidence, page
from .answers import Tolerance
from .look import Facts
from .order import Order
from .ramp import Point
from .search import Search, Trial, choose, nearest
from .space import REFERENCE

INTERRUPTED_CODE = 130
CLIENT_IS_BUSY = 0.8
"""From this share of a CPU on, the maker of the load may be what limits the rate."""


@dataclass(frozen=True)
class Found:
    """What came of it."""

    text: str
    """For stdout."""
    exit_code: int = 0


NOTHING_MEASURED = Found("Interrupted before anything was measured: nothing was written.\n", INTERRUPTED_CODE)


@dataclass(frozen=True)
class Grounds:
    """What stands behind the numbers."""

    circumstances: evidence.Circumstances
    facts: Facts
    samples: Sequence[bytes]
    source: str
    fixed: Mapping[str, Any]


def conclude(target: Target, order: Order, search: Search, ground: Grounds, interrupted: bool) -> Found:
    slo = order.slo_p99_ms
    chosen = choose(search.trials, slo)
    lines = _paragraphs(target, order, search, ground)
    if interrupted:
        lines.append("Interrupted: this is what was measured until then.")
    measured = [trial for trial in search.trials if trial.runs or trial.rejected]
    if not measured and interrupted:
        return NOTHING_MEASURED
    text = [*lines, "", page.text_table(measured, slo, chosen), ""]
    page_path, plot_path = order.report_paths(target.name)
    title = f"{target.name}: answers a second within {slo:g} ms at p99"
    with _showing(text):
        _write(page_path, page.html(title, lines, measured, slo, chosen))
        _write(plot_path, page.draw(title, measured, slo, chosen))
    if chosen is None:
        text.append(f"Plot: {page_path} and {plot_path}. {order.out} was not written.")
        why = _why_none(search, slo)
        if interrupted:
            return Found("\n".join([*text, why, ""]), INTERRUPTED_CODE)
        raise TuneError(why, "\n".join(text))
    point = chosen.best(slo)
    assert point is not None
    settings = {**ground.fixed, **chosen.candidate.settings()}
    with _showing(text):
        evidence.write(Path(order.out), settings, _as_json(order, search.trials, chosen, point, ground, interrupted))
    text.append(
        f"Chosen: {chosen.candidate}: {point.throughput:,.0f} answers a second at p99 {point.p99_ms:.3g} ms with "
        f"{_count(point.clients, 'client')}, measured {_count(len(chosen.runs), 'time')}."
    )
    text.append(f"Settings: {order.out}. Plot: {page_path} and {plot_path}.")
    text.append(f"Serve: scoring-runtime serve {target.path} --config-file {order.out}")
    return Found("\n".join([*text, ""]), INTERRUPTED_CODE if interrupted else 0)


@contextmanager
def _showing(text: Sequence[str]) -> Iterator[None]:
    """A file that cannot be written takes nothing else with it: the table is shown all the same."""
    try:
        yield
    except TuneError as error:
        raise TuneError(error.message, "\n".join(text)) from None


def _paragraphs(target: Target, order: Order, search: Search, ground: Grounds) -> list[str]:
    """What must be known to read the table."""
    here = ground.circumstances
    gpus = f", {', '.join(here.gpus)}" if here.gpus else ""
    machine = f"{here.cpu}, {here.cpus:g} CPUs{gpus}; {here.onnxruntime}"
    samples = f"{_count(len(ground.samples), 'sample')}, {ground.source}"
    tolerances = ", ".join(f"{name} {_within(each)}" for name, each in ground.facts.tolerances.items())
    lines = [
        f"{target.path} on {machine}. {samples}. The load is made on the same machine.",
        f"Answers are compared with those of the reference ({REFERENCE}): {tolerances}.",
    ]
    if search.skipped:
        number = _count(search.skipped, "candidate")
        lines.append(f"There was no time for {number}: raise --budget-s, now {order.budget_s:g}.")
    if any(point.client_share > CLIENT_IS_BUSY for trial in search.trials for point in trial.points()):
        lines.append("Making the load took most of a CPU at the highest rates: the server may be able to do more.")
    return lines


def _within(tolerance: Tolerance | None) -> str:
    if tolerance is None:
        return "exactly"
    return f"within {tolerance.relative:g} of a value plus {tolerance.of_largest:g} of the largest"


def _why_none(search: Search, slo_p99_ms: float) -> str:
    near = nearest(search.trials)
    if near is None:
        reasons = [trial.rejected.why for trial in search.trials if trial.rejected is not None]
        return f"no candidate serves the model as the reference does: {reasons[0] if reasons else 'none was measured'}"
    trial, point = near
    text = f"no setting keeps p99 within {slo_p99_ms:g} ms; nearest is {trial.candidate} with {point.p99_ms:.3g} ms"
    text += f" at {_count(point.clients, 'client')}"
    if point.failures:
        return f"{text}, where {point.failures} requests failed."
    if point.p50_ms > slo_p99_ms:
        return f"{text}: one run takes {point.p50_ms:.3g} ms by itself. Take a smaller model, a faster provider or another limit."
    return f"{text}, while half of the requests take {point.p50_ms:.3g} ms: what is slow now and then is the machine. Tune on a quiet one."


def _as_json(
    order: Order, trials: Sequence[Trial], chosen: Trial, point: Point, ground: Grounds, interrupted: bool
) -> dict[str, Any]:
    return {
        "made_by": f"scoring-runtime {__version__}",
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "slo_p99_ms": order.slo_p99_ms,
        "budget_s": order.budget_s,
        "interrupted": interrupted,
        "circumstances": dataclasses.asdict(ground.circumstances),
        "samples": {
            "from": ground.source,
            "count": len(ground.samples),
            "sha256": hashlib.sha256(b"\n".join(ground.samples)).hexdigest(),
        },
        "reference": REFERENCE.settings(),
        "tolerances": {name: each and each._asdict() for name, each in ground.facts.tolerances.items()},
        "chosen": {"settings": chosen.candidate.settings(), "runs": len(chosen.runs), "point": _point(point)},
        "candidates": [_trial(trial) for trial in trials if trial.runs or trial.rejected],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    difference = trial.largest_difference
    return {
        "settings": trial.candidate.settings(),
        "excluded": None if trial.rejected is None else trial.rejected.why,
        "largest_difference": difference if difference is not None and difference < float("inf") else None,
        "runs": [[_point(point) for point in run.points] for run in trial.runs],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(point).items()
    }


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise TuneError(f"{path}: cannot be written: {error.strerror}.") from None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
