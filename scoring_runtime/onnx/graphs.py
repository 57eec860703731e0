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
_ELSEWHERE = "the model does not run on CUDA"
_CAPTURE = {"enable_cuda_graph": "1"}
_log = logging.getLogger(__name__)


def open_capturing(
    plan: SessionPlan, open_session: Callable[[SessionPlan], Session], leads: str
) -> tuple[Session, str | None]:
    """A session that captures its runs where the plan and the model allow it, and why it does not; None when it does.

    leads: the provider that is tried first. LoadError where graphs were asked for and cannot be had, as for any other reason
    not to load.
    """
    why_not = why_not_asked(plan, leads)
    plain = None
    if why_not is None:
        # On CUDA or not at all: a provider that is preferred would give way to the next one, for want of a graph.
        options = {**plan.options, "cuda": {**plan.options.get("cuda", {}), **_CAPTURE}}
        try:
            session = open_session(dataclasses.replace(plan, providers=("cuda",), require=True, options=options))
        except LoadError as error:
            why_not = error.message.removeprefix(f"{plan.path}: ")
        else:
            if session.captures:
                return session, None
            why_not = _ELSEWHERE
        # Where the reason was another one, this says so, and as the policy wants it.
        plain = open_session(plan)
        if _on_cuda(plain):
            if _REFUSED in why_not:
                why_not = f"ONNX Runtime refuses to capture this model: {why_not}"
            _log.info("no CUDA graphs: %s", why_not)
        else:
            why_not = _ELSEWHERE
    if plan.cuda_graphs == "on":
        if plan.require:
            raise LoadError(
                f"{plan.path}: CUDA graphs cannot be had: {why_not}: set cuda_graphs to auto to serve without"
            )
        _log.warning("no CUDA graphs: %s", why_not)
    return plain or open_session(plan), why_not


def _on_cuda(session: Session) -> bool:
    return session.providers[0] == providers.PROVIDERS["cuda"].onnx_name


def why_not_asked(plan: SessionPlan, leads: str) -> str | None:
    """Why the settings leave no room for graphs; None when they do. leads: as in open_capturing."""
    if plan.cuda_graphs == "off":
        return "turned off"
    if plan.options.get("cuda", {}).get("enable_cuda_graph", "1").lower() in ("0", "false"):
        return "the option cuda.enable_cuda_graph turns them off"
    if plan.batch_buckets == buckets.OFF:
        return "a graph is captured for each bucket, and batch_buckets is off"
    if leads != "cuda":
        return _ELSEWHERE if plan.providers[0] == providers.AUTO else f"the provider is {leads}, not cuda"
    return None
