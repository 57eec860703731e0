"""Whether the ground of tuned settings is still there."""

import dataclasses
import json

import pytest

from scoring_runtime import settings
from scoring_runtime.errors import TuneError
from scoring_runtime.settings import Settings
from scoring_runtime.tune import evidence
from scoring_runtime.tune.evidence import Circumstances, doubts

THEN = Circumstances({"": "a" * 64, "w.bin": "b" * 64}, "x86_64 Xeon", 4.0, ("H100",), "onnxruntime 1.31.1")
CHOSEN = {"threads": 2, "scorers": 2}
HOLDS = {"threads": 2, "scorers": 2, "port": 5001}


def test_the_same_circumstances_raise_no_doubt():
    assert doubts(THEN, THEN, CHOSEN, HOLDS) == []


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (
            {"model_sha256": {"": "c" * 64, "w.bin": "b" * 64}},
            "for another model (sha256 aaaaaaaaaaaa…, here cccccccccccc…)",
        ),
        ({"model_sha256": {"": "a" * 64, "w.bin": ""}}, "with another w.bin (sha256 bbbbbbbbbbbb…, here none)"),
        ({"cpu": "aarch64 0xd40"}, "on another CPU (x86_64 Xeon, here aarch64 0xd40)"),
        ({"cpus": 1.5}, "with 4 usable CPUs, here there are 1.5"),
        ({"gpus": ()}, "with H100 as GPUs, here there are none"),
        ({"onnxruntime": "onnxruntime 1.32.0"}, "with onnxruntime 1.31.1, here is onnxruntime 1.32.0"),
    ],
)
def test_each_thing_that_differs_is_named(change, doubt):
    assert doubts(THEN, dataclasses.replace(THEN, **change), CHOSEN, HOLDS) == [f"was made {doubt}"]


def test_a_setting_that_is_not_what_was_found_is_named():
    assert doubts(THEN, THEN, CHOSEN, {**HOLDS, "threads": 4}) == ["found --threads 2; it is 4 here"]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    (tmp_path / "w.bin").write_bytes(b"more weights")
    return path


@pytest.fixture
def tuned(tmp_path, model):
    path = tmp_path / "tuned.json"
    circumstances = dataclasses.asdict(evidence.observe(model, ["w.bin"]))
    evidence.write(path, CHOSEN, {"circumstances": circumstances, "chosen": {"settings": CHOSEN}})
    return path


def test_what_is_written_is_read_as_settings_and_vouched_for(tuned, model):
    loaded = settings.load({}, {}, str(tuned))

    assert (loaded.threads, loaded.scorers) == (2, 2)
    assert evidence.doubts_of_file(str(tuned), model, loaded) == []


@pytest.mark.parametrize("name", ["model.onnx", "w.bin"])
def test_weights_that_changed_are_noticed(tuned, model, name):
    (model.parent / name).write_bytes(b"others")
    (doubt,) = evidence.doubts_of_file(str(tuned), model, settings.load({}, {}, str(tuned)))
    assert doubt.startswith(f"{tuned} was made ")


@pytest.mark.parametrize("held", [1, [], {}, {"circumstances": 1}, {"circumstances": {"gpus": []}, "chosen": {}}])
def test_evidence_that_cannot_be_read_is_a_doubt_and_no_error(tuned, model, held):
    tuned.write_text(json.dumps({"tuned": held}))
    (doubt,) = evidence.doubts_of_file(str(tuned), model, settings.load({}, {}, str(tuned)))
    assert "cannot be read" in doubt


@pytest.mark.parametrize(
    ("name", "value"), [("model_sha256", ["a"]), ("model_sha256", {"": 5}), ("cpus", "many"), ("gpus", [1])]
)
def test_evidence_of_other_types_is_a_doubt_and_no_error(tuned, model, name, value):
    document = json.loads(tuned.read_text())
    document["tuned"]["circumstances"][name] = value
    tuned.write_text(json.dumps(document))
    (doubt,) = evidence.doubts_of_file(str(tuned), model, settings.load({}, {}, str(tuned)))
    assert "cannot be read" in doubt


def test_settings_without_evidence_raise_no_doubt(tmp_path, model):
    (tmp_path / "plain.json").write_text('{"threads": 2}')
    assert evidence.doubts_of_file(str(tmp_path / "plain.json"), model, Settings()) == []
    assert evidence.doubts_of_file(None, model, Settings()) == []


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(TuneError, match="cannot be written"):
        evidence.write(tmp_path / "folder", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_this_machine_is_described(model):
    here = evidence.observe(model, [])
    assert here.cpu
    assert here.cpus > 0
    assert here.onnxruntime.startswith("onnxruntime")
