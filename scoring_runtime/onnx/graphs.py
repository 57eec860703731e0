"""CUDA graphs: whether a session is opened so that its runs can be captured, and why not.

A captured run is launched at once, where a plain one launches kernel by kernel. ONNX Runtime captures only models that lie
on CUDA as a whole and have no control flow, and tells it when the session is made: then it is made anew, without.
"""

import dataclasses
import logging
from collections.abc import Callable

from scoring_runtime import providers
from scoring_runtime.scorer.loop import LoadError

from . import buckets
from .plan import SessionPlan
from .session import Session

_REFUSED = "graph capture feature"
_CAPTURE = {"enable_cuda_graph": "1"}
_log = logging.getLogger(__name__)


def open_capturing(plan: SessionPlan, open_session: Callable[[SessionPlan], Session]) -> tuple[Session, str | None]:
    """A session that captures its runs where the plan and the model allow it, and why it does not; None when it does.

    LoadError where graphs were asked for and cannot be had, as for any other reason not to load.
    """
    why_not = why_not_asked(plan)
    if why_not is not None:
        return _without(plan, why_not, open_session), why_not
    options = {**plan.options, "cuda": {**plan.options.get("cuda", {}), **_CAPTURE}}
    try:
        session = open_session(dataclasses.replace(plan, options=options))
    except LoadError as error:
        if _REFUSED not in error.message:
            raise
        why_not = f"ONNX Runtime refuses to capture this model: {error.message.removeprefix(f'{plan.path}: ')}"
        session = _without(plan, why_not, open_session)
        _log.info("no CUDA graphs: %s", why_not)
        return session, why_not
    if session.captures:
        return session, None
    why_not = "the model does not run on CUDA"
    _demand(plan, why_not)
    return session, why_not


def why_not_asked(plan: SessionPlan) -> str | None:
    """Why the settings leave no room for graphs; None when they do."""
    if plan.cuda_graphs == "off":
        return "turned off"
    if plan.batch_buckets == buckets.OFF:
        return "a graph is captured for each bucket, and batch_buckets is off"
    if plan.providers[0] not in ("cuda", providers.AUTO):
        return f"the provider is {plan.providers[0]}, not cuda"
    return None


def _without(plan: SessionPlan, why_not: str, open_session: Callable[[SessionPlan], Session]) -> Session:
    _demand(plan, why_not)
    return open_session(plan)


def _demand(plan: SessionPlan, why_not: str) -> None:
    if plan.cuda_graphs == "on" and plan.require:
        raise LoadError(f"{plan.path}: CUDA graphs cannot be had: {why_not}: set cuda_graphs to auto to serve without")
    if plan.cuda_graphs == "on":
        _log.warning("no CUDA graphs: %s", why_not)
