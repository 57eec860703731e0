"""A server that is to build TensorRT engines in the background, where they cannot be had: a driver that is a stub.

That a session of TensorRT is swapped in shows on a GPU only: the last test, which needs onnxruntime-gpu and TensorRT 10.
"""

import re

import numpy as np
import onnxruntime
import pytest

from scoring_runtime.onnx import gpu

IRIS = {"data": [[5.1, 3.5, 1.4, 0.2]]}


def test_the_next_provider_serves_on_when_tensorrt_cannot_be_had(serve, trained, stub_driver, wait_until, tmp_path):
    flags = ("--provider", "tensorrt,cpu", "--tensorrt-build", "background", "--cache-dir", str(tmp_path / "cache"))
    with serve(trained.iris, *flags, environ={"LD_LIBRARY_PATH": str(stub_driver)}) as server:
        first = server.score(IRIS)
        assert first.status == 200
        why = "kept CPUExecutionProvider: TensorrtExecutionProvider cannot be had: "
        wait_until(lambda: why in server.log, "the log does not say what became of TensorRT")
        assert server.score(IRIS).body == first.body
        assert len(server.scorers) == 1


def test_check_tells_what_goes_on_in_the_background(command, trained, stub_driver, tmp_path):
    flags = ("--provider", "tensorrt,cpu", "--tensorrt-build", "background", "--cache-dir", str(tmp_path / "cache"))
    ended = command("check", trained.iris, *flags, environ={"LD_LIBRARY_PATH": str(stub_driver)})
    assert ended.code == 0
    assert "building       tensorrt in the background; the log says when it is used" in ended.output


HAS_TENSORRT = "TensorrtExecutionProvider" in onnxruntime.get_available_providers() and (
    gpu.look(0) is not None and gpu.tensorrt_version() is not None
)


@pytest.mark.gpu
@pytest.mark.timeout(900)
@pytest.mark.skipif(not HAS_TENSORRT, reason="needs an NVIDIA GPU, onnxruntime-gpu and libnvinfer.so.10")
def test_tensorrt_is_swapped_in_behind_cuda(serve, real_model, wait_until, tmp_path):
    pixels = np.random.default_rng(1).uniform(0, 1, (1, 3, 224, 224)).round(2)
    body = {"data": pixels.tolist()}
    flags = ("--provider", "tensorrt,cuda", "--tensorrt-build", "background", "--cache-dir", str(tmp_path / "cache"))
    with serve(real_model("orientation").path, *flags, "--max-batch-size", "8") as server:
        outcome = re.compile(r"swapped CUDAExecutionProvider for TensorrtExecutionProvider after \d+ s|kept CUDA.*")

        def decided():
            assert server.score(body).status == 200
            return outcome.search(server.log)

        found = wait_until(decided, "the log does not say what became of TensorRT", 800)
        assert found[0].startswith("swapped")
        assert server.score(body).status == 200
