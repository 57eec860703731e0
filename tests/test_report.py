"""What `check` prints, whole."""

from pathlib import Path
from textwrap import dedent

from scoring_runtime.report import render
from scoring_runtime.target import Target

MODEL = Target("onnx", Path("/models/digits.onnx"), "digits")
INFO = {
    "inputs": [{"name": "X", "dtype": "float32", "shape": [None, 64]}, {"name": "k", "dtype": "int64", "shape": []}],
    "outputs": [{"name": "label", "dtype": "string", "shape": [None]}],
    "batchable": True,
    "tolerance": {"relative": 1e-05, "of_largest": 1e-06},
    "why_not_batchable": None,
    "providers": ["CPUExecutionProvider"],
    "placement": "all 7 nodes on the CPU",
    "degraded": None,
    "threads": 2,
    "onnxruntime": "1.23.2",
    "load_ms": 12.4,
    "warm_up_ms": 3.6,
}


def lines(text: str) -> str:
    return dedent(text).strip("\n")


def test_a_model():
    assert render(MODEL, INFO) == lines(
        """
        target         /models/digits.onnx
        name           digits
        engine         onnx
        input          X: float32[?, 64]
        input          k: int64[]
        output         label: string[?]
        batchable      yes: proved at warm-up, within 1e-05 of a value or 1e-06 of the largest one
        providers      CPUExecutionProvider
        placement      all 7 nodes on the CPU
        threads        2
        onnxruntime    1.23.2
        load, warm-up  12 ms, 4 ms
        """
    )


def test_a_model_whose_outputs_are_exact():
    assert "batchable      yes: proved at warm-up\n" in render(MODEL, {**INFO, "tolerance": None})


def test_a_model_that_cannot_be_batched_says_why():
    info = {**INFO, "batchable": False, "why_not_batchable": "axis 0 of input 'x' has the fixed size 1"}
    assert "batchable      no: axis 0 of input 'x' has the fixed size 1\n" in render(MODEL, info)


def test_a_model_that_does_not_run_where_it_should_says_why():
    info = {**INFO, "degraded": "runs on cpu; cuda: no NVIDIA driver"}
    assert "degraded       runs on cpu; cuda: no NVIDIA driver\n" in render(MODEL, info)


def test_a_script():
    info = {"python": "3.11.7", "arguments": ["data", "scale"], "mode": "object", "init_ms": 0.4}
    assert render(Target("script", Path("/service/score.py"), "score"), info) == lines(
        """
        target       /service/score.py
        name         score
        engine       script
        python       3.11.7
        run() takes  data, scale (object mode)
        init()       0 ms
        batchable    no: run() takes one request; requests share the transport and run one after the other
        """
    )
