"""Load a target once, in a scorer of its own, and report what it is: `scoring-runtime check`. Blocking."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import Any

from ..errors import ScorerStartError
from ..scorer import frames
from . import ready
from .launch import LaunchPlan, describe_exit, launch

EXIT_TIMEOUT_S = 2.0
"""How long the scorer may take to end once its channel is closed."""


def probe(plan: LaunchPlan, timeout_s: float) -> dict[str, Any]:
    """What READY says; ScorerStartError when the scorer says FATAL, dies, or takes longer than `timeout_s`."""
    process, wires = launch(plan)
    try:
        return _await_ready(process, wires.channel, plan, timeout_s)
    finally:
        wires.close()
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> bool:
    """Wait for a scorer whose channel is closed, and leave nothing of what it started. Whether it ended by itself."""
    by_itself = True
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        by_itself = False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return by_itself


def _await_ready(
    process: "subprocess.Popen[bytes]", channel: socket.socket, plan: LaunchPlan, timeout_s: float
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    decoder = frames.Decoder()
    while True:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = channel.recv(65536)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            raise start_timeout(plan, timeout_s) from None
        except ConnectionResetError:  # it ended before it read what was said to it
            data = b""
        if not data:
            by_itself = _end(process)
            raise ended_early(plan, describe_exit(process.returncode)) if by_itself else cut_off(plan)
        try:
            for frame in decoder.feed(data):
                if frame.kind == frames.FATAL:
                    raise ready.read_fatal(frame)
                return ready.read(frame)
        except frames.FrameError as error:
            raise no_frame(plan, str(error)) from None


def start_timeout(plan: LaunchPlan, timeout_s: float) -> ScorerStartError:
    """The error of a scorer that did not get ready in time."""
    return ScorerStartError(
        f"{plan.target}: the scorer was not ready after {timeout_s:g} s. Raise --start-timeout-s if it needs longer."
    )


def ended_early(plan: LaunchPlan, exit_text: str) -> ScorerStartError:
    """The error of a scorer that ended before it was ready, and did not say why."""
    return ScorerStartError(f"{plan.target}: the scorer {exit_text} while it loaded. What it printed may say why.")


def no_frame(plan: LaunchPlan, fault: str) -> ScorerStartError:
    """The error of a scorer that sent something else than we do."""
    return ScorerStartError(
        f"{plan.target}: the scorer sent what is no frame: {fault}. "
        "Does the script write to descriptors that it has not opened?"
    )


def cut_off(plan: LaunchPlan) -> ScorerStartError:
    """The error of a scorer that lives, but cannot be reached any more."""
    return ScorerStartError(
        f"{plan.target}: the scorer closed its channel to the server while it loaded. "
        "Does the script close or replace descriptors that it has not opened?"
    )
