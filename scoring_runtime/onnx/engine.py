"""The ONNX engine: decode, group by signature, stack or pad, run, split, encode."""

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from scoring_runtime.scorer.frames import ROUTE_V2, FrameError, Request

from . import batch, cpus, exactness, ragged, warm_up, worth
from .codecs import v2
from .codecs.json import JsonCodec, encode_error
from .dtypes import BY_NAME, Array
from .opening import Wrap, open_model
from .plan import read
from .runner import Runner
from .samples import Guess
from .session import VERSION, OutOfMemoryError, RunError, RunRefusedError, RunStoppedError
from .tensors import BadInputError, Output, Tensor, unequal_sizes

LONGEST_SAMPLE_BYTES = 2048

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


class Ran(NamedTuple):
    """What came of a run."""

    outputs: list[Any]
    run_us: int
    cost_s: float
    """By which runs are compared."""


Part = Generator[Sequence[Array], Ran, None]
"""What of a frame shares a run. It yields the inputs of one run and is sent what came of it, or has the RunError thrown in;
then it answers its requests, or wants another run."""


class Engine:
    """One model, ready to score.

    What happens before and after a run is apart from the run itself, so that it can be done while another run goes on.
    usual_shapes: of inputs with free axes, by name, where they are known.
    """

    def __init__(
        self,
        session: Runner,
        name: str,
        max_batch_size: int,
        load_ms: float = 0.0,
        *,
        overlaps: bool = True,
        usual_shapes: Mapping[str, tuple[int, ...]] | None = None,
        wanted: ragged.Wanted = ragged.Wanted(),  # noqa: B008 - frozen
        wrap: Wrap | None = None,
    ) -> None:
        self._session = session
        self._clock = warm_up.cost_clock(session)
        self._codec = JsonCodec(session.inputs, session.outputs)
        self._v2 = v2.InferenceCodec(session.inputs, session.outputs, name)
        self._worth = worth.Worth(max_batch_size)
        began = time.perf_counter()
        guess = warm_up.find_sample(session, usual_shapes)
        self._why_not_batchable = warm_up.why_not_batchable(session, guess)
        self._stacks = self._why_not_batchable is None
        self._padding: ragged.Padding | None = None
        why_not_padded: str | None = "requests do not share runs"
        rows_per_run: int | None = 1
        gain: float | None = None
        described: dict[str, Any] = {}
        single = BY_NAME["float32"].tolerance
        if self._stacks and guess is not None:
            padding = warm_up.padding(session, guess, wanted)
            if isinstance(padding, ragged.Padding):
                self._padding, why_not_padded = padding, None
            else:
                why_not_padded = padding
            if wrap is not None:
                self._session, described = wrap(session, guess)
            rows_per_run, gain = warm_up.measure(self._session, guess, self._worth, max_batch_size)
        if why_not_padded is not None and (wanted.masks or wanted.lengths):
            _log.warning("--mask-inputs and --length-inputs are of no use: %s", why_not_padded)
        self.info: dict[str, Any] = {
            "engine": "onnx",
            "idempotent": True,
            "ahead": int(overlaps),
            "stops": True,
            "headers": "none",
            "name": name,
            "inputs": [_describe(tensor) for tensor in session.inputs],
            "outputs": [_describe(output) for output in session.outputs],
            "batchable": self._why_not_batchable is None,
            "why_not_batchable": self._why_not_batchable,
            "rows_per_run": rows_per_run,
            "stacking_gain": None if gain is None else round(gain, 2),
            "ragged": why_not_padded or True,
            "tolerance": asdict(exactness.wider(single, session.placement.tolerance)) if single else None,
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
            **described,
        }

    def score(self, requests: Sequence[Request], outbox: Outbox) -> int:
        """Answer every request, each by itself: what is wrong with one never shows in another. The time of all runs, in us."""
        return sum([drive(part, self.run) for part in self.parts(requests, outbox)])

    def run(self, arrays: Sequence[Array]) -> Ran:
        """One run that a part wants. Raises as the runner's."""
        began, cost_began = time.perf_counter(), self._clock()
        outputs = self._session.run(arrays)
        cost_s = self._clock() - cost_began
        return Ran(outputs, int((time.perf_counter() - began) * 1e6), cost_s)

    def stop(self) -> None:
        """Let the run that is under way end early. As the runner's."""
        self._session.stop()

    def parts(self, requests: Sequence[Request], outbox: Outbox) -> Iterator[Part]:
        """The same, in parts, to be run one after the other. What cannot be read is answered before the first of them."""
        if len(requests) > 1 and self._stacks and self._padding is None:
            ids, _, routes, _, _, bodies = zip(*requests, strict=True)
            together = self._codec.decode_together(bodies) if ROUTE_V2 not in routes else None
            if together is not None:
                yield from self._stacked_parts(ids, *together, outbox)
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
                yield self._answer(jobs, outbox)
        for job in alone:
            yield self._answer_alone(job, outbox)

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

    def _stacked_parts(
        self, ids: Sequence[int], arrays: list[Array], rows: list[int], outbox: Outbox
    ) -> Iterator[Part]:
        """What is stacked already, in runs of as many rows as are worth it."""
        known = kind, _ = self._worth.of(batch.shapes(arrays))
        parts = iter([slice(None)]) if len(arrays[0]) <= kind.most_rows else batch.chunks(rows, lambda: kind.most_rows)
        first_row = 0
        for part in parts:
            last_row = first_row + sum(rows[part])
            stacked = arrays if part == slice(None) else [array[first_row:last_row] for array in arrays]
            first_row = last_row
            yield self._answer_stacked(ids[part], stacked, rows[part], outbox, known)

    def _answer_stacked(
        self, ids: Sequence[int], arrays: list[Array], rows: list[int], outbox: Outbox, known: tuple[worth.Kind, int]
    ) -> Part:
        """Run what is stacked already; if that fails, each by itself."""
        try:
            yield from self._run_together(ids, arrays, rows, outbox, known)
        except RunStoppedError:
            _decline(ids, outbox)
        except (RunError, batch.RowsError, FrameError):
            for number, job in zip(ids, batch.split(arrays, rows), strict=True):
                yield from self._answer_alone(Job(number, tuple(job)), outbox)

    def _answer(self, jobs: Sequence[Job], outbox: Outbox) -> Part:
        """Run jobs as one; if that fails, each by itself."""
        if len(jobs) == 1:
            yield from self._answer_alone(jobs[0], outbox, learned=True)
            return
        began = self._clock()
        members, lengths = [job.arrays for job in jobs], [job.length or 0 for job in jobs]
        ids, rows, forms = [job.id for job in jobs], [job.rows for job in jobs], [job.form for job in jobs]
        try:
            if self._padding is None or len(set(lengths)) == 1:
                arrays, lengths = batch.stack(members), []
            else:
                arrays = self._padding.stack(members, max(lengths))
            known = self._worth.of(batch.shapes(arrays))
            stacking_s = self._clock() - began
            yield from self._run_together(ids, arrays, rows, outbox, known, forms, lengths, stacking_s)
        except RunStoppedError:
            _decline(ids, outbox)
        except (RunError, batch.RowsError, FrameError):
            for job in jobs:
                yield from self._answer_alone(job, outbox)

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
    ) -> Part:
        """One run, and its rows to whom they belong; RunError, RowsError or FrameError when nothing was answered.

        known: what is known of such rows, and how many cells one has. lengths: those of the requests, where they were padded.
        stacking_s: what it took to stack them.
        """
        outputs, run_us, cost_s = yield arrays
        total = sum(rows)
        batch.check_rows(outputs, total)
        kind, row_cells = known
        useful_rows: float = total
        if lengths:  # what is padding brought nothing
            useful_rows = sum([count * length for count, length in zip(rows, lengths, strict=True)]) / max(lengths)
        kind.observe(total, useful_rows * row_cells, stacking_s + cost_s)
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

    def _answer_alone(self, job: Job, outbox: Outbox, *, learned: bool = False) -> Part:
        """Run one request. `learned`: it could have shared a run, so that what it takes is of interest."""
        arrays, encode = job.arrays, encode_error
        if job.form is not None:
            encode = v2.encode_error
            arrays = tuple([array if array.flags.aligned else array.copy() for array in arrays])
        try:
            outputs, run_us, cost_s = yield arrays
        except RunStoppedError:
            _decline([job.id], outbox)
        except RunRefusedError as error:
            outbox.add(job.id, 400, encode(f"the model refuses the inputs: {error}"))
        except RunError as error:
            unequal = unequal_sizes(self._session.inputs, arrays)
            if unequal is not None:
                outbox.add(job.id, 400, encode(f"the inputs do not fit together: {unequal}"))
            else:
                _log.error("the model failed on a request: %s", error)
                too_large = isinstance(error, OutOfMemoryError)
                outbox.add(job.id, *(507, encode(_no_memory(job))) if too_large else (500, encode(_RUN_FAILED)))
        else:
            if learned:
                kind, row_cells = self._worth.of(batch.shapes(arrays))
                kind.observe(job.rows, job.rows * row_cells, cost_s)
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


def drive(part: Part, run: Callable[[Sequence[Array]], Ran]) -> int:
    """Run a part to its end, here and now. The time of its runs, in us."""
    total_us = 0
    try:
        arrays = next(part)
        while True:
            try:
                ran = run(arrays)
            except RunError as error:
                arrays = part.throw(error)
                continue
            total_us += ran.run_us
            arrays = part.send(ran)
    except StopIteration:
        return total_us


def _decline(request_ids: Sequence[int], outbox: Outbox) -> None:
    """Settle requests whose run was stopped. Nobody reads it."""
    for number in request_ids:
        outbox.add(number, 503, encode_error("the run was stopped: nobody waits for it any more"))


def load(hello: dict[str, Any]) -> Engine:
    """The engine that the front's HELLO asks for; LoadError when the model cannot be served."""
    logging.basicConfig(level=hello.get("log_level", "info").upper(), format="%(levelname)s %(name)s: %(message)s")
    affinity, granted = cpus.by_affinity(), cpus.quota()
    threads = cpus.threads(hello.get("threads", 0), hello.get("scorers", 1), affinity, granted)
    plan = read(hello, threads)
    began = time.perf_counter()
    name = hello.get("name") or plan.path.stem
    opened = open_model(plan, name)
    load_ms = (time.perf_counter() - began) * 1000
    # To decode beside a run takes a CPU that the runs leave: where they need all, it would cost, and gain nothing.
    busy = threads * hello.get("scorers", 1)
    overlaps = cpus.usable(affinity, granted) >= busy + 1 or opened.runner.providers != ["CPUExecutionProvider"]
    engine = Engine(
        opened.runner,
        name,
        opened.most_rows,
        load_ms,
        overlaps=overlaps,
        usual_shapes=opened.usual_shapes,
        wanted=ragged.read(hello),
        wrap=opened.wrap,
    )
    engine.info["optimized_cache"] = opened.optimized_cache
    if opened.building:
        engine.info["building"] = opened.building
    if plan.cuda_graphs == "on" and not engine.info["batchable"]:
        _log.warning("no CUDA graphs: batches cannot be padded: %s", engine.info["why_not_batchable"])
    return engine


def _no_memory(job: Job) -> str:
    """Of a request that no smaller run can answer."""
    shapes = ", ".join(str(list(array.shape)) for array in job.arrays)
    return (
        f"the model needs more memory for inputs of the shape {shapes} than there is: "
        "send fewer or smaller rows, or give the server more memory (on a GPU: raise --gpu-memory-mb)"
    )


def _describe(output: Output) -> dict[str, Any]:
    if isinstance(output, Tensor):
        shape = None if output.shape is None else list(output.shape)
        return {"name": output.name, "dtype": output.dtype.name, "shape": shape}
    return {"name": output.name, "dtype": output.type, "shape": None}
