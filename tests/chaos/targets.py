"""What is served: a script in two styles, and a model. Each answers with the request's number and what its input gives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BEHAVIOUR = """
import ctypes, json, os, resource, struct, time, zlib

def init():
    global runs
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    if os.path.exists("slow-init"):
        time.sleep(2)
    if os.path.exists("failing-init"):
        raise RuntimeError("init() was told to fail")
    runs = os.open("runs/%d-%d" % (os.getpid(), time.monotonic_ns()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def handle(body):
    order = json.loads(body)
    number = order["number"]
    os.write(runs, struct.pack("<q", number))
    answer = {"number": number, "crc": zlib.crc32(body)}
    extra = DO[order["do"]](order)
    if isinstance(extra, dict):
        answer.update(extra)
        return AMLResponse(answer, 200, json_str=True)
    return extra

def sleep(order):
    time.sleep(order["s"])
    return {}

def reply(order):
    return {"text": "%d," % order["number"] * order["count"]}

def stream(order):
    def pieces():
        for index in range(order["count"]):
            time.sleep(order["s"])
            yield b"%d:%d;" % (order["number"], index) * 50
    return AMLResponse(pieces(), 200)

def fail(order):
    raise ValueError("request %d was told to fail" % order["number"])

def leave(order):
    raise SystemExit(3)

def loop(order):
    while True:
        pass

def hold(order):
    sum(range(10**15))  # no other thread and no signal handler runs any more

def memory(order):
    held = []
    while True:
        held.append(b"x" * (64 << 20))

def out(order):
    print("x" * (1 << 20))
    return {}

def close(order):
    os.closerange(3, 4096)
    return {}

DO = {
    "echo": lambda order: {},
    "sleep": sleep,
    "reply": reply,
    "stream": stream,
    "fail": fail,
    "leave": leave,
    "loop": loop,
    "hold": hold,
    "memory": memory,
    "print": out,
    "close": close,
    "exit": lambda order: os._exit(3),
    "segfault": lambda order: ctypes.string_at(0),
    "abort": lambda order: os.abort(),
}
"""

RAW = """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

@rawhttp
def run(request):
    return handle(request.get_data() or request.args["order"].encode())
"""

PLAIN = """
from azureml.contrib.services.aml_response import AMLResponse

def run(data):
    return handle(data.encode())
"""

SIZE, LAYERS = 192, 4


def write_target(engine: str, folder: Path) -> Path:
    """The file to serve for "raw", "plain" or "onnx"."""
    (folder / "runs").mkdir()
    if engine == "onnx":
        path = folder / "model.onnx"
        path.write_bytes(_model().SerializeToString())
        return path
    path = folder / "score.py"
    path.write_text(BEHAVIOUR + {"raw": RAW, "plain": PLAIN}[engine], "utf-8")
    return path


def _model() -> onnx.ModelProto:
    """`number` is x, `value` is 3 x + 7 and the sum of a chain of products that takes a little time and gives 0."""
    weights: dict[str, np.ndarray[Any, Any]] = {
        "zero": np.zeros((1, SIZE), np.float32),
        "w": np.full((SIZE, SIZE), 0.5, np.float32),
        "ones": np.ones((SIZE, 1), np.float32),
        "three": np.array([3], np.int64),
        "seven": np.array([7], np.int64),
    }
    nodes = [
        helper.make_node("Identity", ["x"], ["number"]),
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "zero"], ["h0"]),
        *(helper.make_node("MatMul", [f"h{layer}", "w"], [f"h{layer + 1}"]) for layer in range(LAYERS)),
        helper.make_node("MatMul", [f"h{LAYERS}", "ones"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["nothing"], to=TensorProto.INT64),
        helper.make_node("Mul", ["x", "three"], ["triple"]),
        helper.make_node("Add", ["triple", "seven"], ["more"]),
        helper.make_node("Add", ["more", "nothing"], ["value"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chaos",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 1])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", 1]) for name in ("number", "value")],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
