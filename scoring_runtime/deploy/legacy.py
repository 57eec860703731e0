"""Names of base images that people used before, and what takes their place today. Pure, but for reading the table."""

import difflib
import fnmatch
import json
from importlib import resources
from typing import NamedTuple

from ..errors import UsageError

TABLE = "legacy_images.json"
GROUP = "azureml"
"""Under which nearly all of them were published."""


class Successor(NamedTuple):
    """What takes the place of an image. `image` is None where nothing does."""

    image: str | None
    explanation: str


def successor(name: str) -> Successor:
    """What to use in place of the image `name`, with or without its registry, group and tag; UsageError for an unknown one."""
    wanted = _without_registry(name)
    # As tables and Dockerfiles write them: `cpu/openmpi4.1.0-ubuntu22.04`, `onnxruntime:latest-cuda`.
    spellings = [wanted, f"{GROUP}/{wanted}", f"{GROUP}/{wanted.partition('/')[2]}"]
    rows = _rows()
    for candidate in [spelling + tag for spelling in spellings for tag in ("", ":latest")]:
        for pattern, found in rows:
            if fnmatch.fnmatchcase(candidate, pattern):
                return found
    known = sorted({pattern.partition(":")[0] for pattern, _ in rows})
    nearest = difflib.get_close_matches(spellings[1], known, 1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise UsageError(f"{name}: no image that this family takes the place of.{hint} Known are {', '.join(known)}.")


def _without_registry(name: str) -> str:
    """`mcr.microsoft.com/azureml/x:tag` is `azureml/x:tag`: a first part with a dot or a port is a host. No digest either."""
    wanted = name.strip().lower().partition("@")[0]
    host, slash, rest = wanted.partition("/")
    return rest if slash and ("." in host or ":" in host or host == "localhost") else wanted


def _rows() -> list[tuple[str, Successor]]:
    document = json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    return [(row["name"], Successor(row["image"], row["explanation"])) for row in document["names"]]
