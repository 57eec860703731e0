"""How many CPUs this process may really use: by affinity, and by the quota of its control group (version 1 or 2)."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def parse_cpu_max(text: str) -> float | None:
    """CPUs that a version 2 `cpu.max` grants ("200000 100000" is 2.0); None when it sets no limit."""
    quota, _, period = text.strip().partition(" ")
    if quota == "max":
        return None
    return _ratio(quota, period or "100000")


def parse_cfs(quota: str, period: str) -> float | None:
    """CPUs that version 1's `cpu.cfs_quota_us` and `cpu.cfs_period_us` grant; None when they set no limit."""
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    try:
        used, of = int(quota), int(period)
    except ValueError:
        return None
    return used / of if used > 0 and of > 0 else None


def parse_groups(text: str) -> dict[str, str]:
    """Controller to group path, from `/proc/self/cgroup`. The one group of version 2 stands under the empty name."""
    groups = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def quota(root: Path = Path("/")) -> float | None:
    """The least CPU quota over the process's control group and all above it; None when nothing limits it."""
    groups = parse_groups(_read(root / "proc/self/cgroup"))
    mount = root / "sys/fs/cgroup"
    grants = [parse_cpu_max(_read(folder / "cpu.max") or "max") for folder in _upwards(mount, groups.get("", "/"))]
    grants += [
        parse_cfs(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
        for folder in _upwards(mount / "cpu", groups.get("cpu", "/"))
    ]
    return min((grant for grant in grants if grant is not None), default=None)


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's folder and those above it. In a container the path may name folders that only the host sees."""
    path = PurePosixPath(group.lstrip("/"))
    if ".." not in path.parts:  # a group outside the container's own view
        yield mount / path
        yield from (mount / parent for parent in path.parents)
    yield mount


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not Linux, the other version, or no right to look: nothing limits us that we could see
        return ""


def by_affinity() -> int:
    """CPUs that the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(asked: int, scorers: int, affinity: int, granted: float | None) -> int:
    """Threads for one of `scorers` processes: as asked, or for 0 an even share of what is usable, at least one.

    Rounded down: a thread more than the quota pays for is throttled, and the others of a run then wait for it.
    """
    if asked > 0:
        return asked
    return max(1, int(usable(affinity, granted) / max(1, scorers)))


def usable(affinity: int, granted: float | None) -> float:
    """CPUs that there are in all."""
    return affinity if granted is None else min(affinity, granted)
