"""run is an object, not a function; init is a class."""


class init:
    pass


class Model:
    def __call__(self, data):
        return ["called", data]


run = Model()
