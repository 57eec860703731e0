"""A model that runs as long as its values say, for tests that stop a run or send something meanwhile."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOREVER = 2e6
"""Rounds: minutes."""


def looping_model() -> onnx.ModelProto:
    """y = x + 1 after x[0, 0] rounds of a product that changes nothing: the values say how long it runs."""
    matrix = numpy_helper.from_array(np.eye(128, dtype=np.float32), "matrix")
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["square", "matrix"], ["squared"]),
            helper.make_node("Identity", ["go_on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("square", TensorProto.FLOAT, [128, 128]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("squared", TensorProto.FLOAT, [128, 128]),
        ],
        [matrix],
    )
    start = numpy_helper.from_array(np.zeros((128, 128), np.float32), "start")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["rounds"], to=TensorProto.INT64),
            helper.make_node("Loop", ["rounds", "", "start"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["x", "nothing"], ["moved"]),
            helper.make_node("Add", ["moved", "one"], ["y"]),
        ],
        "looping",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [start, numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
