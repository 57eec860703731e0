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


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw
rubbish
"""


def test_mounts_of_both_versions():
    assert cpus.parse_mounts(MOUNTS.format(root="/docker/abc")) == [
        (1, "/docker/abc", "/sys/fs/cgroup/cpu,cpuacct"),
        (2, "/", "/sys/fs/cgroup/unified"),
    ]
    assert cpus.parse_mounts("") == []


@pytest.mark.parametrize("group", ["/docker/abc/mine", "/mine"])
def test_a_group_within_a_container_of_version_1(group, tmp_path):
    """By the host's path or by that of the container's own view."""
    write(tmp_path / "proc/self/cgroup", f"4:cpu,cpuacct:{group}\n0::/\n")
    write(tmp_path / "proc/self/mountinfo", MOUNTS.format(root="/docker/abc"))
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert cpus.quota(tmp_path) == 4.0
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/mine/cpu.cfs_quota_us", "150000")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/mine/cpu.cfs_period_us", "100000")
    assert cpus.quota(tmp_path) == 1.5


def test_version_2_beside_version_1(tmp_path):
    write(tmp_path / "proc/self/cgroup", "4:cpu,cpuacct:/\n0::/user\n")
    write(tmp_path / "proc/self/mountinfo", MOUNTS.format(root="/"))
    write(tmp_path / "sys/fs/cgroup/unified/user/cpu.max", "250000 100000")
    assert cpus.quota(tmp_path) == 2.5


def test_nested_groups_of_version_1(tmp_path):
    write(tmp_path / "proc/self/cgroup", "1:cpu:/pod/container\n")
    for folder, quota in (("pod", "200000"), ("pod/container", "-1")):
        write(tmp_path / "sys/fs/cgroup/cpu" / folder / "cpu.cfs_quota_us", quota)
        write(tmp_path / "sys/fs/cgroup/cpu" / folder / "cpu.cfs_period_us", "100000")
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
        (0, 2, 3, None, 1),
        (3, 2, 8, 1.0, 3),
    ],
)
def test_threads(asked, scorers, affinity, granted, threads):
    assert cpus.threads(asked, scorers, affinity, granted) == threads


def test_this_machine_has_a_cpu():
    assert cpus.by_affinity() >= 1
