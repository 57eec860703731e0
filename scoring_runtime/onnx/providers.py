"""Execution providers: which to ask for, and whether those that were asked for are those that run."""

from collections.abc import Sequence

CPU = "CPUExecutionProvider"


def asked_for() -> list[str]:
    """The providers to open a session with, best first."""
    return [CPU]


def why_degraded(asked: Sequence[str], actual: Sequence[str]) -> str | None:
    """Why a session does not run where it was asked to: ONNX Runtime falls back without an error. None when it does."""
    missing = [name for name in asked if name not in actual]
    if missing or list(actual[:1]) != list(asked[:1]):
        return f"asked for {', '.join(asked)}; the session runs on {', '.join(actual) or 'none'}"
    return None
