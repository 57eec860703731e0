"""Models of different kind: mixed requests in random groups, each answer compared with its own direct run."""

import random

import numpy as np
import onnxruntime
import pytest

REQUESTS = {
    "iris": 200,
    "digits_mlp": 200,
    "diabetes_trees": 200,
    "digits_forest": 100,
    "topics": 200,
    "minilm": 40,
    "lac": 60,
    "orientation": 10,
    "magika": 16,
    "squeezenet": 4,
    "silero": 60,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_answer_equals_its_own_direct_run(name, real_model, load_engine, score, compare):
    model = real_model(name)
    engine = load_engine(model.path)
    assert engine.info["batchable"] is model.batchable
    assert model.why_not in (engine.info["why_not_batchable"] or "")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    generator = np.random.default_rng(7)
    order = random.Random(7)
    feeds = [model.make(generator, order.randint(1, model.most_rows)) for _ in range(REQUESTS[name])]
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
            compare(answer.body["outputs"], names, session.run(names, feed))


def test_labels_in_words(trained, load_engine, score):
    engine = load_engine(trained.topics)
    (answer,) = score(engine, [{"data": [["a ripe pear"], ["copper wire"], ["wind and snow"]]}])
    assert answer.body["outputs"]["label"] == ["fruit", "metal", "sky"]
