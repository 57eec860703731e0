"""Make dense.onnx, the model of the overload benchmark: a small file and milliseconds of work for each row."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).resolve().parent / "dense.onnx"
WIDTH, LAYERS = 1024, 24


def main() -> None:
    weight = numpy_helper.from_array(np.array([1 / WIDTH], np.float32))
    shapes = [numpy_helper.from_array(np.array([rows, WIDTH], np.int64), f"shape{rows}") for rows in (4, WIDTH)]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape4"], ["first"], value=weight),
        helper.make_node("ConstantOfShape", [f"shape{WIDTH}"], ["weights"], value=weight),
        helper.make_node("MatMul", ["X", "first"], ["layer0"]),
    ]
    for layer in range(LAYERS):
        nodes.append(helper.make_node("MatMul", [f"layer{layer}", "weights"], [f"sum{layer}"]))
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"layer{layer + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"layer{LAYERS}"], ["Y"], axes=[1], keepdims=1))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 1])],
        shapes,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    TARGET.write_bytes(model.SerializeToString())
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
