"""Texts of different lengths behind a real server, all at once: padded to share runs, each answered as by itself."""

import asyncio
import json
from typing import Any

import numpy as np
import onnxruntime
import orjson

TEXTS = 64


def text(generator: np.random.Generator) -> dict[str, Any]:
    length = int(generator.integers(3, 33))
    return {
        "token_ids": generator.integers(1, 5000, (1, length)),
        "length": np.array([length]),
    }


def test_64_texts_of_mixed_lengths_at_once(lac_by_length, serve, connect, compare):
    generator = np.random.default_rng(3)
    feeds = [text(generator) for _ in range(TEXTS)]

    async def ask(port: int, feed: dict[str, Any]) -> Any:
        async with connect(port) as client:
            return await client.post(orjson.dumps({"inputs": feed}, option=orjson.OPT_SERIALIZE_NUMPY))

    async def ask_all(port: int) -> list[Any]:
        return await asyncio.gather(*(ask(port, feed) for feed in feeds))

    with serve(lac_by_length) as server:
        answers = asyncio.run(ask_all(server.port))

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(lac_by_length, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for answer, feed in zip(answers, feeds, strict=True):
        assert answer.status == 200, answer.body
        compare(json.loads(answer.body)["outputs"], names, session.run(names, feed))
