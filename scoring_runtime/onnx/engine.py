"""The ONNX engine: decode, group by signature, stack, run, split, encode."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, Protocol

from scoring_runtime.scorer.frames import ROUTE_V2, FrameError, Request

from . import batch, cpus, ragged, worth
from .codecs import v2
from .codecs.json import JsonCodec, encode_error
from .dtypes import BY_NAME, Array
from .plan import read
from .runner import Runner
from .samples import SCALES, Guess, guesses
from .session import VERSION, RunError, RunRefusedError, open_session
from .tensors import BadInputError, Output, Tensor, unequal_sizes

LONGEST_SAMPLE_BYTES = 2048
SEARCH_SECONDS = 10.0
"""How long warm-up looks for inputs that the model accepts."""

_RUN_FAILED = "the model failed on this request; the server's log says why"
_log = logging.getLogger(__name__)


class Outbox(Protocol):
    """Where replies go: exactly one for each request."""

    def add(self, request_id: int, status: int, body: bytes, head: bytes = ..., *, run_us: int = ...) -> None: ...

    def add_all(self, request_ids: Sequence[int], bodies: Sequence[bytes], run_us: int) -> None: ...

    def flush_if_due(self) -> None: ...


class Job(NamedTuple):
    """A decoded request."""

    id: int
    arrays: tuple[Array, ...]
    form: v2.Form | None = None
    """Of the reply; None for that of /score."""
    length: int | None = None
    """Of a request that may be padded."""

    @property
    def rows(self) -> int:
        """Of a request that may share a run."""
        return len(self.arrays[0])


class Engine:
    """One model, ready to score."""

    def __init__(
        self,
        session: Runner,
        name: str,
        max_batch_size: int,
        load_ms: float = 0.0,
        wanted: ragged.Wanted = ragged.Wanted(),  # noqa: B008 - frozen
    ) -> None:
        self._session = session
        self._codec = JsonCodec(session.inputs, session.outputs)
        self._v2 = v2.InferenceCodec(session.inputs, session.outputs, name)
        self._worth = worth.Worth(max_batch_size)
        self._clock = _cost_clock(session)
        began = time.perf_counter()
        guess = _find_sample(session)
        self._why_not_batchable = _why_not_batchable(session, guess)
        self._stacks = self._why_not_batchable is None
        self._padding: ragged.Padding | None = None
        why_not_padded: str | None = "requests do not share runs"
        rows_per_run: int | None = 1
        gain: float | None = None
        if self._stacks and guess is not None:
            padding = _padding(session, guess, wanted)
            if isinstance(padding, ragged.Padding):
                self._padding, why_not_padded = padding, None
            else:
                why_not_padded = padding
            rows_per_run, gain = _measure(session, guess, self._worth, max_batch_size)
        self.info: dict[str, Any] = {
            "engine": "onnx",
            "idempotent": True,
            "headers": "none",
            "name": name,
            "inputs": [_describe(tensor) for tensor in session.inputs],
            "outputs": [_describe(output) for output in session.outputs],
            "batchable": self._why_not_batchable is None,
            "why_not_batchable": self._why_not_batchable,
            "rows_per_run": rows_per_run,
            "stacking_gain": None if gain is None else round(gain, 2),
            "ragged": why_not_padded or True,
            "tolerance": asdict(tolerance) if (tolerance := BY_NAME["float32"].tolerance) else None,
            "providers": session.providers,
            "threads": session.threads,
            "onnxruntime": VERSION,
            "load_ms": round(load_ms, 1),
            "warm_up_ms": round((time.perf_counter() - began) * 1000, 1),
            "sample": self._example(guess),
            "open_inference": self._v2.describe(),
        }

    def score(self, requests: Sequence[Request], outbox: Outbox) -> None:
        """Answer every request, each by itself: what is wrong with one never shows in another."""
        if len(requests) > 1 and self._stacks and self._padding is None:
            ids, _, routes, _, _, bodies = zip(*requests, strict=True)
            together = self._codec.decode_together(bodies) if ROUTE_V2 not in routes else None
            if together is not None:
                self._answer_stacked(ids, *together, outbox)
                return
        groups: dict[batch.Signature, list[Job]] = {}
        alone: list[Job] = []
        for request in requests:
            job = self._decode(request, outbox)
            if job is None:
                continue
            signature = self._signature(job) if self._stacks and len(requests) > 1 else None
            if signature is None:
                alone.append(job)
            else:
                groups.setdefault(signature, []).append(job)
        for signature, group in groups.items():
            for jobs in self._runs(signature, group):
                self._answer(jobs, outbox)
        for job in alone:
            self._answer_alone(job, outbox)

    def _decode(self, request: Request, outbox: Outbox) -> Job | None:
        """What is to be run; None when the request has its answer: it cannot be read."""
        try:
            if request.route == ROUTE_V2:
                arrays, form = self._v2.decode(request.head, request.body)
            else:
                arrays, form = self._codec.decode(request.body), None
            length = None if self._padding is None else self._padding.length(arrays)
            return Job(request.id, arrays, form, length)
        except BadInputError as error:
            encode = v2.encode_error if request.route == ROUTE_V2 else encode_error
            outbox.add(request.id, 400, encode(str(error)))
            return None

    def _signature(self, job: Job) -> batch.Signature | None:
        """What requests have in common that can share a run."""
        if self._padding is not None and job.length is not None:
            return self._padding.signature(job.arrays)
        return batch.signature(job.arrays)

    def _runs(self, signature: batch.Signature, group: Sequence[Job]) -> Iterator[Sequence[Job]]:
        """Requests that can share a run, as the runs that are worth it."""
        rows = [job.rows for job in group]
        padding, lengths = self._padding, [job.length for job in group if job.length is not None]
        if padding is None or not lengths:
            kind, _ = self._worth.of(signature)
            for part in batch.chunks(rows, lambda: kind.most_rows):
                yield group[part]
            return
        arrays = group[0].arrays
        for numbers in padding.runs(
            lengths, rows, lambda length: self._worth.of(padding.signature(arrays, length))[0].most_rows
        ):
            yield [group[number] for number in numbers]

    def _answer_stacked(self, ids: Sequence[int], arrays: list[Array], rows: list[int], outbox: Outbox) -> None:
        """Run what is stacked already, in runs of as many rows as are worth it; what fails is run again, each by itself."""
        known = kind, _ = self._worth.of(batch.shapes(arrays))
        parts = iter([slice(None)]) if len(arrays[0]) <= kind.most_rows else batch.chunks(rows, lambda: kind.most_rows)
        first_row = 0
        for part in parts:
            last_row = first_row + sum(rows[part])
            stacked = arrays if part == slice(None) else [array[first_row:last_row] for array in arrays]
            first_row = last_row
            try:
                self._run_together(ids[part], stacked, rows[part], outbox, known)
            except (RunError, batch.RowsError, FrameError):
                for number, job in zip(ids[part], batch.split(stacked, rows[part]), strict=True):
                    self._answer_alone(Job(number, tuple(job)), outbox)

    def _answer(self, jobs: Sequence[Job], outbox: Outbox) -> None:
        """Run jobs as one; if that fails, each by itself."""
        if len(jobs) == 1:
            self._answer_alone(jobs[0], outbox, learned=True)
            return
        began = self._clock()
        members, lengths = [job.arrays for job in jobs], [job.length or 0 for job in jobs]
        try:
            if self._padding is None or len(set(lengths)) == 1:
                arrays, lengths = batch.stack(members), []
            else:
                arrays = self._padding.stack(members, max(lengths))
            ids, rows, forms = [job.id for job in jobs], [job.rows for job in jobs], [job.form for job in jobs]
            known = self._worth.of(batch.shapes(arrays))
            self._run_together(ids, arrays, rows, outbox, known, forms, lengths, self._clock() - began)
        except (RunError, batch.RowsError, FrameError):
            for job in jobs:
                self._answer_alone(job, outbox)

    def _run_together(
        self,
        ids: Sequence[int],
        arrays: Sequence[Array],
        rows: Sequence[int],
        outbox: Outbox,
        known: tuple[worth.Kind, int],
        forms: Sequence[v2.Form | None] = (),
        lengths: Sequence[int] = (),
        stacking_s: float = 0.0,
    ) -> None:
        """One run, and its rows to whom they belong; RunError, RowsError or FrameError when nothing was answered.

        known: what is known of such rows, and how many cells one has. lengths: those of the requests, where they were padded.
        stacking_s: what it took to stack them.
        """
        began, cost_began = time.perf_counter(), self._clock()
        outputs = self._session.run(arrays)
        run_s, cost_s = time.perf_counter() - began, self._clock() - cost_began
        total = sum(rows)
        batch.check_rows(outputs, total)
        kind, row_cells = known
        useful_rows: float = total
        if lengths:  # what is padding brought nothing
            useful_rows = sum([count * length for count, length in zip(rows, lengths, strict=True)]) / max(lengths)
        kind.observe(total, useful_rows * row_cells, stacking_s + cost_s)
        run_us = int(run_s * 1e6)
        if lengths or any(forms):
            if self._padding is not None and lengths:
                parts = self._padding.split(outputs, rows, lengths)
            else:
                parts = batch.split(outputs, rows)
            for number, part, form in zip(ids, parts, forms, strict=True):
                self._settle(number, part, run_us, outbox, form)
            outbox.flush_if_due()
            return
        bodies = self._codec.encode_apart(outputs, rows)
        if bodies is None:
            bodies = [self._codec.encode(part) for part in batch.split(outputs, rows)]
        outbox.add_all(ids, bodies, run_us)
        outbox.flush_if_due()

    def _answer_alone(self, job: Job, outbox: Outbox, *, learned: bool = False) -> None:
        """Run one request. `learned`: it could have shared a run, so that what it takes is of interest."""
        arrays, encode = job.arrays, encode_error
        if job.form is not None:
            encode = v2.encode_error
            arrays = tuple([array if array.flags.aligned else array.copy() for array in arrays])
        began, cost_began = time.perf_counter(), self._clock()
        try:
            outputs = self._session.run(arrays)
        except RunRefusedError as error:
            outbox.add(job.id, 400, encode(f"the model refuses the inputs: {error}"))
        except RunError as error:
            unequal = unequal_sizes(self._session.inputs, arrays)
            if unequal is not None:
                outbox.add(job.id, 400, encode(f"the inputs do not fit together: {unequal}"))
            else:
                _log.error("the model failed on a request: %s", error)
                outbox.add(job.id, 500, encode(_RUN_FAILED))
        else:
            run_s = time.perf_counter() - began
            if learned:
                kind, row_cells = self._worth.of(batch.shapes(arrays))
                kind.observe(job.rows, job.rows * row_cells, self._clock() - cost_began)
            self._settle(job.id, outputs, int(run_s * 1e6), outbox, job.form)
        outbox.flush_if_due()

    def _settle(
        self, request_id: int, outputs: Sequence[Any], run_us: int, outbox: Outbox, form: v2.Form | None
    ) -> None:
        try:
            head, body = (b"", self._codec.encode(outputs)) if form is None else form.encode(outputs)
            outbox.add(request_id, 200, body, head, run_us=run_us)
        except FrameError as error:  # too large for any frame
            encode = encode_error if form is None else v2.encode_error
            outbox.add(request_id, 500, encode(f"the answer cannot be sent: {error}"), run_us=run_us)

    def _example(self, guess: Guess | None) -> Any:
        if guess is None:
            return None
        arrays = guess.make(1, seed=1)
        body = self._codec.encode_request(arrays)
        return None if len(body) > LONGEST_SAMPLE_BYTES else json.loads(body)


def load(hello: dict[str, Any]) -> Engine:
    """The engine that the front's HELLO asks for; LoadError when the model cannot be served."""
    logging.basicConfig(level=hello.get("log_level", "info").upper(), format="%(levelname)s %(name)s: %(message)s")
    threads = cpus.threads(hello.get("threads", 0), hello.get("scorers", 1), cpus.by_affinity(), cpus.quota())
    plan = read(hello, threads)
    began = time.perf_counter()
    session = open_session(plan)
    load_ms = (time.perf_counter() - began) * 1000
    name, most_rows = hello.get("name") or plan.path.stem, hello.get("max_batch_size", 128)
    return Engine(session, name, most_rows, load_ms, ragged.read(hello))


def _describe(output: Output) -> dict[str, Any]:
    if isinstance(output, Tensor):
        shape = None if output.shape is None else list(output.shape)
        return {"name": output.name, "dtype": output.dtype.name, "shape": shape}
    return {"name": output.name, "dtype": output.type, "shape": None}


def _find_sample(session: Runner) -> Guess | None:
    """A way to fill the inputs that the model accepts. This is the warm-up as well: it makes the model run."""
    began = time.perf_counter()
    for guess in guesses(session.inputs):
        try:
            session.run(guess.make(1, seed=1))
        except RunError as error:
            _log.debug("warm-up: %s does not run: %s", guess, error)
            if time.perf_counter() - began > SEARCH_SECONDS:
                return None
        else:
            return guess
    return None


def _why_not_batchable(session: Runner, guess: Guess | None) -> str | None:
    why = batch.why_not_declared(session.inputs, session.outputs)
    if why is not None:
        return why
    if guess is None or not guess.varied:
        return "warm-up found no inputs that the model accepts, so that nothing is proved"
    try:
        samples = [guess.make(rows, rows, scale) for rows, scale in enumerate(SCALES, start=1)]
        return batch.why_not_proved(session.run, samples, session.outputs)
    except RunError as error:
        return f"samples of several rows do not run: {error}"


def _padding(session: Runner, guess: Guess, wanted: ragged.Wanted) -> ragged.Padding | str:
    """How requests of different lengths share runs, or why they do not."""
    if not wanted.on:
        return "--ragged is off"
    axes = ragged.find_axes(session.inputs, wanted.masks, wanted.lengths)
    if isinstance(axes, str):
        return axes

    def make(length: int, rows: int, seed: int, scale: tuple[float, float]) -> list[Array]:
        return replace(guess, free_size=length).make(rows, seed, scale)

    try:
        return ragged.prove(session.run, session.outputs, axes, make, wanted.most_cells)
    except RunError as error:
        return f"samples of several lengths do not run: {error}"


def _cost_clock(session: Runner) -> Callable[[], float]:
    """By which runs are compared. Where one thread does all the work that is its CPU time, which no other process disturbs."""
    alone = session.threads == 1 and session.providers == ["CPUExecutionProvider"]
    return time.process_time if alone else time.perf_counter


def _measure(session: Runner, guess: Guess, known: worth.Worth, cap: int) -> tuple[int | None, float | None]:
    """How many rows a run should hold, and how many times the throughput of single rows that is; None for what is not known."""
    rows = [guess.make(1, seed) for seed in range(min(cap, 16))]

    def seconds_of(count: int) -> float:
        members = [rows[number % len(rows)] for number in range(count)]
        began = clock()
        session.run(batch.stack(members) if count > 1 else members[0])
        return clock() - began

    clock = _cost_clock(session)
    kind, row_cells = known.of(batch.shapes(rows[0]))
    try:
        worth.measure(kind, row_cells, cap, seconds_of)
    except RunError:  # not with these values
        return None, None
    gain = kind.gain()
    return (kind.best_rows if gain is not None or cap == 1 else None), gain
