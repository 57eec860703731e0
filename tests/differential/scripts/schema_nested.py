import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

FRAME = pd.DataFrame({"name": ["a", "b"], "value": [1, 2]})
NESTED = StandardPythonParameterType(
    {
        "frame": PandasParameterType(FRAME),
        "array": NumpyParameterType(np.array([[1.0, 2.0]])),
        "plain": StandardPythonParameterType("text"),
        "loose": 5,
    }
)


def init():
    pass


@input_schema("inputs", NESTED)
@input_schema("arrays", StandardPythonParameterType([NumpyParameterType(np.array([1, 2]))]))
@output_schema(StandardPythonParameterType({"sum": 1.5}))
def run(inputs, arrays=None):
    result = {key: type(value).__name__ for key, value in inputs.items()}
    if "frame" in inputs:
        result["columns"] = list(inputs["frame"].columns)
        result["sum"] = float(inputs["frame"]["value"].sum())
    return [result, [type(array).__name__ for array in arrays or []]]
