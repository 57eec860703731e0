"""The check of a GPU machine: rehearsed here, and what it says where there is no GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check import NO_GPU, why_no_gpu

ROOT = Path(__file__).resolve().parents[2]


def check(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.gpu_check", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)


def test_without_a_gpu_it_says_so_in_one_line():
    if why_no_gpu() is None:
        pytest.skip("there is a GPU")
    ended = check()
    assert ended.returncode == NO_GPU
    assert ended.stdout.startswith("gpu-check: there is no GPU on this machine: ")
    assert ended.stdout.count("\n") == 1
    assert not ended.stderr


def test_the_rehearsal_takes_every_step_that_a_cpu_can_take(tmp_path):
    result = tmp_path / "result.json"
    models = [word for name in ("digits", "trees", "lac") for word in ("--model", name)]
    ended = check("--provider", "cpu", "--short", "--clients", "1", "--json", result, *models)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = json.loads(result.read_text())["steps"]
    assert {name: step["state"] for name, step in steps.items()} == {
        **dict.fromkeys(("nodes", "parity", "buckets", "binding", "memory", "served"), "ok"),
        **dict.fromkeys(("cuda_graphs", "nvml", "overlap", "tests"), "not here"),
    }
    assert steps["nodes"]["nodes"]["trees"] == {"CPUExecutionProvider": 1}
    assert [bucket["rows"] for bucket in steps["buckets"]["models"]["lac"]["buckets"]] == [1, 2, 4, 8]
    assert steps["memory"]["fits"] < steps["memory"]["rows"]
    served = steps["served"]["models"]["digits"]
    assert served["served_per_s"] > 0
    assert len(served["repeats"]["raw"]) == 1
