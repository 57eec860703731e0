def init():
    pass


def run(data, extra):
    return [data, extra]
