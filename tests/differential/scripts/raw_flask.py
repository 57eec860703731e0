"""A raw run() that uses Flask itself."""

import flask
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
from flask import Response, jsonify, make_response


def init():
    pass


def cookie():
    response = make_response("x")
    response.set_cookie("a", "b", httponly=True)
    return response


def stream():
    def pieces():
        yield "path "
        yield flask.request.path

    return Response(flask.stream_with_context(pieces()), mimetype="text/plain")


def werkzeug_response():
    from werkzeug.wrappers import Response as Bare

    return Bare("x")


DO = {
    "response": lambda: Response("x"),
    "response-json": lambda: Response('{"a": 1}', mimetype="application/json", status=202),
    "response-500": lambda: Response("x", status=500),
    "response-204": lambda: Response(status=204),
    "response-304": lambda: Response("x", status=304),
    "response-headers": lambda: Response("x", headers={"X-A": "1"}),
    "response-location": lambda: Response("x", status=302, headers={"Location": "/there"}),
    "jsonify": lambda: jsonify(a=1, b=[1, 2]),
    "jsonify-status": lambda: make_response(jsonify(error="x"), 422),
    "make-response": lambda: make_response("x", 203, {"X-A": "1"}),
    "cookie": cookie,
    "redirect": lambda: flask.redirect("/elsewhere"),
    "abort": lambda: flask.abort(404),
    "abort-499": lambda: flask.abort(499),
    "abort-response": lambda: flask.abort(Response("own", status=409)),
    "stream": stream,
    "request": lambda: [flask.request.method, flask.request.path, flask.request.args["do"]],
    "g": lambda: [flask.g.setdefault("seen", 1), "other" in flask.g],
    "type": lambda: isinstance(flask.request, flask.Request) or type(flask.request).__name__,
    "werkzeug": werkzeug_response,
    "is-flask": lambda: isinstance(AMLResponse("x", 200), Response),
    "aml": lambda: AMLResponse("x", 200),
}


@rawhttp
def run(req):
    return DO[req.args["do"]]()
