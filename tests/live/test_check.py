"""`scoring-runtime check`: what it prints about a target that can be served."""

import re
import signal
import sys
from typing import Any

import pytest

SCRIPT = """
print("at import")
def init():
    print("in init")
def run(text, request_headers): pass
"""


def report(ended: Any) -> dict[str, list[str]]:
    """The lines of the report: label to texts."""
    assert ended.code == 0, ended.output
    rows: dict[str, list[str]] = {}
    for line in ended.output.splitlines():
        label, gap, text = line.partition("  ")
        if gap:
            rows.setdefault(label, []).append(text.strip())
    return rows


def test_a_model_that_batches(command, trained):
    rows = report(command("check", trained.iris))

    assert rows["target"] == [str(trained.iris)]
    assert rows["name"] == ["iris"]
    assert rows["engine"] == ["onnx"]
    assert rows["input"] == ["X: float32[?, 4]"]
    assert rows["output"] == ["label: int64[?]", "probabilities: float32[?, 3]"]
    assert rows["batchable"] == ["yes: proved at warm-up, within 1e-05 of a value or 1e-06 of the largest one"]
    assert rows["providers"] == ["CPUExecutionProvider"]
    assert int(rows["threads"][0]) >= 1
    assert rows["load, warm-up"][0].count(" ms") == 2


def test_the_second_time_the_model_is_optimised_already(command, folded, tmp_path):
    (tmp_path / "slow.onnx").write_bytes(folded(4000).SerializeToString())
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "SCORING_CACHE_DIR": ""}

    said = [report(command("check", tmp_path / "slow.onnx", environ=environ))["model cache"] for _ in range(2)]

    assert said == [["optimised now, and kept for the next start"], ["optimised before"]]
    assert list((tmp_path / "cache/scoring-runtime/optimized").glob("*.onnx"))
    off = report(command("check", tmp_path / "slow.onnx", "--cache-dir", "off", environ=environ))
    assert off["model cache"] == ["off: there is no cache folder"]


def test_a_cache_folder_that_cannot_be_used_is_named(command, trained, tmp_path):
    (tmp_path / "file").write_text("")
    ended = command("check", trained.iris, "--cache-dir", tmp_path / "file")

    assert report(ended)["model cache"][0].startswith("off: ")
    (warning,) = [line for line in ended.output.splitlines() if "WARNING" in line]
    assert str(tmp_path / "file" / "optimized") in warning


def test_a_model_that_does_not_batch_and_why(command, real_model):
    for name in ("squeezenet", "silero", "magika"):
        model = real_model(name)
        rows = report(command("check", model.path))
        assert rows["batchable"][0].startswith("no: ")
        assert model.why_not in rows["batchable"][0]


def test_strings_and_several_inputs(command, real_model):
    rows = report(command("check", real_model("topics").path))
    assert rows["input"] == ["text: string[?, 1]"]
    assert rows["output"][0] == "label: string[?]"
    rows = report(command("check", real_model("minilm").path))
    assert [row.partition(":")[0] for row in rows["input"]] == ["input_ids", "attention_mask", "token_type_ids"]


def test_a_script(command, script):
    path = script(SCRIPT)
    ended = command("check", path)

    rows = report(ended)
    assert rows["target"] == [str(path)]
    assert rows["engine"] == ["script"]
    assert rows["python"] == [".".join(map(str, sys.version_info[:3]))]
    assert rows["run() takes"] == ["text (string mode)"]
    assert rows["batchable"][0].startswith("no: run() takes one request")
    assert "at import" in ended.output
    assert "in init" in ended.output


@pytest.mark.parametrize("name", ["folder with a script", "folder with a model", "registered model"])
def test_a_folder_is_known_by_its_name(name, command, script, trained, tmp_path):
    folder = tmp_path / "flats"
    (folder / "1").mkdir(parents=True)
    if name == "folder with a script":
        script(SCRIPT).rename(folder / "score.py")
    else:
        place = folder if name == "folder with a model" else folder / "1"
        (place / "model.onnx").write_bytes(trained.iris.read_bytes())
    assert report(command("check", folder))["name"] == ["flats"]


def test_what_init_leaves_behind_is_ended(command, script):
    leaves = "import subprocess\ndef init(): subprocess.Popen(['sleep', '600'])\ndef run(data): pass\n"
    assert report(command("check", script(leaves)))["engine"] == ["script"]


def test_ctrl_c_while_init_runs_leaves_nothing(live_command, script, tmp_path, wait_until):
    path = script(
        "import time\ndef init():\n    open('begun', 'w').close()\n    time.sleep(600)\ndef run(data): pass\n"
    )
    with live_command("check", path) as process:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert b"Traceback" not in process.stdout.read()


def test_whether_stacking_pays_and_lengths_may_differ(command, trained, real_model, lac_by_length):
    rows = report(command("check", trained.diabetes_trees))
    assert re.fullmatch(r"stacks up to \d+ rows: [\d.]+x the throughput of single runs", rows["stacking"][0])
    assert rows["ragged"][0].startswith("no: no input has a free axis beside its rows; ")

    assert report(command("check", lac_by_length))["ragged"] == [
        "yes: requests of different lengths are padded to share runs, proved at warm-up"
    ]
    assert report(command("check", lac_by_length, "--ragged", "off"))["ragged"][0].startswith("no: --ragged is off; ")
    rows = report(command("check", trained.iris, "--max-batch-size", "1"))
    assert rows["stacking"] == ["runs rows one by one: --max-batch-size is 1"]
    assert "stacking" not in report(command("check", real_model("squeezenet").path))
