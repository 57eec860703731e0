"""How a server wants its input spelled, and how it spells its answer. Pure: arrays in, bytes out, and back."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

TYPES = {"float64": "FP32", "float32": "FP32", "int64": "INT64"}  # as text, a number has no size


@dataclasses.dataclass(frozen=True)
class Message:
    """The body of a request, and how it is sent."""

    path: str
    body: bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclasses.dataclass(frozen=True)
class Dialect:
    encode: Callable[[Arrays, str], Message]
    """From inputs, and what the server calls the model."""

    decode: Callable[[bytes], dict[str, Array]] | None
    """None: the answer is always the same, and says nothing."""


def wrong_answer(dialect: Dialect, body: bytes, expected: Arrays) -> str | None:
    """What is wrong with an answer, or None. Numbers agree within the noise of single precision; shapes up to axes of one."""
    if dialect.decode is None:
        return None
    try:
        found = dialect.decode(body)
        if found.keys() != expected.keys():
            return f"outputs {sorted(found)} in place of {sorted(expected)}"
        for name, wanted in expected.items():
            array = found[name].astype(wanted.dtype).reshape(wanted.shape)
            if not np.allclose(array, wanted, rtol=1e-4, atol=1e-5):
                return f"{name} is {array.ravel()[:4]}, not {wanted.ravel()[:4]}"
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return f"no answer: {error!r}: {body[:200]!r}"
    return None


# Requests ------------------------------------------------------------------------------------------------------------


def _plain(arrays: Arrays, _model: str) -> Message:
    values = {name: array.tolist() for name, array in arrays.items()}
    document = {"data": next(iter(values.values()))} if len(values) == 1 else {"inputs": values}
    return Message("/score", json.dumps(document).encode())


def _v1(arrays: Arrays, model: str) -> Message:
    (array,) = arrays.values()
    return Message(f"/v1/models/{model}:predict", json.dumps({"instances": array.tolist()}).encode())


def _v2(arrays: Arrays, model: str) -> Message:
    inputs = [{**_described(name, array), "data": array.ravel().tolist()} for name, array in arrays.items()]
    return Message(f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode())


def _v2_binary(arrays: Arrays, model: str) -> Message:
    blobs = [array.tobytes() for array in arrays.values()]
    inputs = [
        {**_described(name, array), "parameters": {"binary_data_size": len(blob)}}
        for (name, array), blob in zip(arrays.items(), blobs, strict=True)
    ]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Message(f"/v2/models/{model}/infer", head + b"".join(blobs), headers)


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": TYPES[array.dtype.name]}


# Answers -------------------------------------------------------------------------------------------------------------


def _outputs(body: bytes) -> dict[str, Array]:
    return {name: np.array(value) for name, value in json.loads(body)["outputs"].items()}


def _rows(rows: list[dict[str, Any]]) -> dict[str, Array]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _v2_outputs(body: bytes) -> dict[str, Array]:
    return {tensor["name"]: np.array(tensor["data"]) for tensor in json.loads(body)["outputs"]}


def _sum(body: bytes) -> dict[str, Array]:
    found = json.loads(body)
    return {"sum": np.array(found["sum"] if isinstance(found, dict) else found)}


DIALECTS = {
    "plain": Dialect(_plain, _outputs),
    "script": Dialect(_plain, _sum),
    "rows": Dialect(_plain, lambda body: _rows(json.loads(body))),
    "v1": Dialect(_v1, lambda body: _rows(json.loads(body)["predictions"])),
    "v2": Dialect(_v2, _v2_outputs),
    "v2-binary": Dialect(_v2_binary, _v2_outputs),
    "fixed": Dialect(_plain, None),
    "fixed-binary": Dialect(_v2_binary, None),
}
