"""Train the example model: scikit-learn's hand-written digits, 64 pixels in, a digit and ten probabilities out.

Run it to renew the two files beside it: digits.onnx, and request.json with one digit the model has never seen.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
PIXELS = 64


def main() -> None:
    images, digits = load_digits(return_X_y=True)
    images = images.astype(np.float32)  # [N, 64], each pixel 0..16
    train_images, test_images, train_digits, test_digits = train_test_split(
        images, digits, test_size=0.2, random_state=0, stratify=digits
    )
    classifier = make_pipeline(
        StandardScaler(), MLPClassifier(hidden_layer_sizes=(128, 64), max_iter=200, random_state=0)
    )
    classifier.fit(train_images, train_digits)

    model = export(classifier)
    (HERE / "digits.onnx").write_bytes(model)
    (HERE / "request.json").write_text(json.dumps({"data": [test_images[0].astype(int).tolist()]}) + "\n")

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    labels, _probabilities = session.run(None, {"pixels": test_images})
    print(f"accuracy on {len(test_digits)} unseen digits: {np.mean(labels == test_digits):.1%}")
    print(f"the digit in request.json: {test_digits[0]}")


def export(classifier: object) -> bytes:
    """Return `classifier` as an ONNX model: pixels f32[N, 64] -> label i64[N], probabilities f32[N, 10]."""
    model = to_onnx(
        classifier,
        name="digits",  # else a random one, and the file would change with each run
        initial_types=[("pixels", FloatTensorType([None, PIXELS]))],
        options={"zipmap": False},  # a plain tensor of probabilities, not a list of dictionaries
        target_opset=17,
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString()
    return serialized


if __name__ == "__main__":
    main()
