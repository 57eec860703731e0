"""Before the first request: inputs that the model accepts, what is proved with them, and what is measured."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from . import batch, ragged, worth
from .dtypes import Array
from .runner import Runner
from .samples import SCALES, Guess, guesses
from .session import RunError

SEARCH_SECONDS = 10.0
"""How long inputs that the model accepts are looked for."""

_log = logging.getLogger(__name__)


def find_sample(session: Runner, usual_shapes: Mapping[str, tuple[int, ...]] | None) -> Guess | None:
    """A way to fill the inputs that the model accepts. This is the warm-up as well: it makes the model run."""
    began = time.perf_counter()
    for guess in guesses(session.inputs, usual_shapes):
        try:
            session.run(guess.make(1, seed=1))
        except RunError as error:
            _log.debug("warm-up: %s does not run: %s", guess, error)
            if time.perf_counter() - began > SEARCH_SECONDS:
                return None
        else:
            return guess
    return None


def why_not_batchable(session: Runner, guess: Guess | None) -> str | None:
    """Why requests cannot share runs; None where it was proved that they can."""
    why = batch.why_not_declared(session.inputs, session.outputs)
    if why is not None:
        return why
    if guess is None or not guess.varied:
        return "warm-up found no inputs that the model accepts, so that nothing is proved"
    try:
        samples = [guess.make(rows, rows, scale) for rows, scale in enumerate(SCALES, start=1)]
        return batch.why_not_proved(session.run, samples, session.outputs, session.placement.tolerance)
    except RunError as error:
        return f"samples of several rows do not run: {error}"


def padding(session: Runner, guess: Guess, wanted: ragged.Wanted) -> ragged.Padding | str:
    """How requests of different lengths share runs, or why they do not."""
    if not wanted.on:
        return "--ragged is off"
    axes = ragged.find_axes(session.inputs, wanted.masks, wanted.lengths)
    if isinstance(axes, str):
        return axes

    def make(length: int, rows: int, seed: int, scale: tuple[float, float]) -> list[Array]:
        return replace(guess, free_size=length).make(rows, seed, scale)

    try:
        inexact = session.placement.tolerance
        return ragged.prove(session.run, session.outputs, axes, make, wanted.most_cells, inexact)
    except RunError as error:
        return f"samples of several lengths do not run: {error}"


def cost_clock(session: Runner) -> Callable[[], float]:
    """By which runs are compared, read in the thread that runs.

    Where that one does all the work it is its CPU time, which no other process and no other thread disturbs.
    """
    alone = session.threads == 1 and session.providers == ["CPUExecutionProvider"]
    return time.thread_time if alone else time.perf_counter


def measure(session: Runner, guess: Guess, known: worth.Worth, cap: int) -> tuple[int | None, float | None]:
    """How many rows a run should hold, and how many times the throughput of single rows that is; None for what is not known."""
    rows = [guess.make(1, seed) for seed in range(min(cap, 16))]

    def seconds_of(count: int) -> float:
        members = [rows[number % len(rows)] for number in range(count)]
        began = clock()
        session.run(batch.stack(members) if count > 1 else members[0])
        return clock() - began

    clock = cost_clock(session)
    kind, row_cells = known.of(batch.shapes(rows[0]))
    try:
        worth.measure(kind, row_cells, cap, seconds_of)
    except RunError:  # not with these values
        return None, None
    gain = kind.gain()
    return (kind.best_rows if gain is not None or cap == 1 else None), gain
