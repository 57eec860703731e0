"""Bodies that are wrong, on real HTTP, while good requests run beside them."""

import json
import threading
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import onnxruntime
import pytest

MAX_BODY_BYTES = 1_000_000
DEPTH = 100_000


class GoodRequests:
    """Asks good questions all the time, on connections of its own, and keeps what was wrong."""

    def __init__(self, server: Any, path: Path) -> None:
        generator = np.random.default_rng(5)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._questions = []
        for _ in range(50):
            rows = generator.uniform(0, 8, (int(generator.integers(1, 4)), 4)).round(2).astype(np.float32)
            label, probabilities = session.run(None, {"X": rows})
            self._questions.append((rows.tolist(), label.tolist(), probabilities))
        self.answered = 0
        self.wrong: list[BaseException] = []
        self._stopping = False
        self._url = f"http://127.0.0.1:{server.port}/score"
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not self._stopping:
                for rows, label, probabilities in self._questions:
                    try:
                        outputs = client.post(self._url, json={"data": rows}).json()["outputs"]
                        assert outputs["label"] == label
                        np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-5, atol=1e-6)
                    except BaseException as error:
                        self.wrong.append(error)
                        raise
                    self.answered += 1


@pytest.fixture(scope="module")
def server(serve, trained):
    with serve(trained.iris, "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server
        assert server.log.count("is ready.") == 1  # no scorer was restarted


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def good_requests(server, trained):
    with GoodRequests(server, trained.iris) as good:
        yield good
    assert not good.wrong


@pytest.fixture
def unharmed(good_requests, wait_until):
    """While the test runs, and for some requests after it, good requests are answered rightly."""
    before = good_requests.answered
    wait_until(lambda: good_requests.answered > before or good_requests.wrong)
    yield
    after = good_requests.answered
    wait_until(lambda: good_requests.answered >= after + 5 or good_requests.wrong)
    assert not good_requests.wrong


ROW = "[5.1, 3.5, 1.4, 0.2]"
BODIES = {
    "empty": (b"", "the body is empty"),
    "spaces": (b"  \n", "the body is empty"),
    "not UTF-8": (b'{"data": "\xff\xfe"}', "the body is not UTF-8: byte 0xff at offset 10"),
    "UTF-16": (f'{{"data": [{ROW}]}}'.encode("utf-16"), "the body is not UTF-8"),
    "not JSON": (b"hello", "the body is not JSON"),
    "JSON cut short": (b'{"data": [[5.1, 3.5', "the body is not JSON"),
    "two documents": (f'{{"data": [{ROW}]}}'.encode() * 2, "the body is not JSON"),
    "no object": (b"[1, 2]", "no object"),
    "a word": (b"null", "no object"),
    "unknown field": (f'{{"input": [{ROW}]}}'.encode(), "'input'"),
    "unknown input": (f'{{"inputs": {{"Y": [{ROW}]}}}}'.encode(), "'Y'"),
    "both forms": (f'{{"data": [{ROW}], "inputs": {{}}}}'.encode(), "the fields 'data', 'inputs'"),
    "text for numbers": (b'{"data": [["a", "b", "c", "d"]]}', '"a" at [0][0]'),
    "booleans for numbers": (b'{"data": [[true, false, true, false]]}', "true at [0][0]"),
    "null for a number": (b'{"data": [[1, 2, 3, null]]}', "null at [0][3]"),
    "object for a row": (b'{"data": [{"a": 1}]}', "object at [0]"),
    "a number for everything": (b'{"data": 5}', "float32 [?, 4]"),
    "rank 1": (f'{{"data": {ROW}}}'.encode(), "float32 [?, 4]"),
    "rank 3": (f'{{"data": [[{ROW}]]}}'.encode(), "float32 [?, 4]"),
    "too few columns": (b'{"data": [[1, 2, 3]]}', "float32 [?, 4]"),
    "too many columns": (b'{"data": [[1, 2, 3, 4, 5]]}', "float32 [?, 4]"),
    "ragged": (f'{{"data": [{ROW}, [1, 2]]}}'.encode(), "a ragged list: lists of length 2 and 4 on axis 1"),
    "ragged below": (b'{"data": [[1, 2, 3, [4]]]}', "a ragged list that mixes integer and list on axis 2"),
    "NaN": (b'{"data": [[NaN, 1, 1, 1]]}', "JSON has no NaN and no Infinity"),
    "Infinity": (b'{"data": [[1, Infinity, 1, 1]]}', "JSON has no NaN and no Infinity"),
    "-Infinity": (b'{"data": [[1, -Infinity, 1, 1]]}', "JSON has no NaN and no Infinity"),
    "brackets": (b'{"data": ' + b"[" * DEPTH + b"]" * DEPTH + b"}", "depth limit exceeded"),
    "brackets that never close": (b"[" * DEPTH, "depth limit exceeded"),
    "braces": (b'{"data":' * DEPTH + b"1" + b"}" * DEPTH, "depth limit exceeded"),
    "number above float32": (b'{"data": [[1e39, 1, 1, 1]]}', "1e+39 at [0][0], which is out of range"),
    "number above float64": (b'{"data": [[1e999, 1, 1, 1]]}', "number is infinity"),
    "number of 5,000 digits": (b'{"data": [[' + b"9" * 5000 + b", 1, 1, 1]]}", "number is infinity"),
    "large and ragged": (f'{{"data": [{", ".join([ROW] * 500)}, [1]]}}'.encode(), "a ragged list"),
    "large with a text": (f'{{"data": [{", ".join([ROW] * 500)}, [1, 2, 3, "4"]]}}'.encode(), '"4" at [500][3]'),
    "large and cut short": (f'{{"data": [{", ".join([ROW] * 500)}'.encode(), "the body is not JSON"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_refused_alone(name, client, unharmed):
    body, says = BODIES[name]

    response = client.post("/score", content=body)

    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    message = response.json()["message"]
    assert says in message
    assert len(message) < 1000  # it does not send back what it was sent


def test_a_message_names_input_expected_and_given(client, unharmed):
    message = client.post("/score", content=b'{"data": [["a", 1, 2, 3]]}').json()["message"]
    assert "'X'" in message
    assert "float32 [?, 4]" in message
    assert "a" in message.partition("float32 [?, 4]")[2]


def test_wrong_bodies_in_one_batch_with_good_ones(server, client, unharmed):
    """All of them at once, from 16 connections, good ones between them: each gets its own answer."""
    good = f'{{"data": [{ROW}]}}'.encode()
    expected = client.post("/score", content=good).json()
    failures = []

    def ask(number):
        with httpx.Client(trust_env=False, timeout=60) as own:
            for body, _ in list(BODIES.values())[number % 4 :: 4]:
                bad = own.post(f"http://127.0.0.1:{server.port}/score", content=body)
                fine = own.post(f"http://127.0.0.1:{server.port}/score", content=good)
                if bad.status_code != 400 or fine.json() != expected:
                    failures.append((body[:80], bad.status_code, fine.text))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_zero_rows_are_an_answer_or_a_refusal(client, unharmed):
    response = client.post("/score", content=b'{"data": []}')
    assert response.status_code in (200, 400)
    assert isinstance(response.json(), dict)


def test_a_body_over_the_limit(client, unharmed):
    just_fits = b'{"data": [[1,2,3,4]]}'.ljust(MAX_BODY_BYTES)
    assert client.post("/score", content=just_fits).status_code == 200

    response = client.post("/score", content=just_fits + b" ")

    assert response.status_code == 413
    assert response.json() == {"message": f"The request body is larger than {MAX_BODY_BYTES} bytes."}
    assert response.headers["connection"] == "close"


def test_a_chunked_body_over_the_limit(client, unharmed):
    pieces = (b" " * 65536 for _ in range(MAX_BODY_BYTES // 65536 + 1))
    assert client.post("/score", content=pieces).status_code == 413


def test_a_chunked_body(client, unharmed):
    pieces = (bytes([byte]) for byte in f'{{"data": [{ROW}]}}'.encode())
    assert client.post("/score", content=pieces).json()["outputs"]["label"] == [0]


def test_an_int64_model_keeps_every_digit_and_refuses_what_does_not_fit(serve, build, tmp_path):
    from onnx import TensorProto, helper

    declared = (TensorProto.INT64, ["N"])
    model = build([helper.make_node("Identity", ["x"], ["y"])], {"x": declared}, {"y": declared})
    (tmp_path / "same.onnx").write_bytes(model.SerializeToString())
    with serve(tmp_path / "same.onnx") as server:
        extremes = [2**63 - 1, -(2**63), 2**53 + 1, 0]
        assert server.score({"data": extremes}).json == {"outputs": {"y": extremes}}
        for text in (str(2**63), str(-(2**63) - 1), "1e3", "1.5", "1" * 400):
            answer = server.score(b'{"data": [%b]}' % text.encode())
            assert answer.status == 400
            assert "int64" in answer.json["message"] or "JSON" in answer.json["message"]


def test_a_script_gets_text_and_what_is_no_text_is_refused(serve, script):
    good = "import json\ndef init(): pass\ndef run(text): return [len(text), json.loads(text) if text else None]\n"
    internal = {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
    with serve(script(good)) as server:
        assert server.score(b"").json == [0, None]
        refused = server.score(b'"\xff"')
        assert refused.status == 400
        assert refused.json["message"].startswith("Input cannot be decoded as UTF-8: ")
        for body in (b"hello", b"[" * DEPTH):
            failed = server.score(body)
            assert (failed.status, failed.json) == (500, internal)
        assert server.score(json.dumps("Zürich").encode()).json == [13, "Zürich"]
        assert server.log.count("is ready.") == 1
