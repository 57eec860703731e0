"""The machine and the commit that numbers belong to."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("scoring_runtime", "benchmarks", "requirements", ":!benchmarks/results", ":!benchmarks/notes.toml")
"""What a number depends on, as paths for git. Results and what is said about them are not: writing them must not make the
next run another."""


class BenchmarkError(Exception):
    """Nothing can be measured; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Cores:
    """What runs where: servers and the client share nothing but the machine, unless `shared` says so."""

    server: tuple[int, ...]
    client: int

    @property
    def shared(self) -> bool:
        return self.client in self.server


def pick_cores(server_cores: int = 1) -> Cores:
    """So many cores for the server, and the next one for the client.

    Where there is none left, and the server has more than one, the client shares the server's last core.
    """
    if sys.platform != "linux":
        raise BenchmarkError("cores are pinned and clocks are read in Linux's way: run it on Linux")
    available = sorted(os.sched_getaffinity(0))
    if len(available) < max(2, server_cores):
        raise BenchmarkError("two cores are needed: one for the server, one for the client")
    client = available[server_cores] if server_cores < len(available) else available[-1]
    return Cores(tuple(available[:server_cores]), client)


def describe() -> dict[str, object]:
    """The machine, its kernel, the versions of the tools and of everything installed here, and the commit."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": packages(sys.prefix),
        "commit": commit(),
        "uncommitted_changes": uncommitted_changes(),
    }


def packages(prefix: str) -> dict[str, str]:
    """Name -> version of what the environment at `prefix` holds."""
    folders = [str(folder) for folder in Path(prefix).glob("lib/python3*/site-packages")]
    found = importlib.metadata.distributions(path=folders)
    return dict(sorted((distribution.name, distribution.version) for distribution in found))


def commit() -> str | None:
    """The last commit that changed something measured, or None where there is no git."""
    return _git("log", "-1", "--format=%H", "--", *MEASURED)


def uncommitted_changes() -> bool:
    return bool(_git("status", "--porcelain", "--", *MEASURED))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
