def init():
    pass


def run(data, extra="default", *, keyword=1):
    return [data, extra, keyword]
