"""Load a target once, in a scorer of its own, and report what it is: `scoring-runtime check`. Blocking."""

import os
import signal
import subprocess
import time
from typing import Any

from ..errors import ScorerStartError
from ..scorer import frames
from .launch import Launched, LaunchPlan, describe_exit, launch

EXIT_TIMEOUT_S = 5.0
"""How long the scorer may take to end once its channel is closed."""


def probe(plan: LaunchPlan, timeout_s: float) -> dict[str, Any]:
    """What READY says; ScorerStartError when the scorer says FATAL, dies, or takes longer than `timeout_s`."""
    scorer = launch(plan)
    try:
        return _await_ready(scorer, time.monotonic() + timeout_s, timeout_s)
    finally:
        scorer.channel.close()
        scorer.progress.close()
        try:
            scorer.process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(scorer.process.pid, signal.SIGKILL)
            scorer.process.wait()


def _await_ready(scorer: Launched, deadline: float, timeout_s: float) -> dict[str, Any]:
    decoder = frames.Decoder()
    while True:
        scorer.channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = scorer.channel.recv(65536)
        except TimeoutError:
            os.killpg(scorer.process.pid, signal.SIGKILL)
            raise start_timeout(timeout_s) from None
        if not data:
            raise ScorerStartError(f"the scorer {describe_exit(scorer.process.wait())} while it loaded.")
        for frame in decoder.feed(data):
            message = frames.decode_json(frame)
            if frame.kind == frames.FATAL:
                raise ScorerStartError(str(message.get("message")), str(message.get("traceback", "")))
            return message


def start_timeout(timeout_s: float) -> ScorerStartError:
    """The error of a scorer that did not get ready in time."""
    return ScorerStartError(
        f"the scorer was not ready after {timeout_s:g} s. Raise --start-timeout-s if it needs longer."
    )
