"""A script that needs only the standard library."""

import json
from typing import Any


def init() -> None:
    """Nothing to load."""


def run(raw_data: str) -> dict[str, Any]:
    """The sum of each row."""
    return {"sum": [sum(row) for row in json.loads(raw_data)["data"]]}
