"""What only a GPU can show. `make gpu-check` runs this where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import read
from scoring_runtime.onnx.session import OutOfMemoryError

pytestmark = pytest.mark.gpu

DENSE = Path(__file__).resolve().parents[2] / "benchmarks/models/dense.onnx"
CUDA = {"provider": "cuda", "provider_option": "cuda.use_tf32=0"}
"""Products of many ones: in TF32 they would lose their digits."""


def answers(engine: Any, score: Any, feeds: Any) -> list[Any]:
    return [answer.body["outputs"]["Y"] for answer in score(engine, [{"data": feed.tolist()} for feed in feeds])]


def test_a_model_of_products_is_captured_for_each_bucket_and_gives_the_cpus_answers(load_engine, score):
    engine = load_engine(DENSE, batch_buckets="1,2,4,8", cuda_graphs="on", **CUDA)
    assert engine.info["providers"][0] == "CUDAExecutionProvider"
    assert engine.info["why_no_cuda_graphs"] is None
    ways = {bucket["rows"]: bucket["way"] for bucket in engine.info["buckets"]}
    assert list(ways) == [1, 2, 4, 8]
    assert "graph" in ways.values(), engine.info["buckets"]
    random = np.random.default_rng(1)
    feeds = [random.uniform(0, 1, (rows, 4)) for rows in (1, 3, 8, 5, 2, 11)]
    for one, other in zip(
        answers(engine, score, feeds), answers(load_engine(DENSE, provider="cpu"), score, feeds), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3)


def test_a_model_with_nodes_on_the_cpu_is_served_without_graphs_and_says_why(trained, load_engine):
    engine = load_engine(trained.diabetes_trees, provider_policy="prefer", **CUDA)
    assert engine.info["why_no_cuda_graphs"]


def test_the_limit_of_memory_is_met_and_known_for_what_it_is(trained):
    session = open_session(read({"target": str(trained.digits_mlp), "gpu_memory_mb": 64, **CUDA}, 1))
    with pytest.raises(OutOfMemoryError):
        session.run([np.zeros((1 << 20, 64), np.float32)])
    assert len(session.run([np.zeros((8, 64), np.float32)])[0]) == 8
