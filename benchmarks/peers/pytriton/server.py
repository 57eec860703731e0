"""PyTriton: NVIDIA Triton with the model in this process.

Dynamic batching as https://triton-inference-server.github.io/pytriton/latest/binding_configuration describes it: up to 128
rows (the largest request has 100), waited for 1 ms at most. The answers of a batch are cut by Triton.
"""

import argparse
import json
import os
from pathlib import Path

# Each start unpacks 100 MB of Triton: into the working directory, which goes away with the server. Read on import.
os.environ["PYTRITON_HOME"] = str(Path.cwd())

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.session import MODEL_VARIABLE, TYPES, Session

session = Session()


@batch
def infer(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    # Triton wants two axes at least from what is batched: a scalar for each row becomes an axis of length one.
    return {name: array.reshape(len(array), -1) for name, array in session.run(arrays).items()}


def tensors(found: list[ort.NodeArg]) -> list[Tensor]:
    return [
        Tensor(
            name=tensor.name,
            dtype=TYPES[tensor.type],
            shape=tuple(size if isinstance(size, int) else -1 for size in tensor.shape[1:]) or (1,),
        )
        for tensor in found
    ]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--ports", type=json.loads, required=True, help="[http, grpc, metrics]")
    http, grpc, metrics = arguments.parse_args().ports
    model = ort.InferenceSession(os.environ[MODEL_VARIABLE], providers=["CPUExecutionProvider"])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        allow_metrics=False,
        allow_grpc=True,  # PyTriton itself asks whether the model is ready by it
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=tensors(model.get_inputs()),
            outputs=tensors(model.get_outputs()),
            config=ModelConfig(max_batch_size=128, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)),
        )
        triton.serve()
