"""What every Python peer does with the model: JSON lists to arrays, one session on one thread, arrays to lists.

It runs in each peer's own environment, so that they all pay the same for the model and differ in the server alone.
A request is `{"data": nested list}`, or `{"inputs": {"<name>": nested list, ...}}` for a model of several inputs; an
answer is `{"outputs": {"<name>": nested list, ...}}`.
"""

import os
from typing import Any

import numpy as np
import onnxruntime as ort

MODEL_VARIABLE = "BENCHMARK_MODEL"
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}

Arrays = dict[str, np.ndarray]
Document = dict[str, Any]


class Session:
    """The model that the environment names."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        # One core: more threads would only wait for each other. ONNX Runtime's documents advise so for small models:
        # https://onnxruntime.ai/docs/performance/tune-performance/threading.html
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = os.environ[MODEL_VARIABLE]
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._types = {tensor.name: TYPES[tensor.type] for tensor in self._session.get_inputs()}
        self._names = [tensor.name for tensor in self._session.get_outputs()]

    def decode(self, document: Document) -> Arrays:
        """The arrays that a request's JSON spells."""
        if "data" in document:
            (name,) = self._types
            values = {name: document["data"]}
        else:
            values = document["inputs"]
        return {name: np.asarray(values[name], dtype) for name, dtype in self._types.items()}

    def run(self, arrays: Arrays) -> Arrays:
        return dict(zip(self._names, self._session.run(None, arrays), strict=True))

    def run_many(self, requests: list[Arrays]) -> list[Arrays]:
        """The answers of several requests: those of one shape are stacked along the first axis and run at once."""
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for number, arrays in enumerate(requests):
            groups.setdefault(tuple(array.shape[1:] for array in arrays.values()), []).append(number)
        answers: list[Arrays] = [{}] * len(requests)
        for numbers in groups.values():
            members = [requests[number] for number in numbers]
            if len(members) == 1:
                answers[numbers[0]] = self.run(members[0])
                continue
            stacked = {name: np.concatenate([arrays[name] for arrays in members]) for name in self._types}
            ends = np.cumsum([len(next(iter(arrays.values()))) for arrays in members])[:-1]
            cut = {name: np.split(array, ends) for name, array in self.run(stacked).items()}
            for place, number in enumerate(numbers):
                answers[number] = {name: rows[place] for name, rows in cut.items()}
        return answers

    @staticmethod
    def encode(outputs: Arrays) -> Document:
        """The JSON of an answer."""
        return {"outputs": {name: array.tolist() for name, array in outputs.items()}}
