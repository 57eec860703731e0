"""Ray Serve with @serve.batch (https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html).

One replica for one core, and no limit on what it may have in hand below the largest load. RAY_SERVE_THROUGHPUT_OPTIMIZED
is set as https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html advises, the log of each request is
off. The dashboard is off.
"""

import argparse
import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.session import Arrays, Document, Session


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Scoring:
    """The model, and the queue before it."""

    def __init__(self) -> None:
        self.session = Session()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def run(self, requests: list[Arrays]) -> list[Arrays]:
        return self.session.run_many(requests)

    async def __call__(self, request: Request) -> Document:
        arrays = self.session.decode(await request.json())
        return self.session.encode(await self.run(arrays))


def end(*_: Any) -> None:
    ray.shutdown()
    sys.exit()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": arguments.parse_args().port},
        logging_config={"enable_access_log": False},
    )
    application: Any = Scoring  # the decorator has made a deployment of the class
    serve.run(application.bind(), route_prefix="/score")
    signal.signal(signal.SIGTERM, end)
    signal.pause()
