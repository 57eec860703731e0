"""The guard against regressions: what it calls one, and what it counts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import guard
from benchmarks.hot_paths import PATHS, Front, codecs, framing

ROOT = Path(guard.__file__).resolve().parents[1]


def test_more_than_the_bound_is_a_regression(capsys):
    assert (
        guard.judge(
            {"instructions front": 101.0, "ratio to null": 2.0}, {"instructions front": 100, "ratio to null": 3}
        )
        == 1
    )
    told = capsys.readouterr().out
    assert "instructions front: 101 per request, at most 100 <-- ABOVE" in told
    assert "ratio to null: 2 per request, at most 3\n" in told


def test_up_to_the_bound_is_none():
    assert guard.judge({"instructions front": 100.0}, {"instructions front": 100}) == 0


def test_a_number_without_a_bound_is_an_error():
    with pytest.raises(guard.GuardError, match="--update"):
        guard.judge({"instructions new": 1.0}, {"instructions front": 100})


def test_a_python_without_bounds_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(guard, "BOUNDS", tmp_path / "guard.json")
    with pytest.raises(guard.GuardError, match="no bounds for Python"):
        guard.read_bounds()


def test_an_update_leaves_room_and_keeps_other_pythons(monkeypatch, tmp_path):
    bounds = tmp_path / "guard.json"
    bounds.write_text(json.dumps({"2.7": {"instructions front": 1}}))
    monkeypatch.setattr(guard, "BOUNDS", bounds)
    guard.update({"instructions front": 1000.0, "ratio to null": 2.0})
    assert json.loads(bounds.read_text()) == {
        "2.7": {"instructions front": 1},
        guard.version(): {"instructions front": 1100, "ratio to null": 3.5},
    }


def test_every_path_has_a_committed_bound():
    bounds = json.loads(guard.BOUNDS.read_text())
    wanted = {f"instructions {path}" for path in PATHS} | {"ratio to null"}
    assert {version: set(own) for version, own in bounds.items()} == dict.fromkeys(bounds, wanted)


def test_the_driven_front_answers_every_client_and_learns_to_send_one_frame():
    front = Front()
    try:
        for _ in range(100):
            front.batch()  # asserts the answers itself
        assert front.frames == 1
    finally:
        front.close()
    assert front.server.pool.empty


def test_the_other_paths_run():
    framing()()
    codecs()()


def test_what_is_counted_runs_without_valgrind():
    program = [sys.executable, "-m", "benchmarks.hot_paths", "--batches", "2"]
    subprocess.run(program, cwd=ROOT, check=True, timeout=60)
