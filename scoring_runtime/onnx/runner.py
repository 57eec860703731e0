"""What the engine runs: a session, or something around one that pads, binds or swaps."""

from collections.abc import Sequence
from typing import Any, Protocol

from .dtypes import Array
from .providers import Placement
from .tensors import Output, Tensor


class Runner(Protocol):
    """A loaded model. A session is one; so is whatever wraps a session and runs it in its own way."""

    inputs: list[Tensor]
    outputs: list[Output]
    providers: list[str]
    """Those that really run, best first, by ONNX Runtime's names."""
    threads: int
    placement: Placement

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """The outputs for these inputs, both in the model's order. RunRefusedError or RunError when there are none."""
