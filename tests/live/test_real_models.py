"""Models of different kind behind a real server, under mixed concurrent requests."""

import asyncio
import json
from collections import deque
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pytest

REQUESTS = 200
CONNECTIONS = 24


def encode(feed: dict[str, Any]) -> bytes:
    if len(feed) == 1:
        document = {"data": next(iter(feed.values()))}
    else:
        document = {"inputs": {name: array if array.ndim else array.item() for name, array in feed.items()}}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=lambda array: array.tolist())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("iris", id="tabular"),
        pytest.param("digits_forest", id="tree ensemble"),
        pytest.param("topics", id="strings in and out"),
        pytest.param("minilm", id="text with two dynamic axes"),
        pytest.param("orientation", id="image"),
        pytest.param("magika", id="int32 bytes"),
        pytest.param("squeezenet", id="fixed batch of 1"),
        pytest.param("silero", id="recurrent with its state off axis 0"),
    ],
)
def test_200_concurrent_mixed_requests_each_equal_their_own_direct_run(name, real_model, serve, connect, compare):
    model = real_model(name)
    generator = np.random.default_rng(11)
    most_rows = 1 if name in ("orientation", "magika") else model.most_rows  # those take 10 ms a row
    feeds = [model.make(generator, int(generator.integers(1, most_rows + 1))) for _ in range(REQUESTS)]
    waiting = deque(enumerate(feeds))
    answers = {}

    async def ask(port: int) -> None:
        async with connect(port) as client:
            while waiting:
                number, feed = waiting.popleft()
                answers[number] = await client.post(encode(feed))

    async def ask_all(port: int) -> None:
        await asyncio.gather(*(ask(port) for _ in range(CONNECTIONS)))

    with serve(model.path) as server:
        asyncio.run(ask_all(server.port))
        metadata = server.get(f"/v2/models/{model.path.stem}").json
        assert metadata["batchable"] is model.batchable

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert sorted(answers) == list(range(REQUESTS))
    for number, feed in enumerate(feeds):
        assert answers[number].status == 200, answers[number].body
        compare(json.loads(answers[number].body)["outputs"], names, session.run(names, feed))
