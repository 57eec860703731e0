"""Runs of few shapes: batches are padded to buckets, and each bucket runs in the way that was fastest at warm-up.

There are three ways: plain, as any run; bound, with inputs and outputs in memory of fixed place on the device; graph, which
is bound, and captured in a CUDA graph. A way counts only when its outputs agree with those of the plain run.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scoring_runtime import providers

from . import batch, buckets
from .dtypes import Array
from .memory import Halving
from .plan import SessionPlan
from .runner import Runner, Wrapper
from .samples import Guess
from .session import NO_GRAPH, Binding, OutOfMemoryError, RunError, RunStoppedError, Session

LONG_RUN_S = 0.05
"""Where a bucket takes longer, neither copies nor launches matter: it is not measured, and runs plain."""
PAYS = 0.95
"""A way is taken when it needs at most this share of the plain run's time: less is noise."""
REPEATS = 7
MADE_UP_ROWS = 32
"""More rows repeat these."""
QUIET_S = 2.0
"""A warm-up that takes longer says how far it is."""

PLAIN, BOUND, GRAPH = "plain", "bound", "graph"
_log = logging.getLogger(__name__)


class SessionBrokenError(Exception):
    """A capture failed, and since then the session does not run any more."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How batches of one size run, and what was measured."""

    rows: int
    way: str
    plain_ms: float
    ms: float
    note: str = ""
    """Why it is not a faster way, where there is a reason other than the time."""


Reopen = Callable[[], Session]
Described = dict[str, Any]


def wrap(session: Runner, guess: Guess, plan: SessionPlan, reopen: Reopen | None = None) -> tuple[Runner, Described]:
    """The runner for a model whose rows were proved not to depend on each other, warmed up, and what `check` says of it.

    reopen: another session of the same model, without graphs, for when a capture has broken this one.
    """
    gpu = any(each.gpu and each.onnx_name == session.providers[0] for each in providers.PROVIDERS.values())
    sizes = buckets.choose(plan.batch_buckets, plan.max_batch_size, gpu=gpu)
    if not sizes:
        return Halving(session), {"buckets": None}
    bucketed = Bucketed(session, sizes)
    try:
        bucketed.warm_up(guess)
    except SessionBrokenError as error:
        if reopen is None:
            raise RunError(str(error)) from error
        _log.warning("%s: the model is loaded anew, without CUDA graphs", error)
        bucketed.close()
        bucketed = Bucketed(reopen(), sizes)
        bucketed.warm_up(guess)
    return Halving(bucketed), bucketed.describe()


class Bucketed(Wrapper):
    """A Runner that pads batches to buckets, and cuts those that are larger than the largest."""

    def __init__(self, session: Runner, sizes: Sequence[int]) -> None:
        super().__init__(session)
        self._sizes = tuple(sizes)
        self._bindings: dict[tuple[int, batch.Signature | None], Binding] = {}
        self._buckets: list[Bucket] = []
        self._no_more_bindings = ""
        # A graph belongs to the thread that captured it, and so do ONNX Runtime's handles of that session.
        captures = isinstance(session, Session) and session.captures
        self._thread = ThreadPoolExecutor(1, "graphs") if captures else None

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """As Runner."""
        return self._run(arrays) if self._thread is None else self._thread.submit(self._run, arrays).result()

    def close(self) -> None:
        """End the thread, where there is one. Nothing runs after this."""
        if self._thread is not None:
            self._thread.shutdown()

    def describe(self) -> Described:
        """For `check`."""
        return {"buckets": [asdict(each) for each in self._buckets]}

    def warm_up(self, guess: Guess) -> None:
        """Run every bucket, and find out which way is the fastest. SessionBrokenError as it says."""
        if self._thread is None:
            self._warm_up(guess)
        else:
            self._thread.submit(self._warm_up, guess).result()

    # In the one thread from here on, where there is one

    def _run(self, arrays: Sequence[Array]) -> list[Any]:
        rows = buckets.rows_of(arrays)
        if rows is None or not self._sizes:  # it is the model's to refuse, or nothing fitted
            return self._runner.run(arrays)
        if rows > self._sizes[-1]:
            parts = buckets.parts(rows, self._sizes[-1])
            return buckets.join([self._run([array[part] for array in arrays]) for part in parts])
        bucket = buckets.bucket_for(rows, self._sizes)
        assert bucket is not None
        if self._bindings:
            binding = self._bindings.get((bucket, batch.signature(arrays)))
            if binding is not None:
                try:
                    return binding.run(arrays)
                except (OutOfMemoryError, RunStoppedError):
                    raise
                except RunError as error:
                    # Outputs may have other shapes than at warm-up, by their values, and so not fit the memory for them.
                    _log.debug("a run of %d rows in fixed memory failed, and is made again without: %s", rows, error)
        return buckets.cut(self._runner.run(buckets.pad(arrays, rows, bucket)), rows)

    def _warm_up(self, guess: Guess) -> None:
        began = said = time.perf_counter()
        # The largest first: what it does not find memory for, the smaller ones must not have taken.
        for number, rows in enumerate(reversed(self._sizes)):
            now = time.perf_counter()
            if now - said > QUIET_S:
                said = now
                _log.info(
                    "warm-up: %d of %d buckets after %.0f s; next %d rows", number, len(self._sizes), now - began, rows
                )
            bucket = self._warm_up_bucket(rows, guess)
            if bucket is not None:
                self._buckets.insert(0, bucket)
        self._sizes = tuple(bucket.rows for bucket in self._buckets)
        took_s = time.perf_counter() - began
        if took_s > QUIET_S:
            _log.info("warm-up: all %d buckets after %.1f s", len(self._sizes), took_s)
        ways = [f"{bucket.rows} {bucket.way}" for bucket in self._buckets]
        _log.info("buckets: %s", ", ".join(ways) or "none: batches run as they come")

    def _warm_up_bucket(self, rows: int, guess: Guess) -> Bucket | None:
        """None for a bucket that does not run."""
        try:
            samples = [_sample(guess, rows, seed) for seed in (1, 2)]
            # The first run of a shape searches and allocates; the next ones are like those to come.
            expected = [self._runner.run(sample) for sample in samples]
            batch.check_rows(expected[0], rows)
            plain_s = _seconds(self._runner.run, samples[0])
        except (RunError, batch.RowsError, MemoryError) as error:
            cause = "does not fit into memory" if isinstance(error, OutOfMemoryError | MemoryError) else "does not run"
            _log.warning("no bucket of %d rows: it %s (%s)", rows, cause, error)
            return None
        plain = Bucket(rows, PLAIN, _ms(plain_s), _ms(plain_s))
        if not isinstance(self._runner, Session):
            return plain
        if plain_s > LONG_RUN_S:
            return Bucket(rows, PLAIN, plain.ms, plain.ms, "a run this long gains nothing")
        best, notes = plain, []
        for way in (GRAPH, BOUND) if self._runner.captures else (BOUND,):
            found = self._try(way, best, samples, expected)
            if isinstance(found, Bucket):
                best = found
            elif found:
                notes.append(f"{way}: {found}")
        return Bucket(rows, best.way, best.plain_ms, best.ms, "; ".join(notes))

    def _try(
        self, way: str, best: Bucket, samples: Sequence[Sequence[Array]], expected: Sequence[Sequence[Any]]
    ) -> Bucket | str:
        """The bucket as it runs in this way, which is taken from now on; or why it is not, or nothing when it is no faster."""
        assert isinstance(self._runner, Session)
        if self._no_more_bindings:
            return self._no_more_bindings
        rows = best.rows
        binding: Binding | None = None
        try:
            binding = self._runner.bind(samples[0], expected[0], rows if way == GRAPH else NO_GRAPH)
            if binding is None:
                return "the types of the model's inputs and outputs do not allow it"
            if way == GRAPH:
                binding.run(samples[1])  # captures; those below replay
            why_not = self._why_differs(binding, samples, expected)
        except RunError as error:
            why_not = str(error)
            if isinstance(error, OutOfMemoryError):
                self._no_more_bindings = f"no memory was left when {rows} rows were to be {way}"
            self._check_alive(way, samples[0], why_not)
        if binding is not None and why_not is None:
            seconds = [
                (_seconds(self._runner.run, samples[0]), _seconds(binding.run, samples[0])) for _ in range(REPEATS)
            ]
            plain_ms, ms = (_ms(min(column)) for column in zip(*seconds, strict=True))
            _log.debug("bucket of %d rows: plain %.3f ms, %s %.3f ms", rows, plain_ms, way, ms)
            if ms <= PAYS * plain_ms and (best.way == PLAIN or ms < best.ms):
                if best.way == GRAPH:
                    self._release(rows)
                self._bindings[rows, batch.signature(samples[0])] = binding
                return Bucket(rows, way, plain_ms, ms)
        elif way == GRAPH:
            _log.warning("no CUDA graph for %d rows: %s", rows, why_not)
        else:
            _log.warning("no fixed memory for %d rows: %s", rows, why_not)
        if way == GRAPH:
            self._release(rows)
        return why_not or ""

    def _release(self, graph: int) -> None:
        assert isinstance(self._runner, Session)
        try:
            self._runner.release_graph(graph)
        except RunError as error:  # its memory is held for longer than it is needed, and nothing else
            _log.warning("the CUDA graph for %d rows could not be let go: %s", graph, error)

    def _why_differs(
        self, binding: Binding, samples: Sequence[Sequence[Array]], expected: Sequence[Sequence[Any]]
    ) -> str | None:
        """Why the runs of a binding are not the plain ones; None when they agree, padded ones included.

        All are made before any is looked at, so that outputs that lie in one memory are found out.
        """
        rows = len(samples[0][0])
        few = max(1, rows - 1)
        runs = [*zip(samples, expected, strict=True)]
        runs.append(([array[:few] for array in samples[0]], buckets.cut(expected[0], few)))
        answers = [binding.run(arrays) for arrays, _ in runs]
        for answer, (_, outputs) in zip(answers, runs, strict=True):
            for output, one, other in zip(self.outputs, answer, outputs, strict=True):
                if not batch.same(one, other, batch.tolerance_of(output, self.placement.tolerance)):
                    return f"output {output.name!r} differs{batch.by_how_much(one, other)}"
        return None

    def _check_alive(self, way: str, sample: Sequence[Array], cause: str) -> None:
        """SessionBrokenError when a failed capture has left a session that does not run."""
        if way != GRAPH:
            return
        try:
            self._runner.run(sample)
        except OutOfMemoryError:
            return
        except RunError as error:
            raise SessionBrokenError(f"a CUDA graph could not be captured ({cause}), and then: {error}") from error


def _sample(guess: Guess, rows: int, seed: int) -> list[Array]:
    """Inputs of `rows` rows, of which few are made up: to make up floats takes several times the memory of the batch itself."""
    few = guess.make(min(rows, MADE_UP_ROWS), seed)
    if rows <= MADE_UP_ROWS:
        return few
    return [np.resize(array, (rows, *array.shape[1:])) for array in few]


def _seconds(run: Callable[[Sequence[Array]], object], arrays: Sequence[Array]) -> float:
    began = time.perf_counter()
    run(arrays)
    return time.perf_counter() - began


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
