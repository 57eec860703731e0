"""The scorer process of the ONNX engine: `python -I -m scoring_runtime.onnx CHANNEL_FD PROGRESS_FD ARENA_FD`."""

import os
import sys
from typing import Any

from scoring_runtime.scorer import loop


def load(hello: dict[str, Any]) -> Any:
    """Load the engine. Imported here, so that the front hears of a broken onnxruntime installation as of any failure."""
    # From 1.31 on ONNX Runtime's Linux builds report to their maker, and write a file to the temporary folder for it, unless
    # this is set before they are imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from scoring_runtime.onnx import engine

    return engine.load(hello)


def serve(*given: Any) -> None:
    """Answer frames, as `loop.serve`."""
    from scoring_runtime.onnx import pipeline

    pipeline.serve(*given)


if __name__ == "__main__":
    sys.exit(loop.main(load, sys.argv[1:], serve))
