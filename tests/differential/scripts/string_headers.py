def init():
    pass


def run(request_headers, payload):
    return {"type": type(request_headers).__name__, "headers": request_headers, "payload": payload}
