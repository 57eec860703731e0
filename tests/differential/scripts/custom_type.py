from inference_schema.parameter_types.abstract_parameter_type import AbstractParameterType
from inference_schema.schema_decorators import input_schema


class Celsius:
    def __init__(self, degrees):
        self.degrees = degrees


class CelsiusType(AbstractParameterType):
    def __init__(self, sample):
        super(CelsiusType, self).__init__(sample)

    def deserialize_input(self, input_data):
        return Celsius(float(input_data))

    def input_to_swagger(self):
        return {"type": "number", "format": "double", "example": 20.5}


def init():
    pass


@input_schema("temperature", CelsiusType(Celsius(20.5)))
def run(temperature):
    return {"fahrenheit": temperature.degrees * 9 / 5 + 32}
