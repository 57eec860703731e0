"""Make numbers.onnx: `number` is x and `twice` is 2 x, so that each answer tells which request it belongs to."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).resolve().parent / "numbers.onnx"


def main() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["number"]), helper.make_node("Mul", ["x", "two"], ["twice"])],
        "numbers",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 1])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", 1]) for name in ("number", "twice")],
        [numpy_helper.from_array(np.array([2], np.int64), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    TARGET.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
