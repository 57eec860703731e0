"""onnx/model_file.py: any bytes as a model.

- Tensors and shapes, or MalformedModelError; never anything else, and never long.
- What protobuf's own parser takes for a model, we read alike: no file that it would open is missed, no shape is another.
- The places that it names are judged without an exception.
"""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from onnx.external_data_helper import _get_all_tensors

from scoring_runtime.onnx import external_data, model_file

TOKENS = (
    *(
        b"location",
        b"\x0a\x08location\x12",
        b"offset",
        b"length",
        b"\x3a",
        b"\x2a",
        b"\x6a",
        b"\x70\x01",
        b"\x0a",
        b"\x12",
    ),
    *(
        b"\x80\x80\x80\x80\x10",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"../../etc/passwd",
        b"\0",
        b"\xff",
        b"1" * 20,
    ),
)


def _model(shape: list[str | int | None] | None, location: str, **entries: str) -> bytes:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weights.external_data.add(key=key, value=value)
    constant = helper.make_node("Constant", [], ["c"], value=weights)
    inner = helper.make_graph([constant], "inner", [], [])
    graph = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    return bytes(helper.make_model(graph).SerializeToString())


SEEDS = (
    _model(["N", 3], "w.bin"),
    _model(None, "../w.bin", offset="4", length="8"),
    _model([], "", offset="x"),
    _model([1, None], "w" * 300),
    b"\x3a\x02\x0a\x00",
    b"\xff" * 30,
)


def check(data: bytes) -> None:
    try:
        tensors = model_file.external_tensors(data)
        shapes = model_file.declared_shapes(data)
    except model_file.MalformedModelError as error:
        str(error).encode()
        return
    external_data.why_refused(Path(__file__).with_name("model.onnx"), tensors)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return
    ours = {location for tensor in tensors for location in tensor.locations}
    theirs = {
        _text(entry.value)
        for tensor in _get_all_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert theirs <= ours, "a file that is not looked at"
    for value_info in model.graph.input:
        kind = value_info.type
        if kind.HasField("tensor_type"):
            assert _text(value_info.name) in shapes, "an input that is not seen"


def _text(value: str | bytes) -> str:
    """Protobuf's parser gives bytes that are no UTF-8 as they are."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
