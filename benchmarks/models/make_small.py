"""Make the models that cost next to nothing, so that what is measured is how inputs travel: sum, image and text."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
WORDS, WIDTH = 2000, 16


def main() -> None:
    vectors = np.random.default_rng(0).normal(size=(WORDS, WIDTH)).astype(np.float32)
    _write(
        "sum",  # rows of any length
        [helper.make_node("ReduceSum", ["X", "axis"], ["sum"], keepdims=0)],
        ("X", TensorProto.FLOAT, ["N", "M"]),
        ("sum", TensorProto.FLOAT, ["N"]),
        {"axis": np.array([1])},
    )
    _write(
        "image",  # the mean colour
        [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0)],
        ("image", TensorProto.FLOAT, ["N", 3, 224, 224]),
        ("mean", TensorProto.FLOAT, ["N", 3]),
    )
    _write(
        "text",  # the mean vector of the words
        [
            helper.make_node("Gather", ["vectors", "ids"], ["found"]),
            helper.make_node("ReduceMean", ["found"], ["mean"], axes=[1], keepdims=0),
        ],
        ("ids", TensorProto.INT64, ["N", "S"]),
        ("mean", TensorProto.FLOAT, ["N", WIDTH]),
        {"vectors": vectors},
    )


def _write(
    name: str,
    nodes: list[onnx.NodeProto],
    read: tuple[str, int, list[str | int]],
    written: tuple[str, int, list[str | int]],
    constants: dict[str, np.ndarray] | None = None,
) -> None:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*read)],
        [helper.make_tensor_value_info(*written)],
        [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    target = HERE / f"{name}.onnx"
    target.write_bytes(model.SerializeToString())
    print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
