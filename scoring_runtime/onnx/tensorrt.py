"""TensorRT: engines are built before a model serves or while another provider does, are kept, and never built in a request.

What ONNX Runtime does by itself: it builds engines when the session is opened if every free axis has a range, otherwise in
the first run and again in each run of a shape that it has not seen. Nothing of that is for a request to wait for.
"""

import dataclasses
import hashlib
import logging
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scoring_runtime import providers
from scoring_runtime.scorer.loop import LoadError

from . import engine_cache, exactness, external_data, gpu, model_file, profiles, swap
from .dtypes import Array
from .loading import open_session
from .plan import SessionPlan
from .profiles import Profile
from .runner import Runner, Wrapper
from .samples import SCALES, Guess, guesses
from .session import VERSION, RunError, RunRefusedError

NAME = "tensorrt"
_ONNX_NAME = providers.PROVIDERS[NAME].onnx_name
_OWN_CACHE = ("trt_engine_cache_enable", "trt_engine_cache_path")
"""With one of these a user keeps engines in an own way."""

_WITHOUT_EFFECT = frozenset(
    (
        *("device_id", "trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix"),
        *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_sequential_engine_build"),
        *("trt_dump_subgraphs", "trt_detailed_build_log", "trt_context_memory_sharing_enable"),
    )
)
"""Options that the engine itself does not depend on."""

_DAMAGE = "could not deserialize engine"
_log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A model, and what its opening has learned."""

    runner: Runner
    usual_shapes: Mapping[str, profiles.Shape]
    """Of inputs with free axes, by name, where they are known."""
    most_rows: int | None = None
    """Of a run; None for any number."""
    building: str | None = None
    """What goes on in the background."""


class Profiled(Wrapper):
    """A Runner that refuses what its engine was not built for, before ONNX Runtime builds another one for it."""

    def __init__(self, runner: Runner, profile: Profile) -> None:
        super().__init__(runner)
        self._profile = profile
        self.inputs = [profiles.narrowed(tensor, profile) for tensor in runner.inputs]
        self._names = [tensor.name for tensor in self.inputs]

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """The outputs for these inputs; RunRefusedError when a size is out of range."""
        why = profiles.why_not_covered(self._profile, self._names, [array.shape for array in arrays])
        if why is not None:
            raise RunRefusedError(why)
        return self._runner.run(arrays)


def leads(plan: SessionPlan) -> bool:
    """Whether the model is to run on TensorRT."""
    return plan.providers[:1] == (NAME,)


def open_runner(plan: SessionPlan, name: str) -> Opened:
    """Open a model on TensorRT, its engines built or being built; LoadError as open_session, or when sizes are not known."""
    options = plan.options.get(NAME, {})
    device = gpu.look(_device_id(options))
    model = _read(plan.path)
    if device is None or model is None:  # this says what is wrong, or serves on the next provider where that is allowed
        return Opened(open_session(plan), {})
    try:
        profile = profiles.make(model.shapes, plan.most_rows, options)
    except profiles.ProfileError as error:
        raise LoadError(f"{plan.path}: {error}") from None
    build = Build(plan, name, profile, made_of(model.sha256, device, profile, options))
    usual = {each: sizes.usual for each, sizes in profile.items()}
    bound = profiles.bound_of(profile, model.shapes)
    if plan.tensorrt_build == "background":
        note = f"{NAME} in the background; the log says when it is used"
        return Opened(Profiled(_in_background(build), profile), usual, bound, note)
    try:
        runner = build.open()
    except LoadError:
        if plan.require:
            raise
        # This tries once more, and goes on to the next provider. With the ranges: without them TensorRT would be opened and
        # build its engines in the first request.
        runner = open_session(with_options(plan, profile, None))
    return Opened(Profiled(runner, profile), usual, bound) if _runs_on_tensorrt(runner) else Opened(runner, {})


def _device_id(options: Mapping[str, str]) -> int:
    number = options.get("device_id", "0")
    return int(number) if number.isdecimal() else 0


class Build(NamedTuple):
    """A model to open on TensorRT."""

    plan: SessionPlan
    name: str
    profile: Profile
    made_of: Mapping[str, Any]

    def open(self) -> Runner:
        """With the engines that are kept, else by building them; LoadError where TensorRT does not run it."""
        place = None
        if any(name in self.plan.options.get(NAME, {}) for name in _OWN_CACHE):
            _log.info("%s: engines are kept as tensorrt.%s say", self.name, " and tensorrt.".join(_OWN_CACHE))
        else:
            place = engine_cache.find(self.plan.cache_dir, NAME, self.made_of)
        return engine_cache.open_kept(place, self._open_in, is_damage, f"TensorRT engines for {self.name}")

    def _open_in(self, folder: Path | None) -> Runner:
        # On TensorRT or not at all: damage must be seen, and no other provider's session is taken for a built engine.
        alone = dataclasses.replace(self.plan, providers=(NAME,), require=True)
        session = open_session(with_options(alone, self.profile, folder))
        if not _runs_on_tensorrt(session):
            raise LoadError(f"{self.plan.path}: the session runs on {', '.join(session.providers)}, not on TensorRT")
        warm(session, self.profile)
        return session


def is_damage(error: LoadError) -> bool:
    """Whether ONNX Runtime could not read an engine that was kept."""
    return _DAMAGE in error.message


def with_options(plan: SessionPlan, profile: Profile, folder: Path | None) -> SessionPlan:
    """The plan with the options of TensorRT that it needs; those of the user win. folder: where engines are kept."""
    given = plan.options.get(NAME, {})
    keep = "1" if folder is not None or "trt_engine_cache_path" in given else "0"
    ours = {"trt_engine_cache_enable": keep, "trt_timing_cache_enable": keep, **profiles.to_options(profile)}
    if folder is not None:
        ours |= {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}
    return dataclasses.replace(plan, options={**plan.options, NAME: {**ours, **given}})


def made_of(sha256: str, device: gpu.Gpu, profile: Profile, options: Mapping[str, str]) -> dict[str, Any]:
    """Everything that an engine depends on."""
    return {
        "model_sha256": sha256,
        "gpu": device.name,
        "compute_capability": device.compute_capability,
        "driver": device.driver,
        "tensorrt": gpu.tensorrt_version() or gpu.UNKNOWN,
        "onnxruntime": VERSION,
        "profile": profiles.to_options(profile),
        "options": {
            name: value
            for name, value in sorted(options.items())
            if name not in _WITHOUT_EFFECT and name not in profiles.OPTIONS
        },
    }


def _in_background(build: Build) -> Runner:
    """The next provider serves, until TensorRT gives the same answers."""
    following = build.plan.providers[1:] or ("cuda", "cpu")
    current = open_session(dataclasses.replace(build.plan, providers=following))
    samples = swap.take(current, samples_of(current, build.profile))
    allowed, reason = exactness.of_tensorrt(build.plan.options.get(NAME, {}))

    def why_not(better: Runner) -> str | None:
        _log.info(
            "%s: comparing %d answers of TensorRT with those of %s, floats within %g of a value plus %g of the largest: %s",
            build.name,
            len(samples),
            following[0],
            allowed.relative,
            allowed.of_largest,
            reason,
        )
        return swap.why_differs(better, samples, allowed)

    return swap.Swapping(current, build.open, why_not, current.providers[0], _ONNX_NAME)


def warm(runner: Runner, profile: Profile) -> None:
    """Run at the ends of every range, before any request does.

    Where ONNX Runtime has cut the model into parts, sizes between these have no range of their own: such a part is built by
    these runs, for all that lies between.
    """
    guess = _find_guess(runner, profile)
    for shapes in profiles.corners(profile) or [{}]:
        if guess is None:
            _log.warning("no made-up inputs run: a part of the model may be built in the first requests")
            return
        try:
            runner.run(guess.fill(shapes, seed=1))
        except RunError as error:
            sizes = ", ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
            _log.warning("the model does not run with inputs of %s, which its profile allows: %s", sizes, error)


def samples_of(runner: Runner, profile: Profile) -> list[list[Array]]:
    """Inputs to compare answers by: of the least and of the usual sizes, each with values of different ranges."""
    guess = _find_guess(runner, profile)
    if guess is None:
        return []
    sizes = profiles.corners(profile)[:2] or [{}]
    return [guess.fill(shapes, seed, scale) for shapes in sizes for seed, scale in enumerate(SCALES, start=1)]


def _find_guess(runner: Runner, profile: Profile) -> Guess | None:
    usual = {name: sizes.usual for name, sizes in profile.items()}
    for guess in guesses([profiles.narrowed(tensor, profile) for tensor in runner.inputs], usual):
        try:
            runner.run(guess.fill(usual, seed=1))
        except RunError as error:
            _log.debug("%s does not run: %s", guess, error)
        else:
            return guess
    return None


def _runs_on_tensorrt(runner: Runner) -> bool:
    return runner.providers[:1] == [_ONNX_NAME]


class Model(NamedTuple):
    """What is to be known of a model's files before they are opened."""

    shapes: profiles.Declared
    sha256: str
    """Of the model file and of its external data."""


def _read(path: Path) -> Model | None:
    """None when it cannot be served: open_session says why."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
            external = model_file.external_tensors(model)
            if external_data.why_refused(path, external) is not None:
                return None
            shapes = model_file.declared_shapes(model)
            digest.update(model)
        for location in sorted({location for tensor in external for location in tensor.locations}):
            with (path.parent / location).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ValueError, model_file.MalformedModelError):  # ValueError: an empty file cannot be mapped
        return None
    return Model(shapes, digest.hexdigest())
