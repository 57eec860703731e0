"""One model on two sessions: the one at hand serves while a better one is prepared, and then they are swapped.

What is prepared must give the same answers: it is tried with samples whose answers the serving one gave before it began to
serve. A run goes to one session from its beginning to its end, so that every request is answered by one of them. The old
one is let go when its last run has ended.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import batch
from .dtypes import Array, Tolerance
from .runner import Runner, Wrapper
from .session import RunError
from .tensors import Output, Tensor

_log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """Inputs, and what the model made of them."""

    arrays: Sequence[Array]
    outputs: Sequence[Any]


class Swapping(Wrapper):
    """A Runner that is another one after a while, if that gives the same answers.

    build: opens the better one; it runs in a thread. why_not: what is wrong with that one, or None. current_name, next_name:
    for people.
    """

    def __init__(
        self,
        current: Runner,
        build: Callable[[], Runner],
        why_not: Callable[[Runner], str | None],
        current_name: str,
        next_name: str,
    ) -> None:
        super().__init__(current)
        self._running: Runner | None = None
        self._build = build
        self._why_not = why_not
        self._names = current_name, next_name
        self._began = time.monotonic()
        self._outcome = ""
        # A daemon: the scorer does not wait for it when its front has gone.
        self._thread = threading.Thread(target=self._prepare, name="swap", daemon=True)
        self._thread.start()

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """The outputs for these inputs, of the session that serves now."""
        runner = self._running = self._runner
        try:
            return runner.run(arrays)
        finally:
            self._running = None

    def stop(self) -> None:
        """Let the run under way end early, where the session can. It may be the old one's still."""
        runner = self._running
        if runner is not None:
            runner.stop()

    @property
    def state(self) -> str:
        """How far it is, for people."""
        return self._outcome or f"building: {self._names[1]}, {time.monotonic() - self._began:.0f} s so far"

    def join(self, timeout_s: float) -> bool:
        """Wait until it is decided which one serves; False when it is not by then."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _prepare(self) -> None:
        current, following = self._names
        try:
            better = self._build()
            why = why_other_model(self.inputs, self.outputs, better) or self._why_not(better)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one that serves goes on
            self._outcome = f"kept {current}: {following} cannot be had: {error}"
            _log.error("%s", self._outcome)
        else:
            took_s = time.monotonic() - self._began
            if why is None:
                self._runner = better
                self._outcome = f"swapped {current} for {following} after {took_s:.0f} s"
                _log.info("%s", self._outcome)
            else:
                self._outcome = f"kept {current}: {following} was ready after {took_s:.0f} s, but {why}"
                _log.error("%s", self._outcome)
        finally:
            del self._build, self._why_not  # they hold what was needed for it only


def why_other_model(inputs: Sequence[Tensor], outputs: Sequence[Output], other: Runner) -> str | None:
    """Why requests for one cannot be given to the other; None when they can."""
    if [(each.name, each.dtype) for each in inputs] != [(each.name, each.dtype) for each in other.inputs]:
        return f"it has other inputs: {_listed(other.inputs)} in place of {_listed(inputs)}"
    if [_kind(each) for each in outputs] != [_kind(each) for each in other.outputs]:
        return f"it has other outputs: {_listed(other.outputs)} in place of {_listed(outputs)}"
    return None


def _kind(output: Output) -> tuple[str, str]:
    return output.name, output.dtype.name if isinstance(output, Tensor) else output.type


def _listed(each: Sequence[Output]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in map(_kind, each))


def take(runner: Runner, inputs: Sequence[Sequence[Array]]) -> list[Sample]:
    """What the model makes of these inputs; those that it does not take are left out."""
    samples = []
    for arrays in inputs:
        try:
            samples.append(Sample(arrays, runner.run(arrays)))
        except RunError as error:
            _log.debug("no sample: %s", error)
    return samples


def why_differs(runner: Runner, samples: Sequence[Sample], tolerance: Tolerance | None = None) -> str | None:
    """Where the answers of a runner differ from those of the samples; None when they agree.

    tolerance: of floats, in place of the one of their type.
    """
    if not samples:
        return "there are no samples to compare the outputs with: the model takes none of the made-up inputs"
    for sample in samples:
        try:
            outputs = runner.run(sample.arrays)
        except RunError as error:
            return f"it fails on a sample: {error}"
        for output, one, other in zip(runner.outputs, outputs, sample.outputs, strict=True):
            of_type = batch.tolerance_of(output)
            allowed = tolerance if of_type is not None and tolerance is not None else of_type
            if not batch.same(one, other, allowed):
                within = f" (allowed: {_within(allowed)})" if allowed else ""
                return f"output {output.name!r} differs{batch.by_how_much(one, other)}{within}"
    return None


def _within(tolerance: Tolerance) -> str:
    return f"{tolerance.relative:g} of a value plus {tolerance.of_largest:g} of the largest"
