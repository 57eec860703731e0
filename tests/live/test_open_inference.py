"""The Open Inference Protocol, as its most used client speaks it, against real models."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
import ml_dtypes
import numpy as np
import onnxruntime
import psutil
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

CLIENTS = 32
ASKED_EACH = 6

DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(string)": "BYTES",
    "tensor(bool)": "BOOL",
}


def direct(path: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def request_inputs(session: Any, feed: dict[str, Any], *, binary: bool) -> list[Any]:
    inputs = []
    for declared in session.get_inputs():
        array = np.asarray(feed[declared.name])
        one = triton.InferInput(declared.name, list(array.shape), DATATYPES[declared.type])
        one.set_data_from_numpy(array, binary_data=binary)
        inputs.append(one)
    return inputs


def texts(array: Any) -> Any:
    """BYTES come back as bytes from binary outputs, as text from JSON."""
    plain = [text.decode() if isinstance(text, bytes) else text for text in array.ravel()]
    return np.array(plain, object).reshape(array.shape)


def assert_equal(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape
    if expected.dtype.kind == "f":
        largest = float(np.abs(expected).max(initial=0))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * largest)
    elif expected.dtype.kind in "OU":
        assert texts(got).tolist() == expected.tolist()
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["iris", "topics", "minilm", "orientation", "magika", "squeezenet", "silero"])
def test_32_clients_of_every_form_each_get_their_own_direct_run(name, real_model, serve):
    model = real_model(name)
    generator = np.random.default_rng(5)
    most_rows = 1 if name in ("orientation", "magika") else model.most_rows  # those take 10 ms a row
    asked_each = 2 if name in ("orientation", "magika", "squeezenet") else ASKED_EACH
    session = direct(model.path)
    names = [output.name for output in session.get_outputs()]
    work = [
        [model.make(generator, int(generator.integers(1, most_rows + 1))) for _ in range(asked_each)]
        for _ in range(CLIENTS)
    ]

    def ask(number: int) -> list[Any]:
        """Every other client asks in JSON, every fourth for all outputs in JSON."""
        answers = []
        try:
            with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
                for feed in work[number]:
                    inputs = request_inputs(session, feed, binary=number % 2 == 0)
                    outputs = [triton.InferRequestedOutput(each, binary_data=number % 4 > 1) for each in names]
                    answers.append(
                        client.infer(
                            model.path.stem, inputs, outputs=outputs if number % 3 else None, request_id=str(number)
                        )
                    )
        finally:
            gevent.get_hub().destroy(destroy_loop=True)  # each thread has one, whose descriptors nobody else closes
        return answers

    before = psutil.Process().num_fds()
    with serve(model.path) as server, ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    assert psutil.Process().num_fds() <= before
    for number, feeds in enumerate(work):
        for feed, answer in zip(feeds, answers[number], strict=True):
            assert answer.get_response()["id"] == str(number)
            assert answer.get_response()["model_name"] == model.path.stem
            assert [output["name"] for output in answer.get_response()["outputs"]] == names
            for each, expected in zip(names, session.run(names, feed), strict=True):
                assert_equal(answer.as_numpy(each), expected)


TYPES = {
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "BOOL": (TensorProto.BOOL, np.bool_),
    "BYTES": (TensorProto.STRING, np.object_),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("types", [sorted(TYPES.keys() - {"BF16"}), ["BF16", "FP32"]], ids=["numpy's", "BF16"])
def test_every_type(types, build, serve, tmp_path):
    """A model of an input of each type, which gives all of them back."""
    model = build(
        [helper.make_node("Identity", [name], [name + "_out"]) for name in types],
        {name: (TYPES[name][0], ["N", 2]) for name in types},
        {name + "_out": (TYPES[name][0], ["N", 2]) for name in types},
    )
    path = tmp_path / "everything.onnx"
    path.write_bytes(model.SerializeToString())
    arrays: dict[str, Any] = {}
    for name in types:
        dtype = TYPES[name][1]
        values: Any = ["é", "\0"] if name == "BYTES" else [True, False] if name == "BOOL" else [0, 3.5]
        if np.dtype(dtype).kind in "iu":
            values = [np.iinfo(dtype).min, np.iinfo(dtype).max]
        arrays[name] = np.array([values], dtype)
    halves = ("FP16", "BF16")
    with serve(path) as server, triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        for binary in (True, False):
            inputs = []
            outputs = []
            for name, array in arrays.items():
                one = triton.InferInput(name, [1, 2], name)
                one.set_data_from_numpy(array, binary_data=binary or name in halves)
                inputs.append(one)
                outputs.append(triton.InferRequestedOutput(name + "_out", binary_data=binary or name in halves))
            answer = client.infer("everything", inputs[::-1], outputs=outputs, model_version="1")
            assert [each["name"] for each in answer.get_response()["outputs"]] == [name + "_out" for name in types]
            for name, array in arrays.items():
                got = answer.as_numpy(name + "_out")
                assert_equal(got, array) if name != "BF16" else assert_equal(got.astype("f4"), array.astype("f4"))
                assert answer.get_output(name + "_out")["datatype"] == name
        one = triton.InferInput(types[0], [1, 2], "INT64")
        one.set_data_from_numpy(np.zeros((1, 2), np.int64))
        with pytest.raises(
            InferenceServerException, match=rf"expects {types[0]} \[N, 2\]; given: INT64 \[1, 2\]"
        ) as refused:
            client.infer("everything", [one])
        assert refused.value.status() == "400"


def test_what_clients_ask_before_they_send_anything(trained, serve, tmp_path):
    flags = ("--model-name", "iris")
    renamed = tmp_path / "model.onnx"
    renamed.symlink_to(trained.iris)
    with serve(renamed, *flags) as server, triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("iris")
        assert client.is_model_ready("iris", "1")
        assert not client.is_model_ready("iris", "2")
        assert not client.is_model_ready("tulip")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("iris")
        assert metadata == client.get_model_metadata("iris", "1")
        assert metadata["versions"] == ["1"]
        assert metadata["platform"] == "onnxruntime_onnx"
        assert metadata["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
        assert [(each["name"], each["datatype"]) for each in metadata["outputs"]] == [
            ("label", "INT64"),
            ("probabilities", "FP32"),
        ]


def test_errors_as_clients_read_them(trained, serve):
    row = triton.InferInput("X", [1, 4], "FP32")
    row.set_data_from_numpy(np.ones((1, 4), np.float32))
    with serve(trained.iris) as server, triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(InferenceServerException, match="No model 'tulip' is loaded") as refused:
            client.infer("tulip", [row])
        assert refused.value.status() == "404"
        with pytest.raises(InferenceServerException, match="unknown output: 'petals'"):
            client.infer("iris", [row], outputs=[triton.InferRequestedOutput("petals")])
        with pytest.raises(InferenceServerException, match="classification"):
            client.infer("iris", [row], outputs=[triton.InferRequestedOutput("label", class_count=2)])
        with pytest.raises(InferenceServerException, match="no sequences"):
            client.infer("iris", [row], sequence_id=5)
        with pytest.raises(InferenceServerException, match="compressed"):
            client.infer("iris", [row], request_compression_algorithm="gzip")
        assert client.infer("iris", [row]).as_numpy("label").shape == (1,)


def test_both_forms_side_by_side(trained, serve, connect):
    rows = np.random.default_rng(3).uniform(0, 8, (60, 4)).round(2).astype(np.float32)
    expected = direct(trained.iris).run(["probabilities"], {"X": rows})[0]

    async def ask(port: int, number: int) -> Any:
        row = rows[number : number + 1].tolist()
        async with connect(port) as client:
            if number % 2:
                answer = await client.post(json.dumps({"data": row}).encode())
                return answer.json["outputs"]["probabilities"][0]
            described = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": row}
            answer = await client.post(json.dumps({"inputs": [described]}).encode(), "/v2/models/iris/infer")
            return answer.json["outputs"][1]["data"]

    async def ask_all(port: int) -> Any:
        return await asyncio.gather(*(ask(port, number) for number in range(len(rows))))

    with serve(trained.iris) as server:
        np.testing.assert_allclose(asyncio.run(ask_all(server.port)), expected, rtol=1e-5, atol=1e-6)


def test_a_script_has_no_tensors(script, serve):
    with serve(script("def init(): pass\ndef run(data): return data")) as server:
        answer = server.ask("POST", "/v2/models/score/infer", b"{}")
        assert answer.status == 404
        assert "/score" in answer.json["error"]
        assert server.get("/v2/health/ready").json == {"ready": True}
