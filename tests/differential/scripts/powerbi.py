"""The older AutoML shape: a JSON string of predictions, whatever went wrong."""

import json

import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.schema_decorators import input_schema, output_schema
import numpy as np


def init():
    pass


@input_schema("data", PandasParameterType(pd.DataFrame({"a": [1]}), enforce_shape=False))
@output_schema(NumpyParameterType(np.array([0])))
def run(data):
    try:
        result = data["a"] + 1
        return json.dumps({"result": result.tolist()})
    except Exception as error:
        return json.dumps({"error": type(error).__name__})
