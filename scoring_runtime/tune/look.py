"""What is to be tuned: a look at the model, at the providers that run it here, and at the requests to measure with."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import providers, sealing
from ..errors import ScorerStartError, TuneError, UsageError
from ..pool import launch, probe
from ..settings import Settings
from ..target import Target
from .answers import Tolerance, Tolerances
from .order import Order
from .progress import Progress


@dataclass(frozen=True)
class Facts:
    """What `onnx/facts.py` and the warm-up say of the model."""

    info: Mapping[str, Any]
    bodies: list[bytes]
    tolerances: Tolerances
    files: tuple[str, ...]


def at_model(target: Target, settings: Settings, order: Order, environ: Mapping[str, str], ends_at: float) -> Facts:
    """Load the model once as the server does, and once beside it for what only a tuner wants to know.

    ends_at: by the monotonic clock, when the budget is spent.
    """
    plan = launch.plan(target, dataclasses.replace(settings, provider="cpu", scorers=1), environ)
    with subprocess.Popen(
        [sys.executable, "-I", "-m", "scoring_runtime.onnx.facts", json.dumps(dict(plan.hello))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=sealing.sealed(os.environ),
        start_new_session=True,
    ) as asked:
        try:
            info = probe.probe(plan, min(settings.load_timeout_s, _left_s(ends_at)))
            told, complaint = asked.communicate(timeout=_left_s(ends_at))
        except subprocess.TimeoutExpired:
            raise TuneError(
                f"{target.path}: took longer than the whole budget to load. Raise --budget-s, now {order.budget_s:g}."
            ) from None
        finally:
            asked.kill()
    if asked.returncode:
        raise ScorerStartError(f"{target.path}: cannot be looked at.", complaint.decode("utf-8", "backslashreplace"))
    document = json.loads(told)
    tolerances: dict[str, Tolerance | None] = {}
    for name, tolerance in document["tolerances"].items():
        wanted = None if tolerance is None else Tolerance(**tolerance)
        if wanted is not None and order.tolerance is not None:
            wanted = Tolerance(order.tolerance, order.tolerance / 10)
        tolerances[name] = wanted
    return Facts(info, [body.encode() for body in document["bodies"]], tolerances, tuple(document["files"]))


def working_providers(
    target: Target,
    settings: Settings,
    order: Order,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    progress: Progress,
    ends_at: float,
) -> tuple[str, ...]:
    """Those that really run the model, of all or of those that are asked for. What does not is said aloud."""
    if "provider" in given:
        return (settings.provider,)
    asked = order.providers if order.providers != providers.AUTO else None
    wanted = providers.parse_list(asked) if asked else list(providers.PROVIDERS)
    installed = _installed_providers()
    found = []
    for name in wanted:
        if name == "cpu":
            found.append(name)
            continue
        onnx_name = providers.PROVIDERS[name].onnx_name
        why = "is not in the installed onnxruntime" if onnx_name not in installed else ""
        if not why:
            try:
                plan = launch.plan(target, dataclasses.replace(settings, provider=name, scorers=1), environ)
                runs = probe.probe(plan, min(settings.load_timeout_s, _left_s(ends_at)))["providers"]
                why = "" if onnx_name in runs[:1] else f"does not run the model: {', '.join(runs)} would"
            except ScorerStartError as error:
                why = f"does not run the model: {error.message}"
        if not why:
            found.append(name)
        elif asked:
            progress.say(f"provider {name} {why}")
    if not found:
        raise TuneError(f"none of the providers {asked} runs the model here. Leave --providers out.")
    return tuple(found)


def _left_s(ends_at: float) -> float:
    return max(0.1, ends_at - time.monotonic())


def _installed_providers() -> list[str]:
    """What ONNX Runtime has providers for, by its own names. Asked in a process of its own: this one is to stay small."""
    code = "import json, onnxruntime; print(json.dumps(onnxruntime.get_available_providers()))"
    asked = subprocess.run(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={**sealing.sealed(os.environ), "ORT_DISABLE_TELEMETRY": "1"},
    )
    names: list[str] = json.loads(asked.stdout) if asked.returncode == 0 else []
    return names


def made_up(facts: Facts) -> list[bytes]:
    """Requests where the user gives none; UsageError when the model accepts none that we could think of."""
    if not facts.bodies:
        raise UsageError(
            "no inputs were found that the model accepts: give requests of yours, --samples FILE with one JSON body on "
            "each line."
        )
    return facts.bodies
