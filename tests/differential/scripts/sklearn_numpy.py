"""A regression with NumpyParameterType, in the shape of the public examples: a pickled model from AZUREML_MODEL_DIR."""

import json
import logging
import os

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema, output_schema


class Ridge:
    """As scikit-learn's: predict() takes a matrix and gives a vector."""

    def __init__(self, coefficients, intercept):
        self.coefficients = np.asarray(coefficients)
        self.intercept = intercept

    def predict(self, rows):
        return rows @ self.coefficients + self.intercept


def init():
    global model
    path = os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model", "ridge.json")
    with open(path) as file:
        model = Ridge(**json.load(file))
    logging.info("Init complete")


@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0, 3.0, 4.0]])))
@output_schema(NumpyParameterType(np.array([11.0])))
def run(data):
    logging.info("model: request received")
    result = model.predict(data)
    return result.tolist()
