"""A model's threads are those that the CPUs of this process' control group and affinity pay for, and not the host's."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring_runtime.onnx import cpus

from .conftest import COMMAND, environment

pytestmark = pytest.mark.skipif(cpus.by_affinity() < 2, reason="with one CPU there is nothing to limit")

IN_GROUP = ("sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"')
"""Then the group's folder and a command."""

IN_VIEW = (
    *("unshare", "--mount", "--map-root-user", "sh", "-c"),
    'mount -t tmpfs none /sys/fs/cgroup && echo "100000 100000" > /sys/fs/cgroup/cpu.max && exec "$0" "$@"',
)
"""Then a command. It sees the file that version 2 of control groups would show in a container of one CPU."""


@contextlib.contextmanager
def one_cpu_granted() -> Iterator[tuple[str, ...]]:
    """What to put before a command so that it runs with a quota of one CPU.

    In a real control group where one can be made, else in front of the file of one. Where neither can be had, the test
    fails for root, who is to arrange for it, and is skipped for others.
    """
    group = Path("/sys/fs/cgroup", "cpu" if Path("/sys/fs/cgroup/cpu").is_dir() else "", f"test-{os.getpid()}")
    try:
        group.mkdir()
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("100000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        if subprocess.run([*IN_VIEW, "true"], check=False, capture_output=True).returncode == 0:
            yield IN_VIEW
            return
        why = f"no control group can be made ({error}), and no mount namespace: run this in a container that may do either"
        if os.geteuid() == 0:
            pytest.fail(why)
        pytest.skip(f"only root can limit CPUs here: {why}")
    else:
        try:
            yield (*IN_GROUP, str(group))
        finally:
            deadline = time.monotonic() + 10
            while group.exists():
                try:
                    group.rmdir()
                except OSError:  # the last process of it is about to be gone
                    assert time.monotonic() < deadline
                    time.sleep(0.01)


def told(prefix: tuple[str, ...], *arguments: Any) -> int:
    """What `check` says of the threads."""
    command = [*prefix, *COMMAND, "check", *map(str, arguments)]
    ended = subprocess.run(command, env=environment("threads"), capture_output=True, text=True, check=True, timeout=60)
    (row,) = [line for line in ended.stdout.splitlines() if line.startswith("threads ")]
    return int(row.split()[1])


def has(serve: Any, prefix: tuple[str, ...], *arguments: Any) -> list[int]:
    """How many threads the scorers of a server really have."""
    with serve(*arguments, command=(*prefix, *COMMAND, "serve")) as server:
        return [scorer.num_threads() for scorer in server.scorers]


def test_a_quota_of_one_cpu_is_one_thread(serve, trained):
    with one_cpu_granted() as prefix:
        assert told(prefix, trained.digits_mlp) == 1
        (limited,) = has(serve, prefix, trained.digits_mlp)
    (three,) = has(serve, (), trained.digits_mlp, "--threads", "3")
    assert three - limited == 2


def test_an_affinity_of_one_cpu_is_one_thread(serve, trained):
    prefix = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
    assert told(prefix, trained.digits_mlp) == 1
    (limited,) = has(serve, prefix, trained.digits_mlp)
    (two,) = has(serve, prefix, trained.digits_mlp, "--threads", "2")
    assert two - limited == 1


def test_scorers_share_what_is_granted(serve, trained):
    with serve(trained.digits_mlp, "--scorers", "2") as server:
        first, second = [scorer.num_threads() for scorer in server.scorers]
    (all_of_them,) = has(serve, (), trained.digits_mlp)
    granted = cpus.threads(0, 1, cpus.by_affinity(), cpus.quota())
    assert first == second
    assert all_of_them - first == granted - max(1, granted // 2)
