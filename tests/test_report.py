"""What `check` prints, whole."""

from pathlib import Path
from textwrap import dedent

import pytest

from scoring_runtime.report import render
from scoring_runtime.target import Target

MODEL = Target("onnx", Path("/models/digits.onnx"), "digits")
INFO = {
    "inputs": [{"name": "X", "dtype": "float32", "shape": [None, 64]}, {"name": "k", "dtype": "int64", "shape": []}],
    "outputs": [{"name": "label", "dtype": "string", "shape": [None]}],
    "batchable": True,
    "rows_per_run": 32,
    "stacking_gain": 9.04,
    "ragged": "no input has a free axis beside its rows",
    "tolerance": {"relative": 1e-05, "of_largest": 1e-06},
    "why_not_batchable": None,
    "providers": ["CPUExecutionProvider"],
    "placement": "all 7 nodes on the CPU",
    "degraded": None,
    "threads": 2,
    "optimized_cache": "hit",
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
        stacking       stacks up to 32 rows: 9x the throughput of single runs
        ragged         no: no input has a free axis beside its rows; requests share runs with those of their shape
        providers      CPUExecutionProvider
        placement      all 7 nodes on the CPU
        threads        2
        model cache    optimised before
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


def test_a_model_that_runs_in_buckets():
    buckets = [{"rows": 1, "way": "graph", "ms": 0.41234}, {"rows": 8, "way": "plain", "ms": 2.5}]
    info = {**INFO, "buckets": buckets, "why_no_cuda_graphs": None}
    report = render(MODEL, info)
    assert "buckets        1 graph (0.412 ms), 8 plain (2.5 ms)\n" in report
    assert "CUDA graphs    1 of 2 buckets\n" in report
    assert "CUDA graphs    none: turned off\n" in render(MODEL, {**info, "why_no_cuda_graphs": "turned off"})


def test_what_the_cache_did():
    assert "model cache    optimised now, and kept" in render(MODEL, {**INFO, "optimized_cache": "stored"})
    assert "model cache    off: why not\n" in render(MODEL, {**INFO, "optimized_cache": "off: why not"})


@pytest.mark.parametrize(
    ("rows", "gain", "text"),
    [
        (1, 0.8, "runs rows one by one: stacking makes them slower (0.8x)"),
        (1, 1.02, "runs rows one by one: stacking gains nothing (1x)"),
        (1, None, "runs rows one by one: --max-batch-size is 1"),
        (
            None,
            None,
            "begins with single rows: warm-up could not measure larger runs, requests will show whether they pay",
        ),
        (4, 1.62, "stacks up to 4 rows: 1.6x the throughput of single runs"),
        (128, 26.7, "stacks up to 128 rows: 27x the throughput of single runs"),
    ],
)
def test_whether_stacking_pays(rows, gain, text):
    assert f"stacking       {text}\n" in render(MODEL, {**INFO, "rows_per_run": rows, "stacking_gain": gain})


def test_requests_of_different_lengths():
    report = render(MODEL, {**INFO, "ragged": True})
    assert "ragged         yes: requests of different lengths are padded to share runs, proved at warm-up\n" in report


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
