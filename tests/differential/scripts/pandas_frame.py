"""The pandas variant of the regression."""

import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.schema_decorators import input_schema, output_schema

SAMPLE = pd.DataFrame({"age": [39], "workclass": ["State-gov"], "hours": [40.5], "member": [True]})


def init():
    pass


@input_schema("data", PandasParameterType(SAMPLE))
@output_schema(NumpyParameterType(np.array([0])))
def run(data):
    try:
        if len(data) and data["age"][0] == -1:
            return data
        scores = data["age"] * 2 + data["hours"]
        return {"result": scores.tolist(), "columns": list(data.columns), "types": [t.kind for t in data.dtypes]}
    except KeyError as error:
        return {"error": str(error)}
