"""`scoring-runtime tune`: the whole command on a real model, and what `serve` makes of the file that it leaves."""

import json
import shutil
import signal
import threading
import xml.etree.ElementTree as ET

import onnx
import pytest
from onnx import TensorProto, helper

QUICK = ("--budget-s", "12", "--slo-p99-ms", "2000", "--scorers", "1", "--threads", "1", "--max-batch-size", "64")
"""Few settings are left to search."""


@pytest.fixture
def iris(trained, tmp_path):
    return shutil.copy(trained.iris, tmp_path / "iris.onnx")


def test_a_model_is_tuned_and_served_with_what_was_found(command, serve, iris, tmp_path):
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"data": [[5.1, 3.5, 1.4, 0.2]]}\n{"data": [[6.1, 2.5, 4.4, 1.2], [7.0, 3.2, 4.7, 1.4]]}\n')
    ended = command("tune", iris, *QUICK, "--samples", samples, "--out", "tuned.json", "--batch-target-ms", "30")

    assert ended.code == 0, ended.output
    assert "chosen" in ended.output
    assert "[1/" in ended.output
    document = json.loads((tmp_path / "tuned.json").read_text())
    evidence = document.pop("tuned")
    assert document["batch_target_ms"] == 30
    assert (document["scorers"], document["max_batch_size"]) == (1, 64)
    assert document["graph_optimization"] in ("all", "extended", "basic")
    assert evidence["chosen"]["point"]["p99_ms"] <= 2000
    assert evidence["chosen"]["point"]["failures"] == 0
    assert evidence["samples"]["count"] == 2
    assert evidence["tolerances"] == {"label": None, "probabilities": {"relative": 1e-5, "of_largest": 1e-6}}
    assert all(candidate["largest_difference"] < 1e-5 for candidate in evidence["candidates"])
    ET.fromstring((tmp_path / "tuned.svg").read_text())
    assert "iris" in (tmp_path / "tuned.html").read_text()

    with serve(iris, "--config-file", tmp_path / "tuned.json") as server:
        assert server.score({"data": [[5.1, 3.5, 1.4, 0.2]]}).status == 200
        assert "tuned.json was" not in server.log

    model = onnx.load(iris)
    model.producer_name = "another"
    onnx.save(model, iris)
    with serve(iris, "--config-file", tmp_path / "tuned.json", "--scorers", "2") as server:
        assert "tuned.json was made for another model (sha256 " in server.log
        assert "tuned.json found --scorers 1; it is 2 here" in server.log


def test_auto_and_zero_leave_the_choice_to_the_search(command, iris, tmp_path):
    ended = command(
        *("tune", iris, "--budget-s", "8", "--slo-p99-ms", "2000", "--max-batch-size", "64"),
        *("--providers", "auto", "--scorers", "0", "--threads", "0"),
    )
    assert ended.code == 0, ended.output
    chosen = json.loads((tmp_path / "tuned.json").read_text())
    assert chosen["scorers"] > 0
    assert chosen["threads"] > 0


def test_where_nothing_keeps_the_limit_the_table_is_shown_and_nothing_is_written(command, iris, tmp_path):
    ended = command("tune", iris, "--budget-s", "10", "--slo-p99-ms", "0.001", "--scorers", "1")

    assert ended.code == 1
    assert "No --samples: measured with made-up inputs" in ended.output
    assert "over the limit" in ended.output
    assert "error: no setting keeps p99 within 0.001 ms; nearest is cpu, graph " in ended.output
    assert not (tmp_path / "tuned.json").exists()
    ET.fromstring((tmp_path / "tuned.svg").read_text())


def test_answers_that_differ_exclude_a_candidate(command, build, tmp_path):
    noise = helper.make_node("RandomUniformLike", ["x"], ["noise"])
    model = build(
        [noise, helper.make_node("Add", ["x", "noise"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", 2])},
        {"y": (TensorProto.FLOAT, ["N", 2])},
    )
    onnx.save(model, tmp_path / "noise.onnx")
    ended = command("tune", "noise.onnx", "--budget-s", "12", "--slo-p99-ms", "2000", "--threads", "1")

    assert ended.code == 1
    assert "excluded: output 'y' holds " in ended.output
    assert "no candidate serves the model as the reference does: output 'y' holds" in ended.output
    assert not (tmp_path / "tuned.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_leaves_what_it_has_and_no_server(live_command, iris, tmp_path, number):
    with live_command("tune", iris, "--budget-s", "60", "--slo-p99-ms", "2000") as process:
        seen: list[str] = []
        for line in process.stdout:
            seen.append(line.decode())
            if line.startswith(b"[2/"):
                process.send_signal(number)
        assert process.wait(20) == 130, seen

    output = "".join(seen)
    assert "Interrupted: this is what was measured until then." in output
    assert "chosen" in output
    assert json.loads((tmp_path / "tuned.json").read_text())["tuned"]["interrupted"] is True


def test_interrupted_before_anything_was_measured_it_says_so(live_command, iris, tmp_path):
    with live_command("tune", iris, "--budget-s", "60", "--slo-p99-ms", "2000") as process:
        seen = b""
        for line in process.stdout:
            seen += line
            if line.startswith(b"No --samples"):
                process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert b"nothing was written" in seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iris.onnx"]


def test_a_search_that_is_killed_leaves_no_server(live_command, iris, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # it cannot clear up what it keeps there
    with live_command("tune", iris, "--budget-s", "60", "--slo-p99-ms", "2000") as process:
        for line in process.stdout:
            if line.startswith(b"[1/"):
                threading.Timer(1.0, process.kill).start()
        process.wait(20)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "the following arguments are required: --slo-p99-ms"),
        (("--slo-p99-ms", "0"), "expected a number from 0.001 to"),
        (("--slo-p99-ms", "9", "--budget-s", "1"), "expected a number of seconds from 5 to"),
        (("--slo-p99-ms", "9", "--samples", "none"), "--samples none: cannot be read: No such file or directory"),
        (("--slo-p99-ms", "9", "--out", "no/where.json"), "no file can be written there"),
        (("--slo-p99-ms", "9", "--out", ""), "--out: expected the name of a file, got none"),
        (("--slo-p99-ms", "9", "--out", "/proc/tuned.json"), "no file can be written there"),
        (("--slo-p99-ms", "9", "--out", "tuned.html"), "--out tuned.html: the report would be written there, too"),
        (("--slo-p99-ms", "9", "--providers", "cpuu"), "did you mean 'cpu'?"),
        (("--slo-p99-ms", "9", "--providers", "cuda"), "none of the providers cuda runs the model here"),
    ],
)
def test_what_is_wrong_with_an_order_is_said(command, iris, arguments, why):
    ended = command("tune", iris, *arguments)
    assert ended.code == 1, ended.output
    assert why in ended.output


def test_samples_that_the_model_refuses_are_named(command, iris, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"data": [[1, 2, 3, 4]]}\n{"data": [[1]]}\n')
    ended = command("tune", iris, "--slo-p99-ms", "9", "--samples", "bad.jsonl")
    assert ended.code == 1
    assert "sample 2 of 2 is answered with 400" in ended.output


def test_a_script_is_not_tuned_and_told_why(command, script):
    ended = command("tune", script("def init(): pass\ndef run(data): return data\n"), "--slo-p99-ms", "9")
    assert ended.code == 1
    assert "tune searches settings of ONNX models" in ended.output
