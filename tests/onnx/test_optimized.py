"""Optimised models, kept and loaded again: the same answers, and nothing from a folder that is not to be trusted."""

import hashlib
import json
import logging
import os
import resource
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scoring_runtime.onnx import cache_folder, cpus, engine, optimized
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import read

WARNED = "scoring_runtime.onnx.optimized"


def open_model(path: Path, cache: Path | None, **hello: Any) -> Any:
    fields = {"target": str(path), "cache_dir": cache and str(cache), "cache_dir_is_named": True, **hello}
    return open_session(read(fields, threads=1))


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "optimized").glob("*.onnx"))


def record(cache: Path) -> Path:
    (path,) = (cache / "optimized").glob("*.json")
    return path


@pytest.fixture
def model(tmp_path, folded):
    path = tmp_path / "model.onnx"
    path.write_bytes(folded(100).SerializeToString())
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def stored(model, cache):
    assert open_model(model, cache).optimized_cache == "stored"
    return model


@pytest.fixture(autouse=True)
def all_pay(monkeypatch):
    """Every model is kept, whatever it saves: how long a load takes is the machine's to say, and not what is tested."""
    for name, value in {"MIN_LOAD_MS": 0, "MIN_SAVED_MS": -1e9, "MIN_SAVED_PART": -1e9, "MAX_GROWTH": 1e9}.items():
        monkeypatch.setattr(optimized, name, value)


X = np.arange(8, dtype=np.float32).reshape(2, 4)


def assert_right(session: Any) -> None:
    np.testing.assert_array_equal(session.run([X])[0], X + 101)


# Kept and found


def test_the_next_start_loads_what_was_kept(stored, cache, caplog):
    (entry,) = entries(cache)
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    assert len(onnx.load(entry).graph.node) == 1
    assert {path.name for path in (cache / "optimized").iterdir()} == {entry.name, record(cache).name, "lock"}

    session = open_model(stored, cache)

    assert session.optimized_cache == "hit"
    assert_right(session)
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


def test_what_serves_is_what_was_kept_also_at_the_first_start(model, cache):
    assert_right(open_model(model, cache))


@pytest.mark.parametrize("name", ["minilm", "lac", "orientation", "magika", "silero", "digits_forest"])
def test_answers_are_the_same(name, real_model, cache):
    real = real_model(name)
    plain, first, second = (open_model(real.path, folder) for folder in (None, cache, cache))
    assert [each.optimized_cache.partition(":")[0] for each in (plain, first, second)] == ["off", "stored", "hit"]
    assert first.inputs == second.inputs == plain.inputs
    assert first.outputs == second.outputs == plain.outputs
    feed = real.make(np.random.default_rng(1), real.most_rows)
    arrays = [feed[tensor.name] for tensor in plain.inputs]
    for expected, *others in zip(plain.run(arrays), first.run(arrays), second.run(arrays), strict=True):
        for other in others:
            np.testing.assert_array_equal(other, expected)


def test_the_engine_says_what_the_cache_did(load_engine, stored, cache):
    assert load_engine(stored, cache_dir=str(cache)).info["optimized_cache"] == "hit"
    assert load_engine(stored).info["optimized_cache"] == "off: there is no cache folder"
    off = load_engine(stored, cache_dir=str(cache), graph_optimization="off").info["optimized_cache"]
    assert off == "off: the model is not optimised"


# Of the same model, under the same conditions


def test_the_same_bytes_elsewhere_are_the_same_model(stored, cache, tmp_path):
    copy = shutil.copy(stored, tmp_path / "copy.onnx")

    assert open_model(copy, cache).optimized_cache == "hit"


def test_another_model_in_its_place_is_another_model(stored, cache, build):
    (old,) = entries(cache)
    changed = onnx.load(stored)
    changed.graph.node[-1].op_type = "Sub"
    stored.write_bytes(changed.SerializeToString())

    session = open_model(stored, cache)

    assert session.optimized_cache == "stored"
    np.testing.assert_array_equal(session.run([X])[0], X - 101)
    assert not old.exists(), "what was kept of the model that lay there is removed"
    assert len(entries(cache)) == 1


def test_a_change_of_the_same_size_and_time_is_seen(stored, cache):
    times = stored.stat()
    content = stored.read_bytes()
    place = content.rindex(b"Add")
    stored.write_bytes(content[:place] + b"Sub" + content[place + 3 :])
    os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))

    np.testing.assert_array_equal(open_model(stored, cache).run([X])[0], X - 101)


def test_a_file_is_hashed_once(model, cache, monkeypatch):
    monkeypatch.setattr(optimized, "_RECENT_NS", 0)
    assert open_model(model, cache).optimized_cache == "stored"
    monkeypatch.setattr(hashlib, "file_digest", None)  # whoever hashed one now would fail

    assert open_model(model, cache).optimized_cache == "hit"


def test_a_file_is_not_hashed_where_no_entry_could_be_its_own(stored, cache, trained, monkeypatch):
    monkeypatch.setattr(optimized, "MIN_LOAD_MS", 1e9)
    monkeypatch.setattr(hashlib, "file_digest", None)

    assert "loads in less" in open_model(trained.iris, cache).optimized_cache


def test_a_large_model_is_not_even_hashed(stored, cache, monkeypatch):
    monkeypatch.setattr(optimized, "MAX_MODEL_BYTES", 1 << 10)
    monkeypatch.setattr(hashlib, "file_digest", None)

    assert open_model(stored, cache).optimized_cache == "off: the model is larger than 0 MiB"


def test_other_conditions_are_another_entry(stored, cache, monkeypatch):
    assert open_model(stored, cache, graph_optimization="basic").optimized_cache == "stored"
    assert open_model(stored, cache, graph_optimization="basic").optimized_cache == "hit"
    assert open_model(stored, cache).optimized_cache == "hit"
    assert len(entries(cache)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(optimized, "FORMAT", "0")
        assert open_model(stored, cache).optimized_cache == "stored"
    with monkeypatch.context() as patch:
        patch.setattr("scoring_runtime.onnx.loading.VERSION", "1.0")
        assert open_model(stored, cache).optimized_cache == "stored"
    with monkeypatch.context() as patch:
        patch.setattr(optimized, "_cpu", lambda: "another one")
        assert open_model(stored, cache).optimized_cache == "stored"
    assert len(entries(cache)) == 5


def test_what_a_cpu_is(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags\t\t: sse avx\n\nprocessor : 1\nflags : sse\n")
    assert optimized._cpu(tmp_path).endswith(" avx sse")
    assert optimized._cpu(tmp_path / "nowhere")
    assert len(optimized._cpu().split()) > 3, "this machine tells its flags"


# What is damaged, or planted


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_entry_is_noticed_and_made_again(damage, stored, cache, caplog):
    (entry,) = entries(cache)
    damage(entry)

    session = open_model(stored, cache)

    assert session.optimized_cache == "stored"
    assert_right(session)
    (warning,) = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert str(entry) in warning
    assert "checksum is wrong" in warning
    assert open_model(stored, cache).optimized_cache == "hit"


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_record_is_made_again(damage, stored, cache):
    damage(record(cache))

    session = open_model(stored, cache)

    assert session.optimized_cache == "stored"
    assert_right(session)


def test_an_entry_that_is_gone_is_made_again(stored, cache):
    entries(cache)[0].unlink()

    assert open_model(stored, cache).optimized_cache == "stored"


def test_an_entry_that_was_only_touched_is_still_good(stored, cache, caplog):
    (entry,) = entries(cache)
    before = json.loads(record(cache).read_text())["entry"]
    entry.touch()

    assert open_model(stored, cache).optimized_cache == "hit"
    after = json.loads(record(cache).read_text())["entry"]
    assert before[:2] == after[:2]
    assert before[2] != after[2]


def test_an_entry_is_inspected_as_a_model_is(stored, cache, caplog, build):
    """With a right checksum even: nothing from outside of the folder is read."""
    secret = cache / "secret"
    secret.write_bytes(np.ones(4, np.float32).tobytes())
    weights = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=str(secret))
    shape = (TensorProto.FLOAT, ["N", 4])
    planted = build([helper.make_node("Add", ["x", "c"], ["y"])], {"x": shape}, {"y": shape}, [weights])
    (entry,) = entries(cache)
    entry.write_bytes(planted.SerializeToString())
    fields = json.loads(record(cache).read_text())
    fields["entry"] = [hashlib.sha256(entry.read_bytes()).hexdigest(), entry.stat().st_size, None]
    record(cache).write_text(json.dumps(fields))

    session = open_model(stored, cache)

    assert_right(session)
    assert "an absolute path" in caplog.text
    assert session.optimized_cache == "stored"


def test_a_folder_that_others_can_write_is_not_read(stored, cache, caplog):
    (cache / "optimized").chmod(0o777)

    session = open_model(stored, cache, cache_dir_is_named=False)

    assert session.optimized_cache.startswith("off: ")
    assert "chmod go-w" in caplog.text
    assert_right(session)


def test_an_entry_that_others_can_write_is_not_read(stored, cache, caplog):
    entries(cache)[0].chmod(0o666)

    assert open_model(stored, cache).optimized_cache == "stored"
    assert "can be written by others" in caplog.text


# Who writes, and when nobody does


def test_one_writes_at_a_time(model, cache):
    (cache / "optimized").mkdir(mode=0o700, parents=True)
    with cache_folder.lock(cache / "optimized" / "lock", 0.0):
        session = open_model(model, cache)

    assert session.optimized_cache == "off: another process keeps it now"
    assert_right(session)
    assert not entries(cache)


def test_what_another_has_kept_meanwhile_is_not_kept_again(model, cache, monkeypatch):
    """A scorer that looked before the first one had kept the model, and gets the lock after it."""
    lock = cache_folder.lock

    def late(path: Path, timeout_s: float) -> Any:
        monkeypatch.setattr(cache_folder, "lock", lock)
        assert open_model(model, cache).optimized_cache == "stored"
        return lock(path, timeout_s)

    monkeypatch.setattr(cache_folder, "lock", late)

    assert open_model(model, cache).optimized_cache == "off: another process keeps it now"


def test_what_a_killed_writer_left_is_removed(stored, cache):
    folder = cache / "optimized"
    (folder / "1234.onnx.tmp").write_bytes(b"half")
    (folder / "5678.onnx").write_bytes(b"without a record")

    assert open_model(stored, cache, graph_optimization="basic").optimized_cache == "stored"
    assert not (folder / "1234.onnx.tmp").exists()
    assert not (folder / "5678.onnx").exists()
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("is_named", [True, False])
def test_a_folder_that_cannot_be_written_is_read_all_the_same(is_named, somebody_else, folded, caplog):
    with somebody_else() as cache:
        model = cache / "model.onnx"
        model.write_bytes(folded(100).SerializeToString())
        assert open_model(model, cache).optimized_cache == "stored"
        (cache / "optimized").chmod(0o500)
        assert open_model(model, cache).optimized_cache == "hit"
        model.write_bytes(folded(101).SerializeToString())
        caplog.clear()

        session = open_model(model, cache, cache_dir_is_named=is_named)

        assert session.optimized_cache.startswith(f"off: {cache / 'optimized'} cannot be written")
        np.testing.assert_array_equal(session.run([X])[0], X + 102)
        warnings = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
        assert len(warnings) == is_named
        (cache / "optimized").chmod(0o700)


@pytest.mark.parametrize(("is_named", "level"), [(True, logging.WARNING), (False, logging.DEBUG)])
def test_a_folder_that_cannot_be_made(is_named, level, model, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.DEBUG, WARNED):
        session = open_model(model, tmp_path / "file", cache_dir_is_named=is_named)

    assert session.optimized_cache.startswith("off: ")
    assert_right(session)
    (line,) = caplog.records
    assert line.levelno == level
    assert str(tmp_path / "file") in line.getMessage()


def test_a_full_disk(model, cache, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        session = open_model(model, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert session.optimized_cache.startswith("off: ")
    assert_right(session)
    assert any(line.levelno == logging.WARNING for line in caplog.records)
    assert not entries(cache)
    assert open_model(model, cache).optimized_cache == "stored"


# What is worth it


def test_a_model_that_loads_fast_is_not_tried(trained, cache, monkeypatch):
    monkeypatch.setattr(optimized, "MIN_LOAD_MS", 1e9)
    assert open_model(trained.iris, cache).optimized_cache == "off: the model loads in less than 1000000000 ms"
    assert not list((cache / "optimized").iterdir())


def test_a_model_that_gains_nothing_is_tried_once(model, cache, monkeypatch):
    monkeypatch.setattr(optimized, "MIN_SAVED_MS", 1e9)
    why = open_model(model, cache).optimized_cache
    assert why.startswith("off: optimised, it loads in ")
    assert not entries(cache)

    monkeypatch.setattr(optimized, "MIN_SAVED_MS", -1e9)
    session = open_model(model, cache)

    assert session.optimized_cache == why, "as the record says"
    assert_right(session)


def test_weights_in_other_files(tmp_path, cache, build):
    (tmp_path / "weights").write_bytes(np.ones(4, np.float32).tobytes())
    weights = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights")
    shape = (TensorProto.FLOAT, ["N", 4])
    path = tmp_path / "model.onnx"
    path.write_bytes(
        build([helper.make_node("Add", ["x", "c"], ["y"])], {"x": shape}, {"y": shape}, [weights]).SerializeToString()
    )

    assert open_model(path, cache).optimized_cache == "off: the model keeps weights in other files"


@pytest.mark.parametrize(
    ("model_mb", "entry_mb", "load_ms", "cached_ms", "why"),
    [
        (21, 21, 44, 18, None),
        (23, 90, 101, 60, "optimised, it is 3.9 times as large"),
        (346, 346, 431, 471, "optimised, it loads in 471 ms in place of 431"),
        (10, 10, 27, 13, "optimised, it loads in 13 ms in place of 27"),
        (10, 10, 200, 170, "optimised, it loads in 170 ms in place of 200"),
    ],
)
def test_what_is_kept(model_mb, entry_mb, load_ms, cached_ms, why, monkeypatch):
    monkeypatch.undo()
    assert optimized.why_not_kept(model_mb << 20, entry_mb << 20, load_ms, cached_ms) == why


def test_the_folder_has_bounds():
    gibibyte = 1 << 30
    assert optimized.surplus({}) == []
    assert optimized.surplus({"a": (1.0, gibibyte // 2), "b": (2.0, gibibyte // 2)}) == []
    assert optimized.surplus({"a": (1.0, gibibyte // 2), "b": (2.0, gibibyte), "c": (3.0, 1)}) == ["b", "a"]
    assert optimized.surplus({"a": (1.0, 2 * gibibyte)}) == [], "the last one stays"
    many = {str(number): (float(number), 0) for number in range(70)}
    assert set(optimized.surplus(many)) == {"0", "1", "2", "3", "4", "5"}


def test_what_was_used_last_stays(stored, cache, monkeypatch, tmp_path):
    assert open_model(stored, cache, graph_optimization="basic").optimized_cache == "stored"
    time.sleep(0.01)
    assert open_model(stored, cache).optimized_cache == "hit"
    monkeypatch.setattr(optimized, "MAX_RECORDS", 2)

    assert open_model(stored, cache, graph_optimization="extended").optimized_cache == "stored"

    assert len(entries(cache)) == 2
    assert open_model(stored, cache).optimized_cache == "hit"
    assert open_model(stored, cache, graph_optimization="extended").optimized_cache == "hit"


# Several sessions in a process


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_sessions_of_one_thread_add_none(model):
    before = thread_count()
    sessions = [open_model(model, None) for _ in range(5)]
    for session in sessions:
        assert_right(session)
    assert thread_count() == before


def test_the_engine_shares_cpus(model, cache):
    threads = cpus.threads(0, 1, cpus.by_affinity(), cpus.quota())
    assert engine.load({"target": str(model), "scorers": 1}).info["threads"] == threads
