"""Names of base images that people used before, and what takes their place today. Pure, but for reading the table."""

import fnmatch
import json
from importlib import resources
from typing import NamedTuple

from ..errors import UsageError

TABLE = "legacy_images.json"


class Successor(NamedTuple):
    """What takes the place of an image. `image` is None where nothing does."""

    image: str | None
    explanation: str


def successor(name: str) -> Successor:
    """What to use in place of the image `name`, with or without its registry and tag; UsageError for an unknown name."""
    wanted = _without_registry(name)
    rows = _rows()
    for candidate in (wanted, f"{wanted}:latest"):
        for pattern, found in rows:
            if fnmatch.fnmatchcase(candidate, pattern):
                return found
    known = sorted({pattern.partition(":")[0] for pattern, _ in rows})
    raise UsageError(f"{name}: no image that this family takes the place of. Known are {', '.join(known)}.")


def _without_registry(name: str) -> str:
    """`mcr.microsoft.com/azureml/x:tag` is `azureml/x:tag`: a first part with a dot or a port is a host. No digest either."""
    host, slash, rest = name.strip().lower().partition("@")[0].partition("/")
    return (
        rest
        if slash and ("." in host or ":" in host or host == "localhost")
        else name.strip().lower().partition("@")[0]
    )


def _rows() -> list[tuple[str, Successor]]:
    document = json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    return [(row["name"], Successor(row["image"], row["explanation"])) for row in document["names"]]
