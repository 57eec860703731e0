"""The scorer process of the ONNX engine: `python -I -m scoring_runtime.onnx CHANNEL_FD PROGRESS_FD`."""

import sys
from typing import Any

from scoring_runtime.scorer import loop


def load(hello: dict[str, Any]) -> Any:
    """Load the engine. Imported here, so that the front hears of a broken onnxruntime installation as of any failure."""
    from scoring_runtime.onnx import engine

    return engine.load(hello)


if __name__ == "__main__":
    sys.exit(loop.main(load, sys.argv[1:]))
