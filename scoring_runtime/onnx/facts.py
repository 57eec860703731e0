"""What a tuner must know of a model before it measures it: `python -I -m scoring_runtime.onnx.facts HELLO`, one JSON object.

`bodies`: requests with made-up inputs, empty where none was found that the model accepts. `tolerances`: for each output how
closely two answers agree, or null. `files`: those that hold weights, beside the model.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

BODIES = 8
MOST_BYTES = 16 << 20


def describe(hello: dict[str, Any]) -> dict[str, Any]:
    """The facts of the model that HELLO names."""
    # As in the scorer: it must be set before ONNX Runtime is imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from .codecs.json import JsonCodec
    from .dtypes import BY_NAME
    from .loading import open_session
    from .plan import read
    from .tensors import Tensor

    plan = read(hello, threads=1)
    session = open_session(plan)
    return {
        "bodies": [body.decode() for body in _bodies(session, JsonCodec(session.inputs, session.outputs))],
        "tolerances": {
            output.name: tolerance and dataclasses.asdict(tolerance)
            for output in session.outputs
            # A sequence or a map may hold floats, too.
            for tolerance in [(output.dtype if isinstance(output, Tensor) else BY_NAME["float32"]).tolerance]
        },
        "files": _weights(plan.path),
    }


def _bodies(session: Any, codec: Any) -> list[bytes]:
    from .samples import guesses
    from .session import RunError

    for guess in guesses(session.inputs):
        try:
            session.run(guess.make(1, seed=1))
        except RunError:
            continue
        bodies: list[bytes] = []
        for seed in range(1, BODIES + 1):
            bodies.append(codec.encode_request(guess.make(1, seed)))
            if sum(map(len, bodies)) > MOST_BYTES:
                break
        return bodies
    return []


def _weights(path: Path) -> list[str]:
    from .model_file import external_tensors

    tensors = external_tensors(path.read_bytes())
    return sorted({location for tensor in tensors for location in tensor.locations})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(json.loads(sys.argv[1]))))
