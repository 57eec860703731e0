import datetime

from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("text", StandardPythonParameterType("hello"))
@input_schema("number", StandardPythonParameterType(3))
@input_schema("ratio", StandardPythonParameterType(0.5))
@input_schema("flag", StandardPythonParameterType(True))
@input_schema("items", StandardPythonParameterType([1, 2, 3]))
@input_schema("record", StandardPythonParameterType({"a": 1, "b": "x"}))
@input_schema("blob", StandardPythonParameterType(b"abc"))
@input_schema("moment", StandardPythonParameterType(datetime.datetime(2026, 1, 2, 3, 4, 5)))
@output_schema(StandardPythonParameterType({"seen": ["text"]}))
def run(
    text="T",
    number=1,
    ratio=1.0,
    flag=False,
    items=(),
    record={},
    blob=b"default",
    moment=datetime.datetime(2000, 1, 1),
    plain="untyped",
):
    values = locals()
    return {name: [type(value).__name__, repr(value)] for name, value in sorted(values.items())}
