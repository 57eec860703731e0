"""From a plan to what the engine runs: on which session a model is opened, and what is put around it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import bound, graphs, profiles, tensorrt
from .loading import first_provider, open_session
from .plan import SessionPlan
from .runner import Runner
from .samples import Guess

Wrap = Callable[[Runner, Guess], tuple[Runner, dict[str, Any]]]
"""Puts something around the session of a model whose rows were proved not to depend on each other, and describes it."""


class Opened(NamedTuple):
    """A model, and what its opening has learned."""

    runner: Runner
    most_rows: int
    """Of a run."""
    usual_shapes: Mapping[str, profiles.Shape]
    """Of inputs with free axes, by name, where they are known."""
    wrap: Wrap
    optimized_cache: str
    """As Session.optimized_cache."""
    building: str | None = None
    """What goes on in the background."""


def open_model(plan: SessionPlan, name: str) -> Opened:
    """Open the model; LoadError that names file, cause and cure when that cannot be done."""
    if tensorrt.leads(plan):
        opened = tensorrt.open_runner(plan, name)
        most_rows = min(plan.max_batch_size, opened.most_rows or plan.max_batch_size)
        # Never bound to memory, nor captured: what is inside may be another session later.
        padded = dataclasses.replace(plan, max_batch_size=most_rows, cuda_graphs="off")
        return Opened(
            opened.runner,
            most_rows,
            opened.usual_shapes,
            lambda session, guess: bound.wrap(session, guess, padded),
            "off: TensorRT keeps its engines",
            opened.building,
        )
    session, why_no_graphs = graphs.open_capturing(plan, open_session, first_provider(plan))

    def wrap(runner: Runner, guess: Guess) -> tuple[Runner, dict[str, Any]]:
        wrapped, described = bound.wrap(runner, guess, plan, lambda: open_session(plan))
        return wrapped, {**described, "why_no_cuda_graphs": why_no_graphs}

    return Opened(session, plan.max_batch_size, {}, wrap, session.optimized_cache)
