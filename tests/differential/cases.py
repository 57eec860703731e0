"""What is sent to which script: batteries of requests, each battery to servers of its own.

A case is known as `<battery>/<case>`. The requests of a battery are sent in their order, each over its own connection.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from . import protocol_cases as protocol
from .servers import Setup
from .wire import Request, json_request, request, words

FLASK = "flask"
SCHEMA = "inference-schema"
NUMPY = "numpy"
PANDAS = "pandas"
MONITORING = "azureml-ai-monitoring"


@dataclass(frozen=True)
class Battery:
    """Requests for one script."""

    setup: Setup
    requests: dict[str, Request]
    compares_log: bool = False
    """Whether what the servers logged is a case of its own: `log`."""


def _text(*bodies: str) -> dict[str, Request]:
    return {body or "empty": request(body=body) for body in bodies}


def _json(bodies: dict[str, object]) -> dict[str, Request]:
    return {name: json_request(body if isinstance(body, str) else json.dumps(body)) for name, body in bodies.items()}


def _get(*queries: str, method: str = "GET") -> dict[str, Request]:
    return {f"{method}?{query}": request(method, f"/score?{query}") for query in queries}


def _raw(names: Iterable[str], method: str = "POST") -> dict[str, Request]:
    prefix = "" if method == "POST" else f"{method} "
    return {f"{prefix}{name}": request(method, f"/score?do={name}") for name in names}


def _echo(read: str, *headers: str, body: bytes | str = b"", target: str = "/score", method: str = "POST") -> Request:
    return request(method, target, body, [f"X-Read: {read}", *headers])


SWAGGER = MappingProxyType(
    {
        f"swagger {target}": request("GET", target)
        for target in (
            "/swagger.json",
            "/swagger.json?version=2",
            "/swagger.json?version=3",
            "/swagger.json?version=3.1",
        )
    }
)

STRING_RETURNS = words("""none dict empty-dict list empty-list tuple int big-int float exponents not-finite bool str json-str
    empty-str text-keys tuple-key key-order ordered-dict default-dict counter named-tuple str-subclass int-subclass int-enum
    surrogate large deep bytes bytes-not-text bytearray set decimal datetime date time timedelta uuid enum generator range
    deque dict-keys map object class function exception complex date-key nested-object circle too-deep""")
STRING_RAISES = words("""value-error own-error own-base-error assertion key-error stop-iteration memory-error recursion
    unicode-error timeout-error socket-timeout asyncio-timeout futures-timeout system-exit system-exit-3
    keyboard-interrupt generator-exit cancelled""")

STRING = (
    {f"return {name}": request(body=f"!{name}") for name in STRING_RETURNS}
    | {f"raise {name}": request(body=f"!{name}") for name in STRING_RAISES}
    | {"state kept": request(body="!calls")}
)

RAW_FORMS = words("""text empty unicode bytes bytearray none none-500 json json-string json-none json-content-type json-bad
    dict-not-json list list-of-int int object content-type-lower charset headers header-date header-latin header-wide
    header-newline header-name-newline header-name-space header-int header-length header-length-wrong header-request-id
    header-client-id header-version header-exec header-failed header-failed-500 header-cookies header-allow-origin failed
    failed-text status-202 status-204 status-304 status-400 status-404 status-418 status-499 status-500 status-503
    status-599 status-600 status-text status-text-bad status-none no-status stream stream-json stream-empty
    stream-empty-pieces stream-500 stream-204 stream-length stream-fails-at-once stream-fails-later stream-fails-exit
    stream-bad-piece iterable map plain-dict plain-none plain-str plain-bytes plain-tuple data set-headers attributes
    subclass raise missing""")

FLASK_FORMS = words("""response response-json response-500 response-204 response-304 response-headers response-location jsonify
    jsonify-status make-response cookie redirect abort abort-499 abort-response stream request g type werkzeug is-flask
    aml""")

MULTIPART = (
    b'--sep\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
    b'--sep\r\nContent-Disposition: form-data; name="a"\r\n\r\ntwo\r\n'
    b'--sep\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\nContent-Type: image/png\r\n\r\n\x00\xff\r\n'
    b'--sep\r\nContent-Disposition: form-data; name="t"; filename="t.txt"\r\n\r\nplain\r\n--sep--\r\n'
)
FORM_TYPE = "Content-Type: application/x-www-form-urlencoded"
MULTIPART_TYPE = "Content-Type: multipart/form-data; boundary=sep"
JSON_TYPE = "Content-Type: application/json"

ECHO = {
    "GET": _echo("method args path full_path url base_url query_string", method="GET", target="/score?a=1&b=&a=2&c"),
    "no query": _echo("args full_path url query_string"),
    "args": _echo("args-dict", target="/score?n=12&b=x+y%20z&b=2"),
    "args not UTF-8": _echo("args", target="/score?a=%ff%fe&%e9=1&b=%zz&c=%"),
    "args separators": _echo("args", target="/score?a=1;b=2&&=3&d=="),
    "headers": _echo("headers", "X-One: 1", "x-two: b", "X-One: 3", "X-9Lives: 1", "DNT: 1", "Content-Type: a/b"),
    "header": _echo("header", "X-One: 1"),
    "header underscore": _echo("headers", "X_Under: 1"),
    "header latin": _echo("headers", "X-Name: caf\xe9"),
    "header empty": _echo("headers", "X-Empty:"),
    "data": _echo("data get_data get_data-text get_data-twice content_length", body=b"abc \xc3\xa9"),
    "data not UTF-8": _echo("data get_data-text", body=b"\xff\xfe"),
    "data empty": _echo("data content_length mimetype content_type is_json"),
    "data of a form": _echo("data", FORM_TYPE, body="a=1"),
    "get_data of a form": _echo("get_data", FORM_TYPE, body="a=1"),
    "form": _echo("form form-get files values", FORM_TYPE, body="a=1&b=x+y&a=2&c=%C3%A9", target="/score?q=1"),
    "form not UTF-8": _echo("form", FORM_TYPE, body=b"a=%ff&b=\xff"),
    "form in text": _echo("form", "Content-Type: text/plain", body="a=1&b=2"),
    "multipart": _echo("form files", MULTIPART_TYPE, body=MULTIPART),
    "multipart data": _echo("data", MULTIPART_TYPE, body=MULTIPART),
    "multipart get_data": _echo("get_data", MULTIPART_TYPE, body=MULTIPART),
    "multipart without boundary": _echo("form files", "Content-Type: multipart/form-data", body=MULTIPART),
    "multipart cut": _echo("form files", MULTIPART_TYPE, body=MULTIPART[:100]),
    "json": _echo("json get_json is_json", JSON_TYPE, body='{"a": [1, null]}'),
    "json suffix": _echo("json", "Content-Type: application/problem+json; charset=utf-8", body="[1]"),
    "json bad": _echo("json", JSON_TYPE, body="{"),
    "json empty": _echo("json", JSON_TYPE),
    "json wrong type": _echo("json", "Content-Type: text/plain", body="{}"),
    "json no type": _echo("json", body="{}"),
    "json force": _echo("get_json-force", "Content-Type: text/plain", body='{"a": 1}'),
    "json silent": _echo("get_json-silent", JSON_TYPE, body="{"),
    "json silent wrong type": _echo("get_json-silent", "Content-Type: text/plain", body="{}"),
    "json UTF-16": _echo("json", JSON_TYPE, body='{"a": 1}'.encode("utf-16")),
    "path": _echo("path url base_url", target="//sc%6fre?x=%20"),
    "host": _echo("host host_url scheme is_secure remote_addr"),
    "absolute target": _echo("host path url", target="http://other.example:8080/score?a=1"),
    "forwarded": _echo("url scheme is_secure remote_addr", "X-Forwarded-Proto: https", "X-Forwarded-For: 9.9.9.9"),
    "forwarded ssl": _echo("scheme", "X-Forwarded-Ssl: on"),
    "cookies": _echo("cookies", 'Cookie: a=1; b="two"; c=3=4; a=5'),
    "stream": _echo("stream", body="all of it"),
    "stream part": _echo("stream-part", body="all of it"),
    "stream after data": _echo("data stream", body="x"),
    "content type": _echo("content_type mimetype", 'Content-Type: Text/HTML; Charset="UTF-8"; x=1', body="x"),
    "OPTIONS": _echo("method data", method="OPTIONS"),
    "OPTIONS body": _echo("method data", method="OPTIONS", body="abc"),
    "GET body": _echo("method data", method="GET", body="abc"),
    "no such attribute": _echo("nothing"),
}

STANDARD = _json(
    {
        "empty object": {},
        "all": {
            "text": "t",
            "number": 2,
            "ratio": 1.5,
            "flag": True,
            "items": [4],
            "record": {"c": 1},
            "blob": "YWJj",
            "moment": "2020-02-03T04:05:06Z",
            "plain": {"x": 1},
        },
        "extra key": {"text": "t", "unknown": 1},
        "null": {"text": None},
        "null untyped": {"plain": None},
        "int for text": {"text": 1},
        "float for int": {"number": 1.5},
        "text for int": {"number": "1"},
        "bool for int": {"number": True},
        "int for float": {"ratio": 1},
        "text for float": {"ratio": "1.5"},
        "int for bool": {"flag": 1},
        "text for list": {"items": "1"},
        "list of text": {"items": ["a"]},
        "empty list": {"items": []},
        "list for object": {"record": []},
        "blob not base64": {"blob": "!!"},
        "blob int": {"blob": 1},
        "moment": {"moment": "2020-02-03 04:05"},
        "moment bad": {"moment": "yesterday"},
        "request_headers": {"request_headers": 1, "self": 2},
        "array": [1],
        "number": "5",
        "text": '"x"',
        "null body": "null",
        "empty": "",
        "blank": "  ",
        "not JSON": "{'a': 1}",
        "cut": '{"a": ',
        "trailing": '{"a": 1} x',
        "NaN": '{"ratio": NaN, "plain": -Infinity}',
        "duplicate keys": '{"text": "first", "text": "second"}',
        "big int": '{"number": 123456789012345678901234567890}',
        "surrogate": '{"text": "\\ud800"}',
        "deep": '{"plain": ' + "[" * 200 + "]" * 200 + "}",
    }
) | {
    "no content type": request(body='{"text": "t"}'),
    "no content type, empty": request(),
    "text content type": request(body='{"text": "t"}', content_type="text/plain"),
    "charset": request(body='{"text": "t"}', content_type="application/json; charset=utf-8"),
    "charset latin": request(
        body='{"text": "\xe9"}'.encode("latin-1"), content_type="application/json;charset=latin-1"
    ),
    "upper content type": request(body='{"text": "t"}', content_type="APPLICATION/JSON"),
    "suffix": request(body='{"text": "t"}', content_type="application/vnd.api+json"),
    "suffix text": request(body='{"text": "t"}', content_type="text/x+json"),
    "jsonp": request(body='{"text": "t"}', content_type="application/jsonp"),
    "form content type": request(body='{"text": "t"}', content_type="application/x-www-form-urlencoded"),
    "two content types": request(
        body='{"text": "t"}', headers=["Content-Type: text/plain", "Content-Type: application/json"]
    ),
    "content type comma": request(body='{"text": "t"}', content_type="application/json, text/plain"),
    "empty content type": request(body='{"text": "t"}', content_type=""),
    "UTF-8 BOM": json_request(b"\xef\xbb\xbf{}"),
    "UTF-16": json_request('{"text": "\u00e9"}'.encode("utf-16")),
    "UTF-32": json_request('{"text": "\u00e9"}'.encode("utf-32")),
    "not UTF-8": json_request(b'{"text": "\xff"}'),
    "query ignored": json_request('{"text": "t"}', target="/score?text=q"),
    "GET typed": request("GET", "/score?text=%22quoted%22&number=3&ratio=1e3&flag=true&items=[1,2]&plain=a&plain=b"),
    "GET number for text": request("GET", "/score?text=10"),
    "GET nothing": request("GET", "/score"),
    "GET with body": request("GET", "/score", b'{"text": "t"}', [JSON_TYPE]),
    "HEAD": request("HEAD", "/score"),
    "OPTIONS": request("OPTIONS", "/score"),
    "PUT": request("PUT", "/score", b"{}", [JSON_TYPE]),
}

REQUIRED = _json(
    {
        "all": {"first": "a", "second": {"k": 2}, "third": 3, "fourth": 5},
        "default": {"first": "a", "second": {"k": 2}, "third": 3},
        "optional empty": {"first": "a", "second": {}, "third": 3},
        "optional null": {"first": "a", "second": None, "third": 3},
        "optional missing": {"first": "a", "third": 3},
        "undecorated missing": {"first": "a", "second": {"k": 2}},
        "nothing": {},
        "raise": {"first": "!raise", "second": {"k": 2}, "third": 3},
        "hugging face": {"first": {"parameters": 1, "input_string": ["x"]}, "second": {}, "third": 3},
    }
) | _get("first=%22a%22&third=1&second={%22k%22:1}", "first=a", "")

BATTERIES: dict[str, Battery] = {
    "log": Battery(
        Setup("prints.py"),
        _text("x", "raise", "log", "lines", "write")
        | {
            "not UTF-8": request(body=b"\xff"),
            "GET": request("GET", "/score?a=1"),
            "404": request("GET", "/nope"),
            "405": request("PUT", "/score"),
            "health": request("GET", "/"),
            "swagger": request("GET", "/swagger.json?version=9"),
            "deprecated id": request(body="x", headers=["x-ms-request-id: A"]),
            "long id": request(body="x", headers=["x-request-id: " + "a" * 101]),
        },
        compares_log=True,
    ),
    "string": Battery(Setup("string.py"), STRING),
    "protocol": Battery(Setup("string.py"), protocol.ROUTES | protocol.IDS | protocol.QUERIES | protocol.BODIES),
    "transport": Battery(Setup("string.py"), protocol.TRANSPORT),
    "string_headers": Battery(
        Setup("string_headers.py"),
        {
            "POST": request(
                body="x", headers=["Test-Header: 1", "x-lower: a", "X-9Lives: b", "DNT: 1", "TE: trailers"]
            ),
            "repeated": request(body="x", headers=["X-A: 1", "X-A: 2", "x-a: 3", "Cookie: a=1", "Cookie: b=2"]),
            "underscore": request(body="x", headers=["X_Under: 1"]),
            "latin": request(body="x", headers=["X-Name: caf\xe9"]),
            "content type": request(body="x", content_type="application/json; charset=utf-8"),
            "GET": request("GET", "/score?a=1", headers=["X-A: 1"]),
            "OPTIONS": request("OPTIONS", "/score"),
            "chunked": Request(
                b"POST /score HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            "expect": Request(b"POST /score HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"),
            "forwarded": request(body="x", headers=["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Via: x"]),
            "authorization": request(body="x", headers=["Authorization: Bearer abc", "Proxy-Authorization: x"]),
            "spaces": request(body="x", headers=["X-A:   padded\t ", "X-B:none"]),
        },
    ),
    "string_defaults": Battery(Setup("string_defaults.py"), _text("x", "") | _get("extra=1&keyword=2")),
    "string_two": Battery(Setup("string_two.py"), _text("x") | _get("extra=1")),
    "keyword_only": Battery(Setup("keyword_only.py"), _text("x")),
    "callable": Battery(Setup("callable.py"), _text("x", "\u00e9")),
    "asynchronous": Battery(Setup("asynchronous.py"), _text("x", "!raise")),
    "slow": Battery(
        Setup("slow.py", {"SCORING_TIMEOUT_MS": "200"}),
        _text("sleep", "quick", "busy", "swallow", "finally", "c-code", "own", "none"),
    ),
    "driver": Battery(
        Setup(
            "driver.py",
            files={
                "real_score.py": "def init():\n    global ready\n    ready = 1\n\n\ndef run(x):\n    return [ready, x]\n"
            },
        ),
        _text("x"),
    ),
    "sibling": Battery(
        Setup(
            "sibling.py",
            files={
                "my_helper.py": "NAME = 'helper'\n",
                "my_package/__init__.py": "",
                "my_package/inner.py": "NAME = 'inner'\n",
                "beside.txt": "beside",
            },
        ),
        _text("x"),
    ),
    "exits": Battery(Setup("exits.py"), _text("alive", "exit", "alive again", "kill", "alive at last")),
    "cors list": Battery(
        Setup("string.py", {"AML_CORS_ORIGINS": "https://b.example, https://a.example"}), protocol.CORS
    ),
    "cors any": Battery(Setup("string.py", {"AML_CORS_ORIGINS": "*"}), protocol.CORS),
    "cors one": Battery(Setup("string.py", {"AML_CORS_ORIGINS": "https://a.example"}), protocol.CORS),
    "cors pattern": Battery(Setup("string.py", {"AML_CORS_ORIGINS": r"https://.*\.example"}), protocol.CORS),
    "named": Battery(
        Setup(
            "string.py",
            {
                "SERVICE_NAME": "My service é",
                "SERVICE_VERSION": "7",
                "SERVICE_PATH_PREFIX": "/api/v1/",
                "SERVER_VERSION_LOG_RESPONSE_ENABLED": "false",
            },
        ),
        dict(SWAGGER)
        | {
            "score": request(body="x"),
            "health": request("GET", "/"),
            "with prefix": request(target="/api/v1/score", body="x"),
        },
    ),
    "version header": Battery(
        Setup("string.py", {"SERVER_VERSION_LOG_RESPONSE_ENABLED": "no", "HTTP_X_MS_SERVER_VERSION": "own/1"}),
        {"score": request(body="x")},
    ),
    "own swagger": Battery(
        Setup(
            "string.py",
            files={
                "swagger.json": '{"swagger": "2.0", "mine": 1.50}',
                "swagger3.json": "[1,2]",
                "swagger3.1.json": "{}",
            },
        ),
        dict(SWAGGER),
    ),
    "own swagger 2": Battery(Setup("string.py", files={"swagger2.json": '{"mine":"\u00e9"}'}), dict(SWAGGER)),
    "schema_standard": Battery(Setup("schema_standard.py", needs=(SCHEMA,)), STANDARD | SWAGGER),
    "schema_required": Battery(Setup("schema_required.py", needs=(SCHEMA,)), REQUIRED | SWAGGER),
    "schema_headers": Battery(
        Setup("schema_headers.py", needs=(SCHEMA,)),
        {
            "POST": json_request('{"data": [1]}', "test-header: a"),
            "in body": json_request('{"data": [1], "request_headers": {"Content-Type": "body"}}'),
        }
        | SWAGGER,
    ),
    "schema_output_only": Battery(
        Setup("schema_output_only.py", needs=(SCHEMA,)),
        _json({"object": {"data": 1}, "both": {"data": [1], "more": "x"}, "missing": {}, "array": [1]})
        | _get("data=1", "")
        | SWAGGER,
    ),
    "schema_mixed": Battery(
        Setup("schema_mixed.py", needs=(SCHEMA,)),
        _json(
            {
                "mixed": {"mixed": [1, "b"]},
                "day": {"day": "2020-02-03"},
                "clock": {"clock": "01:02:03"},
                "pair": {"pair": [1, 2]},
                "span": {"span": [1]},
                "nothing": {},
            }
        )
        | SWAGGER
        | {
            f"swagger {version}": request("GET", f"/swagger.json?version={version}")
            for version in ("2.0", "3.0", "4", "x", "", "3.1.0", "3&version=2", "%33", "2%20")
        },
    ),
    "schema_nested": Battery(
        Setup("schema_nested.py", needs=(SCHEMA, NUMPY, PANDAS)),
        _json(
            {
                "all": {
                    "inputs": {
                        "frame": [{"name": "x", "value": 3}],
                        "array": [[1, 2]],
                        "plain": "p",
                        "loose": [1],
                        "extra": 1,
                    },
                    "arrays": [[1, 2], [3]],
                },
                "missing key": {"inputs": {"plain": "p"}},
                "not an object": {"inputs": [1]},
                "bad frame": {"inputs": {"frame": 5}},
                "no arrays": {"inputs": {}, "arrays": []},
            }
        )
        | SWAGGER,
    ),
    "sklearn_numpy": Battery(
        Setup(
            "sklearn_numpy.py",
            {"AZUREML_MODEL_DIR": "models"},
            {"models/model/ridge.json": '{"coefficients": [1.5, -2.0, 0.25, 10], "intercept": 0.1}'},
            (SCHEMA, NUMPY),
        ),
        _json(
            {
                "one row": {"data": [[1, 2, 3, 4]]},
                "rows": {"data": [[1, 2, 3, 4], [10, 9, 8, 7.5]]},
                "no rows": {"data": []},
                "flat": {"data": [1, 2, 3, 4]},
                "wide": {"data": [[1, 2, 3, 4, 5]]},
                "ragged": {"data": [[1, 2, 3, 4], [1]]},
                "text": {"data": [["a", "b", "c", "d"]]},
                "numbers as text": {"data": [["1", "2", "3", "4"]]},
                "null": {"data": None},
                "null inside": {"data": [[None, 2, 3, 4]]},
                "object": {"data": {"a": 1}},
                "missing": {"Data": [[1, 2, 3, 4]]},
                "NaN": '{"data": [[NaN, 2, 3, 4]]}',
            }
        )
        | _get("data=[[1,2,3,4]]")
        | SWAGGER,
    ),
    "sklearn_array": Battery(
        Setup("sklearn_array.py", needs=(SCHEMA, NUMPY)),
        _json(
            {
                name: {"data": [[kind, 2], [3, 4]]}
                for kind, name in enumerate(
                    ("array", "sum", "float64", "float32", "bool", "inside", "key", "items", "dtype")
                )
            }
        )
        | _json({"other shape": {"data": [[8]]}, "floats": {"data": [[8.9, 1]]}})
        | SWAGGER,
    ),
    "pandas_frame": Battery(
        Setup("pandas_frame.py", needs=(SCHEMA, NUMPY, PANDAS)),
        _json(
            {
                "row": {"data": [{"age": 1, "workclass": "w", "hours": 2.5, "member": False}]},
                "rows": {"data": [{"age": i, "workclass": "w", "hours": 1, "member": True} for i in range(3)]},
                "renamed": {"data": [{"AGE": 1, "workclass": "w", "hours": 2.5, "member": False}]},
                "missing column": {"data": [{"age": 1, "workclass": "w", "hours": 2.5}]},
                "extra column": {"data": [{"age": 1, "workclass": "w", "hours": 2.5, "member": True, "x": 1}]},
                "no rows": {"data": []},
                "object": {"data": {"age": [1], "workclass": ["w"], "hours": [2.5], "member": [True]}},
                "text": {"data": "x"},
                "float for int": {"data": [{"age": 1.5, "workclass": "w", "hours": 2.5, "member": False}]},
                "text for int": {"data": [{"age": "x", "workclass": "w", "hours": 2.5, "member": False}]},
                "frame returned": {"data": [{"age": -1, "workclass": "w", "hours": 2.5, "member": False}]},
            }
        )
        | SWAGGER,
    ),
    "pandas_split": Battery(
        Setup("pandas_split.py", needs=(SCHEMA, PANDAS)),
        _json(
            {
                "split": {"data": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, "x"], [2, "y"]]}},
                "records": {"data": [{"a": 1, "b": "x"}]},
                "no index": {"data": {"columns": ["a", "b"], "data": [[1, "x"]]}},
            }
        )
        | SWAGGER,
    ),
    "automl": Battery(
        Setup("automl.py", needs=(SCHEMA, NUMPY, PANDAS)),
        _json(
            {
                "predict": {"Inputs": {"data": [{"age": 60, "job": "a"}, {"age": 20, "job": "b"}]}},
                "proba": {
                    "Inputs": {"data": [{"age": 60, "job": "a"}]},
                    "GlobalParameters": {"method": "predict_proba"},
                },
                "bad method": {"Inputs": {"data": [{"age": 60, "job": "a"}]}, "GlobalParameters": {"method": "x"}},
                "text parameters": {"Inputs": {"data": [{"age": 60, "job": "a"}]}, "GlobalParameters": 1.0},
                "no inputs": {"GlobalParameters": {"method": "predict"}},
                "lower case": {"inputs": {"data": []}},
            }
        )
        | SWAGGER,
    ),
    "powerbi": Battery(
        Setup("powerbi.py", needs=(SCHEMA, NUMPY, PANDAS)),
        _json({"row": {"data": [{"a": 1}]}, "other": {"data": [{"b": 1}]}, "none": {"data": []}}),
    ),
    "custom_type": Battery(
        Setup("custom_type.py", needs=(SCHEMA,)),
        _json({"number": {"temperature": 100}, "text": {"temperature": "0"}, "bad": {"temperature": "warm"}}) | SWAGGER,
    ),
    "raw": Battery(
        Setup("raw.py"),
        _raw(RAW_FORMS)
        | _raw(("text", "json", "stream", "none", "raise", "status-500", "plain-dict"), "GET")
        | _raw(("text", "json", "headers", "stream", "raise", "status-204", "plain-dict"), "HEAD")
        | _raw(("text", "json", "status-204", "plain-dict"), "OPTIONS")
        | {
            "ids": request("POST", "/score?do=header-request-id", headers=["x-request-id: A", "x-ms-request-id: B"]),
            "HTTP/1.0": request("POST", "/score?do=text", version="1.0"),
            "HTTP/1.0 stream": request("POST", "/score?do=stream", version="1.0"),
        }
        | {f"{method} not for run": request(method, "/score?do=text") for method in ("PUT", "DELETE", "PATCH", "BREW")}
        | SWAGGER,
    ),
    "raw_old_names": Battery(Setup("raw_old_names.py"), {m: request(m, "/score") for m in ("GET", "POST", "OPTIONS")}),
    "raw_echo": Battery(Setup("raw_echo.py"), ECHO),
    "raw_flask": Battery(
        Setup("raw_flask.py", needs=(FLASK,)), _raw(FLASK_FORMS) | _raw(("response", "stream"), "HEAD")
    ),
    "raw_cors": Battery(
        Setup("raw.py", {"AML_CORS_ORIGINS": "https://a.example,https://b.example"}),
        {
            f"{method} {name}": request(method, f"/score?do={name}", headers=["Origin: https://b.example"])
            for method in ("GET", "POST", "OPTIONS")
            for name in ("text", "header-allow-origin", "raise", "stream")
        },
    ),
    "raw_image": Battery(
        Setup("raw_image.py"),
        {
            "GET": request("GET", "/score"),
            "POST": request(body=b"\x89PNG\r\n\x1a\n\x00\x01\x02\xff", content_type="image/png"),
            "large": request(
                body=b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4000, content_type="application/octet-stream"
            ),
            "wrong": request(body=b"GIF89a", content_type="image/gif"),
            "OPTIONS": request("OPTIONS", "/score", headers=["Origin: https://app.example"]),
            "file": request(
                body=b'--b\r\nContent-Disposition: form-data; name="image"; filename="i.png"\r\n'
                b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n\r\n\x00\r\n--b--\r\n",
                content_type="multipart/form-data; boundary=b",
            ),
        },
    ),
    "mlflow_like": Battery(
        Setup("mlflow_like.py", needs=(SCHEMA, PANDAS, MONITORING)),
        _json(
            {
                "rows": {"input_data": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, 2], [3, 4.5]]}},
                "params": {"input_data": {"columns": ["a"], "data": [[1]]}, "params": {"x": 1}},
                "bad": {"input_data": {"columns": ["a"], "data": [[1, 2]]}},
                "missing": {},
            }
        )
        | SWAGGER,
    ),
}
