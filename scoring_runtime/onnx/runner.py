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
    threads: int

    @property
    def providers(self) -> list[str]:
        """Those that really run, best first, by ONNX Runtime's names."""

    @property
    def placement(self) -> Placement:
        """Where its nodes are, and whether that is where they should be."""

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """The outputs for these inputs, both in the model's order. RunRefusedError or RunError when there are none."""

    def stop(self) -> None:
        """Let the run that is under way, if any, end early with RunStoppedError. Called from another thread.

        It may come just before that run begins, or between two runs that are one to the caller, and be lost: the caller
        repeats it until the run has ended.
        """


class Wrapper:
    """A Runner around another one, which says of itself what that one says. Subclasses run it in their own way."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.inputs, self.outputs, self.threads = runner.inputs, runner.outputs, runner.threads

    @property
    def providers(self) -> list[str]:
        """Those that run now."""
        return self._runner.providers

    @property
    def placement(self) -> Placement:
        """Where the nodes are now."""
        return self._runner.placement

    def stop(self) -> None:
        """As the runner inside."""
        self._runner.stop()
