"""As sklearn_numpy.py, but the array itself is returned."""

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("data", NumpyParameterType(np.array([[1, 2], [3, 4]], dtype=np.int32), enforce_shape=False))
def run(data):
    kind = int(data.flat[0]) if data.size else 0
    return [
        lambda: data,
        lambda: data.sum(),
        lambda: np.float64(2.5),
        lambda: np.float32(2.5),
        lambda: np.bool_(True),
        lambda: {"predictions": data, "best": data.max()},
        lambda: {np.int64(3): 1},
        lambda: [np.int64(1), np.nan],
        lambda: str(data.dtype),
    ][kind]()
