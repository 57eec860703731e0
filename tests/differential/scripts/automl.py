"""What AutoML generates: Inputs, GlobalParameters, Results."""

import json
import logging

import numpy as np
import pandas as pd
from inference_schema.parameter_types.abstract_parameter_type import AbstractParameterType
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

data_sample = PandasParameterType(pd.DataFrame({"age": pd.Series([0], dtype="int64"), "job": pd.Series(["x"])}))
input_sample = StandardPythonParameterType({"data": data_sample})
method_sample = StandardPythonParameterType("predict")
sample_global_params = StandardPythonParameterType({"method": method_sample})
result_sample = NumpyParameterType(np.array([0]))
output_sample = StandardPythonParameterType({"Results": result_sample})

logger = logging.getLogger("azureml.automl.core.scoring_script_v2")


def init():
    global model
    model = {"classes": [0, 1]}


@input_schema("GlobalParameters", sample_global_params, convert_to_provided_type=False)
@input_schema("Inputs", input_sample)
@output_schema(output_sample)
def run(Inputs, GlobalParameters={"method": "predict"}):
    data = Inputs["data"]
    if GlobalParameters.get("method", None) == "predict_proba":
        result = np.column_stack([1 - data["age"] / 100, data["age"] / 100])
    elif GlobalParameters.get("method", None) == "predict":
        result = (data["age"] > 50).astype(int).values
    else:
        raise Exception("Invalid predict method argument received. GlobalParameters: {0}".format(GlobalParameters))
    if isinstance(result, pd.DataFrame):
        result = result.values
    return {"Results": result.tolist()}
