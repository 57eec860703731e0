"""Make iris.onnx, the model of the CPU benchmark: so small that what is measured is the server, not the model."""

from pathlib import Path

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

TARGET = Path(__file__).resolve().parent / "iris.onnx"


def main() -> None:
    flowers, species = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=1000).fit(flowers.astype(np.float32), species)
    model = to_onnx(
        classifier,
        name="iris",  # else a random one, and the file would change with each run
        initial_types=[("X", FloatTensorType([None, 4]))],
        options={"zipmap": False},  # a plain tensor of probabilities, not a list of dictionaries
        target_opset=17,
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    TARGET.write_bytes(model.SerializeToString())
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, accuracy {classifier.score(flowers, species):.1%}")


if __name__ == "__main__":
    main()
