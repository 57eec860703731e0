"""BentoML with adaptive batching, as https://docs.bentoml.com/en/latest/guides/adaptive-batching.html shows it.

The latency is a limit above which requests are refused: it is set high, so that none is. `concurrency` is the size of a
batch, as https://docs.bentoml.com/en/latest/guides/concurrency.html advises. One worker for one core. The log of each
request is off, as are metrics. Requests are joined along the first axis: inputs of one request must have the shape of
the others'.
"""

from typing import Any

import bentoml
import numpy as np

from benchmarks.peers.session import Session

MAX_BATCH_SIZE = 128  # rows, not requests


@bentoml.service(
    workers=1,
    traffic={"timeout": 60, "concurrency": MAX_BATCH_SIZE},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Scoring:
    def __init__(self) -> None:
        self.session = Session()

    @bentoml.api(route="/score", batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=10_000)
    def score(self, data: np.ndarray) -> list[dict[str, Any]]:
        """One object with all outputs for each row."""
        outputs = self.session.run(self.session.decode({"data": data}))
        columns = [array.tolist() for array in outputs.values()]
        return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
