"""In the shape of the script that MLflow models are deployed with: it collects its data by azureml.ai.monitoring."""

import json
import logging
import os

import pandas as pd
from azureml.ai.monitoring import Collector
from azureml.ai.monitoring.context import BasicCorrelationContext
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

_logger = logging.getLogger(__name__)


class JsonSerializer(json.JSONEncoder):
    def default(self, value):
        return value.isoformat() if hasattr(value, "isoformat") else super().default(value)


def init():
    global inputs_collector, outputs_collector, failures
    failures = []
    inputs_collector = Collector(name="model_inputs", on_error=lambda error: failures.append(str(error)))
    outputs_collector = Collector(name="model_outputs", on_error=lambda error: failures.append(str(error)))


def predict(frame):
    return pd.DataFrame({"prediction": frame.sum(axis=1)})


@input_schema("input_data", StandardPythonParameterType({"columns": ["a", "b"], "index": [0], "data": [[1, 2]]}))
@input_schema("params", StandardPythonParameterType({}), optional=True)
@output_schema(StandardPythonParameterType([{"prediction": 3}]))
def run(input_data, params=None):
    frame = pd.DataFrame(**input_data)
    context = inputs_collector.collect(frame, BasicCorrelationContext(id="fixed"))
    result = predict(frame)
    outputs_collector.collect(result, context)
    _logger.info("scored %d rows", len(frame))
    records = result.to_dict(orient="records")
    return json.loads(json.dumps(records, cls=JsonSerializer))
