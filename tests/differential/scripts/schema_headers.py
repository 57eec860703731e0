from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("data", StandardPythonParameterType([1]))
def run(data, request_headers):
    return {"data": data, "test": request_headers.get("Test-Header"), "type": request_headers["Content-Type"]}
