"""What can be tried: settings that fit the machine and the model, simplest first. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import providers

AXES = ("provider", "graph level", "scorers and threads", "batch bound", "buckets")
"""In the order in which they are searched. The graph level stands early because it may decide whether answers agree."""

GRAPH_LEVELS = ("all", "extended", "basic")
BATCH_BOUNDS = (128, 32, 8, 1)
BUCKETS = ("auto", "off")


@dataclass(frozen=True)
class Ground:
    """What limits the search."""

    cpus: int
    """That affinity and control group grant."""
    providers: tuple[str, ...]
    """Those that run the model here; the CPU first, which is the reference."""
    batchable: bool
    fixed: Mapping[str, Any]
    """Settings that the user has chosen: they are not searched."""


@dataclass(frozen=True)
class Candidate:
    """One choice of the settings that are searched."""

    provider: str = "cpu"
    graph_optimization: str = "all"
    scorers: int = 1
    threads: int = 1
    max_batch_size: int = 128
    batch_buckets: str = "auto"

    def settings(self) -> dict[str, Any]:
        """By the settings' names."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        buckets = "" if self.batch_buckets == "auto" else f", buckets {self.batch_buckets}"
        return (
            f"{self.provider}, graph {self.graph_optimization}, {self.scorers} x {self.threads} threads, "
            f"batches up to {self.max_batch_size}{buckets}"
        )

    @property
    def burden(self) -> tuple[Any, ...]:
        """What it takes: of two that do as well, the lesser one is chosen. Threads, processes, then what is no default."""
        unusual = (
            GRAPH_LEVELS.index(self.graph_optimization) if self.graph_optimization in GRAPH_LEVELS else 0,
            self.max_batch_size != BATCH_BOUNDS[0],
            self.batch_buckets != BUCKETS[0],
        )
        return (self.scorers * self.threads, self.scorers, sum(map(bool, unusual)), unusual, dataclasses.astuple(self))


REFERENCE = Candidate("cpu", "off", 1, 1, 1, "off")
"""Whose answers all others are compared with: the graph as it was exported, one thread, one request at a time."""

SEARCHED = tuple(field.name for field in dataclasses.fields(Candidate))


def is_open(name: str, value: Any) -> bool:
    """Whether a setting that was given leaves the choice to the server: then it is searched."""
    return name in ("scorers", "threads") and value == 0


def start(ground: Ground) -> Candidate:
    """What `serve` does by itself on this machine, with what the user has fixed."""
    fixed = {name: ground.fixed[name] for name in SEARCHED if name in ground.fixed}
    scorers = fixed.get("scorers", 1)
    values = {"provider": ground.providers[0], "threads": max(1, ground.cpus // scorers), **fixed}
    return Candidate(**values)


def variants(axis: str, current: Candidate, ground: Ground) -> list[Candidate]:
    """The other choices along one axis, best guess first. None where the user has fixed it or it decides nothing."""
    changes = [change for change in _changes(axis, current, ground) if not change.keys() & ground.fixed.keys()]
    found = [dataclasses.replace(current, **change) for change in changes]
    return [candidate for candidate in dict.fromkeys(found) if candidate != current]


def _changes(axis: str, current: Candidate, ground: Ground) -> list[dict[str, Any]]:
    if axis == "provider":
        return [{"provider": name} for name in ground.providers]
    if axis == "graph level":
        return [{"graph_optimization": level} for level in GRAPH_LEVELS]
    if axis == "scorers and threads":
        return _shares(current, ground)
    if axis == "batch bound":
        return [{"max_batch_size": bound} for bound in BATCH_BOUNDS] if ground.batchable else []
    on_gpu = current.provider in providers.PROVIDERS and providers.PROVIDERS[current.provider].gpu
    return [{"batch_buckets": buckets} for buckets in BUCKETS] if on_gpu else []


def _shares(current: Candidate, ground: Ground) -> list[dict[str, Any]]:
    """Ways to share the CPUs out among processes: never more threads in all than CPUs, but for what is fixed."""
    cpus = ground.cpus
    if "scorers" in ground.fixed:
        most = max(1, cpus // current.scorers)
        return [{"threads": threads} for threads in _halves(most)]
    if "threads" in ground.fixed:
        most = max(1, cpus // max(1, current.threads))
        return [{"scorers": scorers} for scorers in reversed(_halves(most))]
    full = [(scorers, max(1, cpus // scorers)) for scorers in reversed(_halves(cpus))]
    spare = [(cpus - 1, 1)] if cpus > 2 else []  # one CPU is left to the front
    single = [(1, threads) for threads in reversed(_halves(cpus))]
    return [{"scorers": scorers, "threads": threads} for scorers, threads in (*full, *spare, *single)]


def _halves(most: int) -> list[int]:
    """`most`, its half, and so on down to 1."""
    return [most, *_halves(most // 2)] if most > 1 else [1]
