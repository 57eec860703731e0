"""Usable CPUs from texts and from folders that look like /proc and /sys."""

from pathlib import Path

import pytest

from scoring_runtime.onnx import cpus


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ("max 100000\n", None),
        ("max", None),
        ("200000 100000\n", 2.0),
        ("50000 100000", 0.5),
        ("150000", 1.5),
        ("rubbish", None),
        ("0 100000", None),
        ("", None),
    ],
)
def test_version_2(text, granted):
    assert cpus.parse_cpu_max(text) == granted


@pytest.mark.parametrize(
    ("quota", "period", "granted"),
    [("-1\n", "100000\n", None), ("250000\n", "100000\n", 2.5), ("", "", None), ("100000", "0", None)],
)
def test_version_1(quota, period, granted):
    assert cpus.parse_cfs(quota, period) == granted


def test_groups_of_both_versions():
    text = "12:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/init.scope\n"
    groups = cpus.parse_groups(text)
    assert groups["cpu"] == groups["cpuacct"] == "/docker/abc"
    assert groups[""] == "/init.scope"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_quota_of_nested_groups_counts(tmp_path):
    write(tmp_path / "proc/self/cgroup", "0::/pod/container\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "max 100000")
    write(tmp_path / "sys/fs/cgroup/pod/cpu.max", "300000 100000")
    write(tmp_path / "sys/fs/cgroup/pod/container/cpu.max", "400000 100000")
    assert cpus.quota(tmp_path) == 3.0


def test_a_container_sees_its_own_group_at_the_mount(tmp_path):
    write(tmp_path / "proc/self/cgroup", "0::/../elsewhere\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "150000 100000")
    assert cpus.quota(tmp_path) == 1.5


def test_version_1_folders(tmp_path):
    write(tmp_path / "proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert cpus.quota(tmp_path) == 2.0


def test_without_control_groups_nothing_limits(tmp_path):
    assert cpus.quota(tmp_path) is None


@pytest.mark.parametrize(
    ("asked", "scorers", "affinity", "granted", "threads"),
    [
        (0, 1, 8, None, 8),
        (0, 2, 8, None, 4),
        (0, 3, 8, None, 2),
        (0, 16, 8, None, 1),
        (0, 1, 8, 2.0, 2),
        (0, 1, 8, 1.5, 1),
        (0, 1, 8, 0.5, 1),
        (0, 1, 2, 64.0, 2),
        (0, 2, 8, 5.0, 2),
        (3, 2, 8, 1.0, 3),
    ],
)
def test_threads(asked, scorers, affinity, granted, threads):
    assert cpus.threads(asked, scorers, affinity, granted) == threads


def test_this_machine_has_a_cpu():
    assert cpus.by_affinity() >= 1
