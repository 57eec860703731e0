"""An image script: bytes in, bytes out, with the response's headers."""

import hashlib
import io

from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def init():
    global SIGNATURE
    SIGNATURE = b"\x89PNG\r\n\x1a\n"


@rawhttp
def run(request):
    if request.method == "GET":
        return AMLResponse("Send an image by POST.", 200)
    if request.method == "POST":
        if request.files:
            image = request.files["image"].read()
        else:
            image = request.get_data(False)
        if not image.startswith(SIGNATURE):
            return AMLResponse("bad request, use a PNG", 415)
        turned = io.BytesIO(SIGNATURE + image[len(SIGNATURE) :][::-1])
        headers = {"Content-Type": "image/png", "X-Digest": hashlib.sha256(image).hexdigest()}
        return AMLResponse(turned.getvalue(), 200, headers)
    if request.method == "OPTIONS":
        response = AMLResponse("", 200)
        response.headers["Allow"] = "OPTIONS, GET, POST"
        response.headers["Access-Control-Allow-Methods"] = "OPTIONS, GET, POST"
        response.headers["Access-Control-Allow-Origin"] = "https://app.example"
        response.headers["Access-Control-Allow-Headers"] = "*"
        return response
    return AMLResponse("bad request", 500)
