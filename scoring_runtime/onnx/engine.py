"""The ONNX engine: decode, group by signature, stack, run, split, encode."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from scoring_runtime.scorer.frames import ROUTE_V2, FrameError, Request

from . import batch, cpus
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

LARGE_ROW_BYTES = 1 << 18
"""To copy rows of this size next to each other may cost more than they save by sharing a run, so that is measured: images
of 3 x 224 x 224 take 78 us each when 8 are stacked for a model that costs nothing, 32 each alone; 10 % more than alone in a
network of convolutions."""
LONG_RUN_S = 0.005
"""Where one row takes longer, a copy is no matter."""

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

    @property
    def rows(self) -> int:
        """Of a request that may share a run."""
        return len(self.arrays[0])


class Engine:
    """One model, ready to score."""

    def __init__(self, session: Runner, name: str, max_batch_size: int, load_ms: float = 0.0) -> None:
        self._session = session
        self._codec = JsonCodec(session.inputs, session.outputs)
        self._v2 = v2.InferenceCodec(session.inputs, session.outputs, name)
        self._max_batch_size = max_batch_size
        began = time.perf_counter()
        guess = _find_sample(session)
        self._why_not_batchable = _why_not_batchable(session, guess)
        self._stacks = self._why_not_batchable is None and (guess is None or _stacking_pays(session, guess))
        self.info: dict[str, Any] = {
            "engine": "onnx",
            "idempotent": True,
            "headers": "none",
            "name": name,
            "inputs": [_describe(tensor) for tensor in session.inputs],
            "outputs": [_describe(output) for output in session.outputs],
            "batchable": self._why_not_batchable is None,
            "why_not_batchable": self._why_not_batchable,
            "tolerance": asdict(tolerance) if (tolerance := BY_NAME["float32"].tolerance) else None,
            "providers": session.providers,
            "nodes": session.placement.nodes,
            "placement": session.placement.summary,
            "degraded": session.placement.degraded,
            "threads": session.threads,
            "onnxruntime": VERSION,
            "load_ms": round(load_ms, 1),
            "warm_up_ms": round((time.perf_counter() - began) * 1000, 1),
            "sample": self._example(guess),
            "open_inference": self._v2.describe(),
        }

    def score(self, requests: Sequence[Request], outbox: Outbox) -> None:
        """Answer every request, each by itself: what is wrong with one never shows in another."""
        if len(requests) > 1 and self._stacks:
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
            signature = batch.signature(job.arrays) if self._stacks and len(requests) > 1 else None
            if signature is None:
                alone.append(job)
            else:
                groups.setdefault(signature, []).append(job)
        for group in groups.values():
            for part in batch.chunks([job.rows for job in group], self._max_batch_size):
                self._answer(group[part], outbox)
        for job in alone:
            self._answer([job], outbox)

    def _decode(self, request: Request, outbox: Outbox) -> Job | None:
        """What is to be run; None when the request has its answer: it cannot be read."""
        try:
            if request.route == ROUTE_V2:
                arrays, form = self._v2.decode(request.head, request.body)
                return Job(request.id, arrays, form)
            return Job(request.id, self._codec.decode(request.body), None)
        except BadInputError as error:
            encode = v2.encode_error if request.route == ROUTE_V2 else encode_error
            outbox.add(request.id, 400, encode(str(error)))
            return None

    def _answer_stacked(self, ids: Sequence[int], arrays: list[Array], rows: list[int], outbox: Outbox) -> None:
        """Run what is stacked already, in runs of at most so many rows; what fails is run again, each by itself."""
        most_rows = self._max_batch_size
        parts = [slice(None)] if len(arrays[0]) <= most_rows else batch.chunks(rows, most_rows)
        first_row = 0
        for part in parts:
            last_row = first_row + sum(rows[part])
            stacked = arrays if part == slice(None) else [array[first_row:last_row] for array in arrays]
            first_row = last_row
            try:
                self._run_together(ids[part], stacked, rows[part], outbox)
            except (RunError, batch.RowsError, FrameError):
                for number, job in zip(ids[part], batch.split(stacked, rows[part]), strict=True):
                    self._answer_alone(Job(number, tuple(job)), outbox)

    def _answer(self, jobs: Sequence[Job], outbox: Outbox) -> None:
        """Run jobs as one; if that fails, each by itself."""
        if len(jobs) == 1:
            self._answer_alone(jobs[0], outbox)
            return
        try:
            arrays = batch.stack([job.arrays for job in jobs])
            forms = [job.form for job in jobs]
            self._run_together([job.id for job in jobs], arrays, [job.rows for job in jobs], outbox, forms)
        except (RunError, batch.RowsError, FrameError):
            for job in jobs:
                self._answer_alone(job, outbox)

    def _run_together(
        self,
        ids: Sequence[int],
        arrays: Sequence[Array],
        rows: Sequence[int],
        outbox: Outbox,
        forms: Sequence[v2.Form | None] = (),
    ) -> None:
        """One run, and its rows to whom they belong; RunError, RowsError or FrameError when nothing was answered."""
        began = time.perf_counter()
        outputs = self._session.run(arrays)
        run_us = int((time.perf_counter() - began) * 1e6)
        batch.check_rows(outputs, sum(rows))
        if any(forms):
            for number, part, form in zip(ids, batch.split(outputs, rows), forms, strict=True):
                self._settle(number, part, run_us, outbox, form)
            outbox.flush_if_due()
            return
        bodies = self._codec.encode_apart(outputs, rows)
        if bodies is None:
            bodies = [self._codec.encode(part) for part in batch.split(outputs, rows)]
        outbox.add_all(ids, bodies, run_us)
        outbox.flush_if_due()

    def _answer_alone(self, job: Job, outbox: Outbox) -> None:
        arrays, encode = job.arrays, encode_error
        if job.form is not None:
            encode = v2.encode_error
            arrays = tuple([array if array.flags.aligned else array.copy() for array in arrays])
        began = time.perf_counter()
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
            run_us = int((time.perf_counter() - began) * 1e6)
            self._settle(job.id, outputs, run_us, outbox, job.form)
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
    return Engine(session, hello.get("name") or plan.path.stem, hello.get("max_batch_size", 128), load_ms)


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


def _stacking_pays(session: Runner, guess: Guess) -> bool:
    """Whether rows take less time together, copying included, than one after the other. Only of large rows is it in doubt."""
    rows = [guess.make(1, seed) for seed in range(1, 5)]
    if sum(array.nbytes for array in rows[0]) < LARGE_ROW_BYTES:
        return True
    try:
        if _seconds(lambda: session.run(rows[0])) > LONG_RUN_S:
            return True
        alone = min(_seconds(lambda: [session.run(row) for row in rows]) for _ in range(5))
        return alone > min(_seconds(lambda: session.run(batch.stack(rows))) for _ in range(5))
    except RunError:  # not with these values
        return True


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began
