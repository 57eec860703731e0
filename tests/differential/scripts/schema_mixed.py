"""A sample that OpenAPI 2 and 3.0 cannot say: a list of several types. And one of every other kind."""

import datetime

from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("mixed", StandardPythonParameterType([1, "a", 2.5]))
@input_schema("day", StandardPythonParameterType(datetime.date(2026, 1, 2)))
@input_schema("clock", StandardPythonParameterType(datetime.time(3, 4, 5)))
@input_schema("pair", StandardPythonParameterType((1, 2)))
@input_schema("span", StandardPythonParameterType(range(3)))
def run(mixed=(), day=datetime.date(2000, 1, 1), clock=datetime.time(1), pair=(), span=range(1)):
    return [repr(value) for value in (mixed, day, clock, pair, span)]
