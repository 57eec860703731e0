"""Small real models, trained here; models from packages; and a way to score without a front."""

import importlib.util
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

from scoring_runtime.onnx.engine import Engine, load
from scoring_runtime.scorer.frames import ROUTE_SCORE, Request


class Answer(NamedTuple):
    """A reply, its body parsed."""

    status: int
    body: Any
    run_us: int


class RecordingOutbox:
    """Keeps what an engine answers. A second answer to a request is an error."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}

    def add(self, request_id: int, status: int, body: Any, head: bytes = b"", flags: int = 0, run_us: int = 0) -> None:
        assert request_id not in self.answers
        assert head == b""
        assert flags == 0
        self.answers[request_id] = Answer(status, json.loads(bytes(body)), run_us)

    def flush_if_due(self) -> None:
        """Nothing waits here."""


Score = Callable[[Engine, Sequence[Any]], list[Answer]]
Load = Callable[..., Engine]
Build = Callable[..., onnx.ModelProto]


def score_frame(engine: Engine, bodies: Sequence[Any]) -> list[Answer]:
    """The answers to one frame. Bodies that are no bytes are sent as JSON."""
    outbox = RecordingOutbox()
    blobs = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    engine.score([Request(number, 0, ROUTE_SCORE, 2, b"", blob) for number, blob in enumerate(blobs)], outbox)
    return [outbox.answers[number] for number in range(len(blobs))]


def load_model(target: Path | onnx.ModelProto, folder: Path | None = None, **hello: Any) -> Engine:
    """An engine as the front would ask for it; a model in memory is first written into `folder`."""
    if isinstance(target, onnx.ModelProto):
        assert folder is not None
        path = folder / "model.onnx"
        path.write_bytes(target.SerializeToString())
        target = path
    return load({"engine": "onnx", "target": str(target), "scorers": 1, "threads": 1, **hello})


def build_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Any]],
    outputs: dict[str, tuple[int, Any]],
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 21,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are name: (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *declared) for name, declared in inputs.items()],
        [helper.make_tensor_value_info(name, *declared) for name, declared in outputs.items()],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.fixture(scope="session")
def score() -> Score:
    return score_frame


@pytest.fixture(scope="session")
def load_engine() -> Load:
    return load_model


@pytest.fixture(scope="session")
def build() -> Build:
    return build_model


@pytest.fixture
def scratch(tmp_path: Path, score: Score) -> Callable[..., list[Answer]]:
    """Load a model in memory and score bodies with it, as one frame."""
    return lambda model, *bodies: score(load_model(model, tmp_path), bodies)


class Trained(NamedTuple):
    """The files of the models that the session has trained."""

    iris: Path
    iris_zipmap: Path
    digits_mlp: Path
    diabetes_trees: Path
    digits_forest: Path
    topics: Path


TOPICS = {
    "fruit": ("apple and pear", "banana and plum", "ripe apple juice", "a plum and a pear", "banana bread"),
    "metal": ("iron and steel", "copper wire", "molten iron", "a steel beam", "zinc and copper"),
    "sky": ("rain and clouds", "a blue sky", "wind and rain", "clouds in the sky", "snow and wind"),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train small models with scikit-learn and export them."""
    folder = tmp_path_factory.mktemp("trained")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence and deprecations are not what is tested here
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import StringTensorType
        from sklearn.datasets import load_diabetes, load_digits, load_iris
        from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline

        def export(name: str, model: Any, example: Any, zipmap: bool = False, **more: Any) -> Path:
            if not zipmap and hasattr(model, "predict_proba"):
                classifier = model.steps[-1][1] if hasattr(model, "steps") else model
                more["options"] = {id(classifier): {"zipmap": False}}
            path = folder / f"{name}.onnx"
            path.write_bytes(to_onnx(model, example, **more).SerializeToString())
            return path

        iris, species = load_iris(return_X_y=True)
        digits, numbers = load_digits(return_X_y=True)
        patients, progress = load_diabetes(return_X_y=True)
        texts = [text for group in TOPICS.values() for text in group]
        labels = [label for label, group in TOPICS.items() for _ in group]
        example = np.zeros((1, 4), np.float32)
        pixels = np.zeros((1, 64), np.float32)
        logistic = LogisticRegression(max_iter=500).fit(iris, species)
        mlp = MLPClassifier((32,), max_iter=20, random_state=0).fit(digits, numbers)
        trees = GradientBoostingRegressor(n_estimators=40, random_state=0).fit(patients, progress)
        forest = RandomForestClassifier(30, random_state=0).fit(digits, numbers)
        topics = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(texts, labels)
        return Trained(
            export("iris", logistic, example),
            export("iris_zipmap", logistic, example, zipmap=True),
            export("digits_mlp", mlp, pixels),
            export("diabetes_trees", trees, np.zeros((1, 10), np.float32)),
            export("digits_forest", forest, pixels),
            export("topics", topics, None, initial_types=[("text", StringTensorType([None, 1]))]),
        )


@pytest.fixture(scope="session")
def packaged() -> Callable[[str, str], Path]:
    """The path of a model file in an installed package, which is not imported. Skips the test where there is none."""

    def find(package: str, file: str) -> Path:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(f"package {package} is not installed")
        return Path(spec.submodule_search_locations[0]) / file

    return find


@pytest.fixture(scope="session")
def iris(trained: Trained) -> Engine:
    return load_model(trained.iris, name="iris")
