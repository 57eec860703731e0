"""Execution providers in a session: which to try and with which options, and whether a model really runs there. Pure."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from scoring_runtime.providers import AUTO, PROVIDERS, options_of
from scoring_runtime.scorer.loop import LoadError

from . import exactness
from .dtypes import Tolerance
from .plan import SessionPlan

_Opened = TypeVar("_Opened")
_LONGEST_LIST = 8
_LONGEST_TEXT = 2000
MOST_FEW = 0.5
"""`auto` takes no provider that runs a smaller part of a model's nodes."""


class UnusableError(Exception):
    """A provider cannot be used here. The text says why, and what helps."""


class UnsuitableError(UnusableError):
    """Nothing is broken: this model, or this machine, is not for it."""


class WrongOptionError(Exception):
    """An option of a provider is refused. The text names it, its value and the reason."""


@dataclass(frozen=True)
class Machine:
    """What `auto` goes by."""

    available: Sequence[str]
    """The providers that this ONNX Runtime has, by our names."""
    why_no_gpu: str | None
    """None where an NVIDIA GPU is seen."""


@dataclass(frozen=True)
class Placement:
    """Where a model runs."""

    nodes: dict[str, int]
    """How many of its nodes run where, by our names of providers; the one that was asked for first."""
    summary: str
    """The same, for a person."""
    degraded: str | None = None
    """Why it does not run where it should."""
    tolerance: Tolerance | None = None
    """How far floats may differ between runs there; None where the tolerance of their type is enough."""


def place(
    plan: SessionPlan, machine: Machine, open_on: Callable[[str], tuple[_Opened, Sequence[tuple[str, str]]]]
) -> tuple[_Opened, Placement]:
    """Open a session on the best provider that works; LoadError when the plan's policy does not allow that one.

    open_on: opens a session on a provider, and tells of each node the provider, by ONNX Runtime's name, and the operator;
    UnusableError where it cannot, LoadError where nothing can.
    """
    automatic = plan.providers == (AUTO,)
    remarks: list[str] = []
    reasons: list[str] = []
    if automatic and machine.why_no_gpu is not None:
        remarks.append(machine.why_no_gpu)
    elif automatic and "cuda" not in machine.available:
        remarks.append(f"this machine has an NVIDIA GPU, but onnxruntime no CUDA. {PROVIDERS['cuda'].install}")
    for name in candidates(plan, machine):
        try:
            session, nodes = open_on(name)
        except WrongOptionError as error:
            raise LoadError(f"{plan.path}: {error}") from error
        except UnusableError as error:
            why = f"{name}: {error}"
            if plan.require and not automatic:
                raise LoadError(f"{plan.path}: the model cannot run on the provider {why}") from error
            # `auto` asks for what suits the model and the machine.
            (remarks if automatic and isinstance(error, UnsuitableError) else reasons).append(why)
            continue
        counts = count(nodes, name)
        if automatic and counts[name] < MOST_FEW * len(nodes):
            # Each value that goes to and fro is copied, and what is dear may be what stays on the CPU.
            remarks.append(f"{name}: it can run only {counts[name]} of the {len(nodes)} nodes of this model")
            del session  # never two of them in memory
            continue
        summary = _line("; ".join([summarise(nodes, name), *remarks]))
        degraded = _line(f"runs on {name}; {'; '.join(reasons)}") if reasons else None
        inexact = exactness.of_provider(name, options(name, plan))
        return session, Placement(counts, summary, degraded, None if inexact is None else inexact[0])
    raise AssertionError("the CPU is the last of them: it opens the session or raises LoadError")


def _line(text: str) -> str:
    """Fit for a log and a probe, whatever a library said."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LONGEST_TEXT]


def candidates(plan: SessionPlan, machine: Machine) -> list[str]:
    """Our names of the providers to try, in this order."""
    if plan.providers == (AUTO,):
        # Not TensorRT, which may build its engines for minutes.
        cuda = ["cuda"] if "cuda" in machine.available and machine.why_no_gpu is None else []
        return [*cuda, *(["openvino"] if "openvino" in machine.available else []), "cpu"]
    if plan.require:
        return [plan.providers[0]]
    return list(dict.fromkeys([*plan.providers, "cpu"]))


def session_providers(name: str, plan: SessionPlan) -> list[tuple[str, dict[str, str]]]:
    """What to open a session with for a provider that is no plugin: itself, and those that take what it cannot run."""
    names = {"tensorrt": ("tensorrt", "cuda", "cpu"), "cpu": ("cpu",)}.get(name, (name, "cpu"))
    return [(PROVIDERS[each].onnx_name, options(each, plan)) for each in names]


def options(name: str, plan: SessionPlan) -> dict[str, str]:
    """The options of a provider: as given, over what other settings say, over what a server wants."""
    from_settings: dict[str, str] = {}
    if name == "cuda" and plan.gpu_memory_mb:
        from_settings["gpu_mem_limit"] = str(plan.gpu_memory_mb << 20)
    if name == "openvino":
        from_settings["num_of_threads"] = str(plan.threads)
    return {**options_of(PROVIDERS[name], {}), **from_settings, **plan.options.get(name, {})}


# OpenVINO

_PRECISIONS = {"FP32": "f32", "FP16": "f16", "BF16": "bf16"}
_PROPERTIES = {
    "precision": "INFERENCE_PRECISION_HINT",
    "num_of_threads": "INFERENCE_NUM_THREADS",
    "num_streams": "NUM_STREAMS",
    "cache_dir": "CACHE_DIR",
}


def openvino_options(wanted: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What the plugin takes: its properties, by device, as JSON.

    wanted: with what a server wants, most of which is about CPUs. given: by settings. WrongOptionError when load_config is
    no JSON object of objects.
    """
    device = wanted["device_type"]
    properties: dict[str, Any] = {}
    for option, key in _PROPERTIES.items():
        if option in (wanted if device == "CPU" else given):
            value = wanted[option]
            properties[key] = _PRECISIONS.get(value.upper(), value) if option == "precision" else value
    if device == "CPU":
        properties["ENABLE_CPU_PINNING"] = False  # scorers know nothing of each other: pinned, they would share a CPU
    config = {device: properties}
    for name, more in _load_config(wanted.get("load_config", "{}")).items():
        config[name] = {**config.get(name, {}), **more}
    taken = {"load_config": json.dumps(config)}
    if "reshape_input" in wanted:
        taken["reshape_input"] = wanted["reshape_input"]
    return taken


def _load_config(text: str) -> dict[str, dict[str, Any]]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise WrongOptionError(f"the option openvino.load_config={text} is no JSON: {error}") from None
    if not isinstance(config, dict) or not all(isinstance(each, dict) for each in config.values()):
        raise WrongOptionError(
            f'the option openvino.load_config={text}: expected properties by device, as in {{"CPU": {{"NUM_STREAMS": 1}}}}'
        )
    return config


# What ONNX Runtime says


def refused_option(text: str, opened_with: Mapping[str, Mapping[str, str]]) -> str | None:
    """The option that an error of ONNX Runtime is about, as PROVIDER.OPTION=VALUE; None when it is about none.

    opened_with: options by our names of providers.
    """
    for provider, given in opened_with.items():
        for option, value in given.items():
            keys = [option, _PROPERTIES.get(option, option)]
            if option == "load_config":
                keys += [key for each in _load_config(value).values() for key in each]
            if any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text) for key in keys):
                return f"{provider}.{option}={value}"
    return None


_BY_ONNX_NAME = {provider.onnx_name: provider.name for provider in PROVIDERS.values()}


def count(nodes: Sequence[tuple[str, str]], asked: str) -> dict[str, int]:
    """How many nodes run where, by our names; `asked`, which may be none of them, comes first."""
    counts = Counter(_BY_ONNX_NAME.get(provider, provider) for provider, _ in nodes)
    return {asked: counts.pop(asked, 0)} | dict(counts.most_common())


def summarise(nodes: Sequence[tuple[str, str]], asked: str) -> str:
    """Where nodes run, and which do not run where they were to."""
    counts = count(nodes, asked)
    total = sum(counts.values())
    texts = []
    for name in counts:
        title = PROVIDERS[name].title if name in PROVIDERS else name
        if name == asked:
            texts.append(f"{'all' if counts[name] == total else f'{counts[name]} of'} {total} nodes on {title}")
            continue
        operators = Counter(each for provider, each in nodes if _BY_ONNX_NAME.get(provider, provider) == name)
        most = [f"{each} x{times}" for each, times in operators.most_common(_LONGEST_LIST)]
        more = [f"{len(operators) - _LONGEST_LIST} more"] if len(operators) > _LONGEST_LIST else []
        texts.append(f"on {title}: {', '.join([*most, *more])}")
    return "; ".join(texts)


def check_runs(asked: str, actual: list[str], nodes: Sequence[tuple[str, str]], why: Callable[[], str]) -> None:
    """UnusableError or UnsuitableError unless a session runs where it was asked to: ONNX Runtime falls back without an error.

    actual: its providers, by ONNX Runtime's names. why: the reason where another comes first.
    """
    if actual[:1] != [PROVIDERS[asked].onnx_name]:
        raise UnusableError(why())
    if nodes and not count(nodes, asked)[asked]:
        raise UnsuitableError(f"it can run none of the {len(nodes)} nodes of this model")
