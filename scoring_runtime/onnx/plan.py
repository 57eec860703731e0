"""How a model is to be opened: what the front's HELLO says of it, in types. Pure."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scoring_runtime import providers

from . import profiles


@dataclass(frozen=True)
class SessionPlan:
    """One model, and how its session is to be opened."""

    path: Path
    threads: int
    providers: tuple[str, ...] = (providers.AUTO,)
    """As in the settings, best first."""
    require: bool = True
    """A session that does not run on the first of them is refused; otherwise it serves, and is called degraded."""
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of providers, as in the settings."""
    graph_optimization: str = "all"
    cache_dir: Path | None = None
    """Where optimised models and engines are kept; None for nowhere."""
    cache_dir_is_named: bool = False
    """Somebody asked for that folder, and is told when it cannot be used."""
    gpu_memory_mb: int = 0
    """Of the arena; 0 for no limit."""
    most_rows: int = 128
    """Of a run, padding included."""
    tensorrt_build: str = "wait"
    """As in the settings."""
    batch_buckets: str = "auto"
    cuda_graphs: str = "auto"
    max_batch_size: int = 128


def read(hello: dict[str, Any], threads: int) -> SessionPlan:
    """The plan that HELLO holds."""
    cache_dir = hello.get("cache_dir")
    return SessionPlan(
        path=Path(hello["target"]),
        threads=threads,
        providers=tuple(providers.parse_list(hello.get("provider", providers.AUTO))),
        require=hello.get("provider_policy", "require") == "require",
        options=providers.parse_options(hello.get("provider_option", "")),
        graph_optimization=hello.get("graph_optimization", "all"),
        cache_dir=Path(cache_dir) if cache_dir else None,
        cache_dir_is_named=hello.get("cache_dir_is_named", False),
        gpu_memory_mb=hello.get("gpu_memory_mb", 0),
        most_rows=profiles.most_rows(hello.get("max_batch_size", 128), hello.get("batch_buckets", "auto")),
        tensorrt_build=hello.get("tensorrt_build", "wait"),
        batch_buckets=hello.get("batch_buckets", "auto"),
        cuda_graphs=hello.get("cuda_graphs", "auto"),
        max_batch_size=hello.get("max_batch_size", 128),
    )
