"""User code on top of Flask, inference-schema, numpy and pandas, from an environment that has them."""

import json
from functools import partial

import pytest

JSON = "content-type: application/json"


@pytest.fixture
def serve(ready, equipped_python):
    return partial(ready, python=equipped_python)


NUMPY = """
    import numpy as np
    from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
    from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
    from inference_schema.schema_decorators import input_schema, output_schema

    def init():
        global weights
        weights = np.array([1.0, 2.0])

    @input_schema("data", NumpyParameterType(np.array([[1.5, 2.0]])))
    @input_schema("scale", StandardPythonParameterType(1.0))
    @output_schema(NumpyParameterType(np.array([5.5])))
    def run(data, scale, offset=0):
        return data @ weights * scale + offset
"""


def test_object_mode(serve):
    scorer = serve(NUMPY)

    def post(text: str, headers: str = JSON):
        reply = scorer.ask(text.encode(), headers=headers)
        return reply.status, json.loads(bytes(reply.body)), reply.flags

    assert (scorer.info["mode"], scorer.info["headers"]) == ("object", ["content-type"])
    assert scorer.info["arguments"] == ["data", "scale", "offset"]
    assert "Server will invoke it with the following arguments: data, scale, offset." in scorer.log
    assert post('{"data": [[1, 2], [3, 4]], "scale": 2}') == (200, [10.0, 22.0], 2)
    assert post('{"data": [[1, 2]], "scale": 1, "offset": 0.5, "extra": 1}') == (200, [5.5], 2)
    assert scorer.json(
        b'{"data": [[1, 2]], "scale": 1}', headers="Content-Type: application/x+json; charset=utf-8"
    ) == [5.0]
    assert scorer.json(method="GET", target="/score?data=[[1,2]]&scale=1") == [5.0]

    failed = {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
    assert post('{"data": [[1, 2, 3]], "scale": 1}') == (500, failed, 1)
    assert post('{"data": null, "scale": 1}') == (500, failed, 1)

    def refused(status: int, text: str):
        return status, {"message": text}, 0

    assert post('{"data": [[1, 2]]}') == refused(400, "A value is not provided for the 'scale' parameter.")
    assert post("") == refused(400, "POST body is empty. Expecting a JSON dictionary.")
    assert post("[1]") == refused(400, "POST body should be a JSON dictionary.")
    assert post("{1}") == refused(
        400,
        "POST body could not be decoded as JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    )
    assert post("", "content-type: text/plain") == refused(415, "Expects Content-Type to be application/json")
    assert post("{}", "") == refused(415, "Expects Content-Type to be application/json")
    missing = scorer.ask(method="GET")
    assert json.loads(bytes(missing.body)) == {"message": "A value is not provided for the 'data' parameter."}
    not_utf8 = scorer.ask(b'{"data": "\xff"}', headers=JSON)
    assert (not_utf8.status, not_utf8.flags) == (500, 0)
    assert b"internal error" in bytes(not_utf8.body)


def test_what_the_swagger_documents_need(serve):
    swagger = serve(NUMPY).info["swagger"]

    array = {"type": "array", "items": {"type": "number", "format": "double"}}
    assert swagger["versions"] == ["2.0", "3.0", "3.1"]
    assert swagger["input"]["example"] == {"data": [[1.5, 2.0]], "scale": 1.0, "offset": ""}
    assert swagger["input"]["properties"]["data"] == {"type": "array", "items": array, "format": "numpy.ndarray"}
    assert swagger["output"] == {**array, "format": "numpy.ndarray", "example": [5.5]}


def test_a_sample_of_megabytes_is_not_described(serve):
    """READY would be over its limit: the script is served all the same."""
    scorer = serve(NUMPY.replace("np.array([[1.5, 2.0]])", "np.full((200_000, 2), 0.123456789)"))
    assert scorer.info["swagger"]["input"] == {"type": "object", "example": {}}
    assert bytes(scorer.ask(b'{"data": [[1, 2]], "scale": 1}', headers=JSON).body) == b"[5.0]"


def test_raw_mode_and_a_schema_exclude_each_other(start, equipped_python):
    scorer = start(
        """
        from azureml.contrib.services.aml_request import rawhttp
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
        from inference_schema.schema_decorators import input_schema
        def init(): pass
        @rawhttp
        @input_schema("data", StandardPythonParameterType(1))
        def run(data): pass
        """,
        python=equipped_python,
    )

    assert "run() cannot be decorated with both @rawhttp and @input_schema" in scorer.info["message"]


def test_async_run_with_a_schema(serve):
    scorer = serve("""
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
        from inference_schema.schema_decorators import input_schema
        def init(): pass
        @input_schema("Inputs", StandardPythonParameterType({"data": [1]}))
        async def run(Inputs, GlobalParameters=None): return {"Results": [Inputs, GlobalParameters]}
    """)

    got = scorer.json(b'{"Inputs": {"data": [2]}, "GlobalParameters": null}', headers=JSON)
    assert got == {"Results": [{"data": [2]}, None]}
    assert scorer.info["swagger"]["output"] == {"type": "object"}


def test_results_of_numpy_and_pandas(serve):
    scorer = serve("""
        import json
        import numpy as np
        import pandas as pd
        def init(): pass
        RESULTS = {
            "array": np.arange(4, dtype="f4").reshape(2, 2),
            "scalars": [np.float64(1.5), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("s")],
            "empty": np.array([]),
            "zero_d": np.array(7),
            "dates": np.array(["2024-01-02", "NaT"], dtype="M8[ns]"),
            "date": np.datetime64("2024-01-02"),
            "delta": np.timedelta64(1500, "ms"),
            "records": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
            "objects": np.array([{"a": np.int8(1)}, None], dtype=object),
            "bytes": np.array([b"a"]),
            "frame": pd.DataFrame({"a": [1, 2], "b": ["x", None], 3: pd.to_datetime(["2024-01-02", None])}),
            "series": pd.Series([1.5, 2.5], index=["x", "y"]),
            "index": pd.Index(["x", "y"]),
            "stamp": pd.Timestamp("2024-01-02T03:04"),
            "missing": [pd.NaT, pd.NA],
            "keys": {np.int64(1): 2, pd.Timestamp("2024-01-02"): 3},
            "categories": pd.Series(["a", "b"], dtype="category"),
        }
        def run(name): return RESULTS[name]
    """)

    expected = {
        "array": [[0.0, 1.0], [2.0, 3.0]],
        "scalars": [1.5, 0.5, 3, True, "s"],
        "empty": [],
        "zero_d": 7,
        "dates": ["2024-01-02T00:00:00.000000000", None],
        "date": "2024-01-02",
        "delta": 1.5,
        "records": [{"a": 1, "b": 2.0}],
        "objects": [{"a": 1}, None],
        "bytes": ["a"],
        "frame": [{"a": 1, "b": "x", "3": "2024-01-02T00:00:00"}, {"a": 2, "b": None, "3": None}],
        "series": [1.5, 2.5],
        "index": ["x", "y"],
        "stamp": "2024-01-02T03:04:00",
        "missing": [None, None],
        "keys": {"1": 2, "2024-01-02T00:00:00": 3},
        "categories": ["a", "b"],
    }
    got = {name: scorer.json(name.encode()) for name in expected}
    got["frame"][1]["b"] = (
        got["frame"][1]["b"] if got["frame"][1]["b"] == got["frame"][1]["b"] else None
    )  # NaN, by version
    assert got == expected


RAW = """
    import flask
    from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse

    def init(): pass

    @rawhttp
    def run(request):
        assert isinstance(request, flask.Request)
        assert flask.request.path == request.path
        do = request.args.get("do")
        if do == "seen":
            return [request.method, request.url, request.remote_addr, request.headers["X-Y"], request.get_data(as_text=True),
                    request.json]
        if do == "jsonify": return flask.jsonify(a=1)
        if do == "abort": flask.abort(418)
        if do == "made": return flask.Response("made", 502, {"Set-Cookie": "a=1, b"})
        if do == "file":
            import io
            return flask.send_file(io.BytesIO(b"content"), mimetype="image/png")
        if do == "form": return [request.form["t"], request.files["f"].read().decode()]
        if do == "werkzeug":
            import werkzeug
            return werkzeug.Response("x")
        return AMLResponse("plain", 200)
"""


def test_raw_mode_with_flask(serve):
    scorer = serve(RAW)

    def ask(do: str, body: bytes = b"", **how: str):
        return scorer.ask(body, target=f"/score?do={do}", **how)

    seen = ask("seen", b'{"a": 1}', headers="host: h:1\nx-y: z\n" + JSON)
    assert json.loads(bytes(seen.body)) == ["POST", "http://h:1/score?do=seen", "1.2.3.4", "z", '{"a": 1}', {"a": 1}]

    made = ask("jsonify")
    assert (made.status, json.loads(bytes(made.body)), made.flags) == (200, {"a": 1}, 6)
    assert made.head == b"Content-Type: application/json"
    aborted = ask("abort")
    assert (aborted.status, aborted.flags) == (500, 1)
    broken = ask("made")
    assert (broken.status, bytes(broken.body)) == (502, b"made")
    assert set(broken.head.split(b"\n")) == {
        b"Content-Type: text/html; charset=utf-8",
        b"Set-Cookie: a=1, b",
        b"x-ms-run-function-failed: True",
    }
    assert bytes(ask("other").body) == b"plain"
    assert ask("werkzeug").status == 500
    upload = (
        b'--B\r\nContent-Disposition: form-data; name="t"\r\n\r\nx\r\n'
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n12345\r\n--B--\r\n'
    )
    form = ask("form", upload, headers="content-type: multipart/form-data; boundary=B")
    assert json.loads(bytes(form.body)) == ["x", "12345"]


def test_a_file_is_streamed(serve):
    scorer = serve(RAW)
    request = scorer.request(target="/score?do=file")

    scorer.send(request)
    (first,) = scorer.replies(1)
    scorer.control(6, request.id)
    (last,) = scorer.replies(1)

    assert (bytes(first.body), first.flags, last.flags) == (b"content", 6 | 8, 0)
    assert b"Content-Type: image/png" in first.head


def test_flask_outside_raw_mode(serve):
    scorer = serve("""
        from flask import jsonify, request
        def init(): pass
        def run(data): return jsonify(data=data, agent=request.headers.get("User-Agent"))
    """)

    assert scorer.info["headers"] == "all"
    reply = scorer.ask(b"x", headers="user-agent: me")
    assert json.loads(bytes(reply.body)) == {"data": "x", "agent": "me"}
    assert json.loads(bytes(scorer.ask(method="GET").body)) == {"data": "{}", "agent": None}
