"""KServe's Python SDK: a custom model, one worker for one core, without gRPC and without the log of each request's latency.

Batching is done by KServe's agent, a sidecar of the Kubernetes deployment, and not by the SDK
(https://kserve.github.io/website/docs/model-serving/predictive-inference/batcher): here is none. predict() is a
coroutine, so that no thread is switched to.
"""

import argparse
from typing import Any

from kserve import Model, ModelServer

from benchmarks.peers.session import Document, Session


class OnnxModel(Model):
    def load(self) -> bool:
        self.session = Session()
        self.ready = True
        return True

    async def predict(self, payload: Document, *arguments: Any, **options: Any) -> Document:
        """One object with all outputs for each instance."""
        outputs = self.session.run(self.session.decode({"data": payload["instances"]}))
        columns = [array.tolist() for array in outputs.values()]
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    model = OnnxModel("model")
    model.load()
    ModelServer(
        http_port=arguments.parse_args().port,
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
        event_loop="uvloop",
    ).start([model])
