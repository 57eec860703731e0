"""A script with a numpy schema. It runs in an environment of its own, which has numpy and inference-schema."""

from typing import Any

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init() -> None:
    """Nothing to load."""


@input_schema("data", NumpyParameterType(np.array([[5.1, 3.5, 1.4, 0.2]])))  # type: ignore[untyped-decorator]
@output_schema(NumpyParameterType(np.array([1.0])))  # type: ignore[untyped-decorator]
def run(data: Any) -> Any:
    """The sum of each row."""
    return data.sum(axis=1).tolist()
