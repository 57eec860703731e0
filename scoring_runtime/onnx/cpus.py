"""How many CPUs this process may really use: by affinity, and by the quota of its control group (version 1 or 2)."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


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


class Mount(NamedTuple):
    """Where control groups that can limit CPUs are to be seen."""

    version: int
    root: str
    """The group that lies at `point`: in a container often its own, though the paths of groups begin above it."""
    point: str


USUAL_MOUNTS = (Mount(2, "/", "/sys/fs/cgroup"), Mount(1, "/", "/sys/fs/cgroup/cpu"))
"""Looked at in any case: a container may show files there that are no mount of control groups."""


def parse_mounts(text: str) -> list[Mount]:
    """The mounts that count, from `/proc/self/mountinfo`."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if len(place) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            mounts.append(Mount(2, place[3], place[4]))
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            mounts.append(Mount(1, place[3], place[4]))
    return mounts


def quota(root: Path = Path("/")) -> float | None:
    """The least CPU quota over the process's control group and all above it; None when nothing limits it."""
    groups = parse_groups(_read(root / "proc/self/cgroup"))
    grants = []
    for mount in {*parse_mounts(_read(root / "proc/self/mountinfo")), *USUAL_MOUNTS}:
        point = root / mount.point.lstrip("/")
        for folder in _upwards(point, mount.root, groups.get("" if mount.version == 2 else "cpu", "/")):
            if mount.version == 2:
                grants.append(parse_cpu_max(_read(folder / "cpu.max") or "max"))
            else:
                grants.append(parse_cfs(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")))
    return min((grant for grant in grants if grant is not None), default=None)


def _upwards(point: Path, root: str, group: str) -> Iterator[Path]:
    """The group's folder and those above it, down to where `root` is mounted. The path may name folders that only the host sees."""
    path = PurePosixPath(group)
    if path.is_relative_to(root):
        path = path.relative_to(root)
    if ".." not in path.parts:  # a group outside the container's own view
        path = PurePosixPath(str(path).lstrip("/"))
        yield point / path
        yield from (point / parent for parent in path.parents)
    yield point


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

    Rounded down: a thread more than the quota pays for is throttled, and the others of a run then wait for it. What is left
    over goes to nobody: of 3 CPUs and 2 scorers, each has one thread, and the third CPU is the front's. With a thread more
    one scorer would be faster than the other, while the front predicts both by one cost.
    """
    if asked > 0:
        return asked
    return max(1, int(usable(affinity, granted) / max(1, scorers)))


def usable(affinity: int, granted: float | None) -> float:
    """CPUs that there are in all."""
    return affinity if granted is None else min(affinity, granted)
