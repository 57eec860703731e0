import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.schema_decorators import input_schema, output_schema

SAMPLE = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


def init():
    pass


@input_schema("data", PandasParameterType(SAMPLE, orient="split"))
@output_schema(PandasParameterType(SAMPLE, orient="split"))
def run(data):
    return data.to_json(orient="split")
