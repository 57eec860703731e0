from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("second", StandardPythonParameterType({"k": 1}), optional=True)
@input_schema("first", StandardPythonParameterType("x"))
def run(first, second, third, fourth=4):
    if first == "!raise":
        raise ValueError("x")
    return [first, second, third, fourth]
