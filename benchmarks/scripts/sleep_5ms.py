"""A script that waits for something else: 5 ms without a processor."""

import time


def init() -> None:
    """Nothing to load."""


def run(raw_data: str) -> int:
    """How long the input was."""
    time.sleep(0.005)
    return len(raw_data)
