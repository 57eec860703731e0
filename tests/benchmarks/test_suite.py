"""The runner: what it writes, that it goes on where it was, and that it counts and ends everything a server starts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import suite
from benchmarks.dialects import DIALECTS, wrong_answer

ROOT = Path(suite.__file__).resolve().parents[1]
NULL = ("--only", "small", "--server", "null", "--load", "1 connection", "--repeats", "1")


def run_suite(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.suite", "--results", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_a_broken_off_suite_goes_on_where_it_was(tmp_path):
    first = run_suite(tmp_path, *NULL, "--seconds", "1")
    assert first.returncode == 0, first.stderr
    file = tmp_path / "small.json"
    content = json.loads(file.read_text())
    [run] = content["runs"]
    assert run["failure"] is None
    assert run["requests"] > 0
    assert run["cpu_ns"] > 0
    assert run["memory_bytes"] > 1 << 20
    assert 0 < run["p50_us"] <= run["p99_us"] <= run["p999_us"] <= run["max_us"]
    [start] = content["starts"]
    assert start["first_answer_s"] > 0
    assert {"cpu", "kernel", "packages", "commit", "uncommitted_changes"} <= content["machine"].keys()

    again = run_suite(tmp_path, *NULL, "--seconds", "1")
    assert "small: 0 starts" in again.stderr
    assert json.loads(file.read_text()) == content

    otherwise = run_suite(tmp_path, *NULL, "--seconds", "2")
    assert otherwise.returncode == 2
    assert "was measured otherwise (seconds)" in otherwise.stderr
    assert json.loads(file.read_text()) == content


def test_an_unknown_name_is_an_error(tmp_path):
    for options in (("--only", "nothing"), ("--server", "nobody"), ("--only", "small", "--load", "none")):
        done = run_suite(tmp_path, *options, "--plan")
        assert done.returncode == 2, options
        assert "there are:" in done.stderr or "it has:" in done.stderr


def test_the_whole_plan_can_be_made(tmp_path):
    done = run_suite(tmp_path, "--plan")
    assert "in all about" in done.stderr or "not installed" in done.stderr, done.stderr


DAEMON = """
import subprocess, sys, time
child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
subprocess.run([sys.executable, "-c", child], check=True)
time.sleep(600)
"""

WATCH = f"""
import sys, psutil
from benchmarks import processes

def is_ready():
    alike = [child for child in psutil.Process().children() if "time.sleep(600)" in " ".join(child.cmdline())]
    return None if len(alike) == 2 else "the orphan is not there"

with processes.started("daemon", [sys.executable, "-c", {DAEMON!r}], [0], is_ready) as server:
    members = server.processes()
    assert len(members) == 2
    assert server.cpu_clocks_ns().keys() == {{member.pid for member in members}}
    assert server.memory_bytes() > 1 << 20
assert not [member for member in members if psutil.pid_exists(member.pid)]
"""

BROKEN = """
import sys
from benchmarks import processes

words = [sys.executable, "-c", "print('no licence'); raise SystemExit(3)"]
with processes.started("broken", words, [0], lambda: "nobody there"):
    print("it cannot be ready")
"""


def watch(program: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, as what watches servers adopts orphans: these tests' process is not to."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_processes_whose_parents_have_ended_are_counted_and_ended():
    done = watch(WATCH)
    assert done.returncode == 0, done.stderr


def test_a_server_that_ends_is_an_error_with_its_output():
    done = watch(BROKEN)
    assert "BenchmarkError: broken ended with status 3" in done.stderr
    assert "no licence" in done.stderr
    assert done.stdout == ""


EXPECTED = {"label": np.array([0]), "probabilities": np.array([[0.98, 0.02]], np.float32)}


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("plain", {"outputs": {"label": [0], "probabilities": [[0.98, 0.02]]}}),
        ("rows", [{"label": 0, "probabilities": [0.98, 0.02]}]),
        ("v1", {"predictions": [{"label": 0, "probabilities": [0.98, 0.02]}]}),
        ("v2", {"outputs": [{"name": "label", "data": [0]}, {"name": "probabilities", "data": [0.98, 0.02]}]}),
    ],
)
def test_a_right_answer_is_right_in_every_dialect_and_a_wrong_one_is_not(dialect, body):
    text = json.dumps(body)
    assert wrong_answer(DIALECTS[dialect], text.encode(), EXPECTED) is None
    assert wrong_answer(DIALECTS[dialect], text.replace("0.98", "0.97").encode(), EXPECTED) is not None
    assert wrong_answer(DIALECTS[dialect], text.replace("label", "name").encode(), EXPECTED) is not None
    assert wrong_answer(DIALECTS[dialect], b'{"error": "busy"}', EXPECTED) is not None
