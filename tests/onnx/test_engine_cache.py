"""Engines are built once and kept: real folders, real processes, and sessions whose optimised graph stands for an engine."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper

from scoring_runtime.onnx import engine_cache
from scoring_runtime.onnx.engine_cache import Place, find, key_of, open_kept
from scoring_runtime.scorer.loop import LoadError

MADE_OF = {"model_sha256": "ab", "gpu": "NVIDIA H200", "options": {"trt_fp16_enable": "1"}}
PATIENCE_S = 30.0


def is_damage(error: LoadError) -> bool:
    return "Protobuf" in error.message


class Model:
    """Builds as a provider does: what it has made lies in the folder, and is read from there the next time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.built = self.loaded = 0

    def open(self, folder: Path | None) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        kept = folder / "optimised.onnx" if folder is not None else None
        try:
            if kept is not None and kept.exists():
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                session = onnxruntime.InferenceSession(str(kept), options, providers=["CPUExecutionProvider"])
                self.loaded += 1
                return session
            if kept is not None:
                options.optimized_model_filepath = str(kept)
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise LoadError(str(error)) from error
        self.built += 1
        return session

    def counts(self) -> tuple[int, int]:
        return self.built, self.loaded


@pytest.fixture
def model(build, tmp_path):
    graph = build(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])],
        {"x": (T.FLOAT, ["N", 2])},
        {"y": (T.FLOAT, ["N", 2])},
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return Model(path)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, "scoring_runtime.onnx")


def found(*arguments: Any) -> Place:
    place = find(*arguments)
    assert place is not None
    return place


def opened(model: Model, place: Place | None) -> None:
    session = open_kept(place, model.open, is_damage, "engines for m")
    np.testing.assert_array_equal(session.run(None, {"x": np.array([[1, -1]], np.float32)})[0], [[-1, 0]])


def test_the_key_says_what_an_engine_depends_on(cache):
    other = {**MADE_OF, "options": {"trt_fp16_enable": "0"}}
    assert key_of(MADE_OF) == key_of(dict(reversed(MADE_OF.items())))
    assert len({key_of(MADE_OF), key_of(other), key_of({**MADE_OF, "gpu": "NVIDIA H100"})}) == 3
    assert found(cache, "kind", MADE_OF).folder == cache / "kind" / key_of(MADE_OF)


def test_what_was_built_is_loaded_the_next_time(model, cache, caplog):
    place = found(cache, "kind", MADE_OF)
    assert not place.is_complete()
    opened(model, place)
    assert model.counts() == (1, 0)
    opened(model, find(cache, "kind", MADE_OF))
    assert model.counts() == (1, 1)
    manifest = json.loads(place.manifest.read_text())
    assert manifest["made_of"] == MADE_OF
    assert manifest["built_s"] >= 0
    assert f"building engines for m took 0.0 s (cache: {place.folder})" in caplog.messages
    assert f"loading engines for m took 0.0 s (cache: {place.folder})" in caplog.messages
    assert [path.stat().st_mode & 0o777 for path in (cache, place.root, place.folder)] == [0o700] * 3


def test_a_damaged_engine_is_removed_and_built_again_once(model, cache, caplog):
    place = found(cache, "kind", MADE_OF)
    opened(model, place)
    (place.folder / "optimised.onnx").write_bytes(b"\x00half of a file")
    opened(model, find(cache, "kind", MADE_OF))
    assert model.counts() == (2, 0)
    assert any("engines for m are damaged: " in text and "Protobuf" in text for text in caplog.messages)
    assert f"engines for m are removed from {place.folder} and built again, once" in caplog.messages
    opened(model, find(cache, "kind", MADE_OF))
    assert model.counts() == (2, 1)


def test_damage_that_a_build_does_not_mend_is_an_error(cache):
    tried = []

    def load(folder):
        tried.append(folder)
        (folder / "engine").write_bytes(b"")
        raise LoadError("Protobuf is out of order today")

    with pytest.raises(LoadError, match="out of order"):
        open_kept(find(cache, "kind", MADE_OF), load, is_damage, "engines")
    assert len(tried) == 1


def test_an_error_that_is_no_damage_keeps_what_is_there(model, cache):
    place = found(cache, "kind", MADE_OF)
    opened(model, place)

    def load(folder):
        raise LoadError("out of memory")

    with pytest.raises(LoadError, match="out of memory"):
        open_kept(find(cache, "kind", MADE_OF), load, is_damage, "engines")
    opened(model, find(cache, "kind", MADE_OF))
    assert model.counts() == (1, 1)


def test_what_a_killed_build_left_is_not_used(model, cache):
    place = found(cache, "kind", MADE_OF)
    (place.folder / "optimised.onnx").write_bytes(b"\x00half of a file")
    assert not place.is_complete()  # it has no manifest
    opened(model, place)
    assert model.counts() == (1, 0)


def test_without_a_folder_engines_are_built_at_each_start(model, caplog):
    for _ in range(2):
        opened(model, find(None, "kind", MADE_OF))
    assert model.counts() == (2, 0)
    assert "no cache folder is used: engines are built at each start" in caplog.messages


def test_a_folder_that_others_may_write_is_not_used(model, cache, caplog):
    cache.mkdir()
    cache.chmod(0o777)
    assert find(cache, "kind", MADE_OF) is None
    assert "can be written by others than its owner (mode 777)" in caplog.text
    assert "until then engines are built at each start" in caplog.text
    cache.chmod(0o700)
    place = found(cache, "kind", MADE_OF)
    opened(model, place)
    place.folder.chmod(0o775)  # the folder itself counts as well
    assert find(cache, "kind", MADE_OF) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(cache, caplog):
    cache.mkdir()
    os.chown(cache, 12345, 12345)
    assert find(cache, "kind", MADE_OF) is None
    assert "belongs to user 12345" in caplog.text


READ_ONLY = """
import logging, os, sys
from pathlib import Path
from scoring_runtime.onnx import engine_cache
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(54321); os.setuid(54321)
def load(folder):
    print("loads", sorted(path.name for path in folder.iterdir()) if folder else None, flush=True)
    return "session"
place = engine_cache.find(Path(sys.argv[1]), "kind", {"key": sys.argv[2]})
print(engine_cache.open_kept(place, load, lambda error: False, "engines"))
"""


def run(code: str, *arguments: object) -> str:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of root's that we may only read needs root to make it")
def test_a_read_only_folder_serves_what_is_in_it_and_keeps_nothing_new():
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # every folder above must let another user through
        cache = Path(name)
        cache.chmod(0o755)
        place = found(cache, "kind", {"key": "there"})

        def load(folder):
            (folder / "an.engine").write_bytes(b"engine")

        open_kept(place, load, is_damage, "engines")
        for folder in (place.root, place.folder):
            folder.chmod(0o755)
        place.manifest.chmod(0o644)
        assert "loads ['an.engine']\n" in run(READ_ONLY, cache, "there")
        output = run(READ_ONLY, cache, "absent")
        assert "the cache folder is not used: " in output
        assert "until then engines are built at each start" in output
        assert "loads None\n" in output


# Several processes

REPLICA = """
import logging, sys, time
from pathlib import Path
from scoring_runtime.onnx import engine_cache
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
engine_cache.WAITING_S = engine_cache.PROGRESS_S = 0.2
cache, seconds = Path(sys.argv[1]), float(sys.argv[2])
def load(folder):
    engine = folder / "an.engine"
    if engine.exists():
        return engine.read_text()
    engine.write_text("half")
    print("begun", flush=True)
    time.sleep(seconds)
    engine.write_text("whole")
    print("built", flush=True)
    return "whole"
place = engine_cache.find(cache, "kind", {"key": "shared"})
print(engine_cache.open_kept(place, load, lambda error: False, "engines for m"), flush=True)
"""


def replica(cache: Path, seconds: float) -> Any:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", REPLICA, str(cache), str(seconds)], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def test_one_replica_builds_and_the_others_wait_and_load(cache):
    replicas = [replica(cache, 1.5) for _ in range(3)]
    outputs = [each.communicate(timeout=PATIENCE_S)[0].splitlines() for each in replicas]
    assert [each.returncode for each in replicas] == [0, 0, 0]
    assert [lines[-1] for lines in outputs] == ["whole"] * 3
    (builder,) = [number for number, lines in enumerate(outputs) if "built" in lines]
    assert any("building engines for m: 0 s so far (cache: " in line for line in outputs[builder])
    waiting = [line for lines in outputs for line in lines if line.startswith("waiting for ")]
    assert waiting
    assert all(f"pid {replicas[builder].pid} on host " in line for line in waiting)
    assert all(line.endswith(" s so far") and " to build engines for m: " in line for line in waiting)


def test_when_the_builder_is_killed_another_builds(cache):
    first = replica(cache, 60)
    assert first.stdout.readline() == "begun\n" or first.stdout.readline() == "begun\n"
    second = replica(cache, 0.1)
    while "waiting for " not in second.stdout.readline():
        assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    assert first.wait(PATIENCE_S) == -signal.SIGKILL
    first.stdout.close()
    output = second.communicate(timeout=PATIENCE_S)[0].splitlines()
    assert "built" in output
    assert output[-1] == "whole"
    assert (cache / "kind" / f"{key_of({'key': 'shared'})}.json").is_file()


def test_progress_is_told_while_a_step_goes_on(caplog, monkeypatch):
    monkeypatch.setattr(engine_cache, "PROGRESS_S", 0.05)

    def load(folder):
        time.sleep(0.3)
        raise LoadError("no")

    with pytest.raises(LoadError):
        open_kept(None, load, is_damage, "engines")
    assert caplog.messages.count("building engines: 0 s so far") >= 2
