"""Make trees.onnx, the tabular model of the benchmarks: gradient-boosted trees, as they are put behind most APIs."""

from pathlib import Path

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor

TARGET = Path(__file__).resolve().parent / "trees.onnx"


def main() -> None:
    patients, progress = load_diabetes(return_X_y=True)
    trees = GradientBoostingRegressor(n_estimators=100, random_state=0).fit(patients.astype(np.float32), progress)
    model = to_onnx(trees, name="trees", initial_types=[("X", FloatTensorType([None, 10]))], target_opset=17)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    TARGET.write_bytes(model.SerializeToString())
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
