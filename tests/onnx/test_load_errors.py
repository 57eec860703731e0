"""Models that cannot be served: one message that names file, cause and cure."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import external_data_helper, helper, numpy_helper

from scoring_runtime.onnx import model_file
from scoring_runtime.scorer.loop import LoadError

CELLS = 64
WEIGHTS = np.arange(CELLS, dtype=np.float32)
SHAPE: list[str | int | None] = ["N", CELLS]
DECLARED = (T.FLOAT, SHAPE)


def refusal(load_engine: Any, target: Any, folder: Path | None = None) -> str:
    with pytest.raises(LoadError) as caught:
        load_engine(target, folder)
    message = caught.value.message
    assert "\n" not in message
    return message


@pytest.fixture
def plain(build):
    return build([helper.make_node("Relu", ["x"], ["y"])], {"x": DECLARED}, {"y": DECLARED})


def test_missing_file(load_engine, tmp_path):
    path = tmp_path / "no.onnx"
    assert refusal(load_engine, path) == f"{path}: there is no such file: check the path"


def test_folder(load_engine, tmp_path):
    assert "is a folder" in refusal(load_engine, tmp_path)


def test_empty_file(load_engine, tmp_path):
    path = tmp_path / "empty.onnx"
    path.touch()
    assert refusal(load_engine, path).startswith(f"{path}: the file is empty: copy")


def test_unreadable_file(load_engine, tmp_path, plain):
    path = tmp_path / "secret.onnx"
    if os.geteuid() == 0:  # whom permissions do not stop, but the kernel does
        path.symlink_to("/proc/self/mem")
        reason = "Invalid argument"
    else:
        path.write_bytes(plain.SerializeToString())
        path.chmod(0)
        reason = "Permission denied"
    assert f"cannot be read: {reason}: check its permissions" in refusal(load_engine, path)


def test_path_through_a_file(load_engine, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be read: Not a directory" in refusal(load_engine, tmp_path / "file" / "model.onnx")


def test_truncated_anywhere(load_engine, tmp_path, trained):
    whole = trained.digits_mlp.read_bytes()
    path = tmp_path / "cut.onnx"
    for part in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert f"{path}: the file is no ONNX model, or a damaged one" in refusal(load_engine, path)


def test_garbage(load_engine, tmp_path):
    path = tmp_path / "garbage.onnx"
    for content in (
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04" * 50,
        random.Random(0).randbytes(999),
    ):
        path.write_bytes(content)
        assert "no ONNX model, or a damaged one: copy or export it again" in refusal(load_engine, path)


def test_newer_opset(load_engine, tmp_path, build):
    model = build([helper.make_node("Relu", ["x"], ["y"])], {"x": DECLARED}, {"y": DECLARED}, opset=999)
    text = refusal(load_engine, model, tmp_path)
    assert "the model uses opset 999 of ai.onnx; onnxruntime" in text
    assert "knows up to opset" in text
    assert "update onnxruntime" in text


def test_newer_ir_version(load_engine, tmp_path, build):
    model = build([helper.make_node("Relu", ["x"], ["y"])], {"x": DECLARED}, {"y": DECLARED}, ir_version=99)
    text = refusal(load_engine, model, tmp_path)
    assert "the model has IR version 99; onnxruntime" in text
    assert "knows up to IR version" in text


@pytest.mark.parametrize("domain", ["", "com.example"])
def test_operator_that_nobody_implements(domain, load_engine, tmp_path, build):
    model = build([helper.make_node("Frobnicate", ["x"], ["y"], domain=domain)], {"x": DECLARED}, {"y": DECLARED})
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    text = refusal(load_engine, model, tmp_path)
    assert "no provider implements an operator of the model" in text
    assert "Frobnicate" in text


def test_type_that_an_operator_does_not_have(load_engine, tmp_path, build):
    declared = (T.BFLOAT16, ["N"])
    model = build([helper.make_node("Erf", ["x"], ["y"])], {"x": declared}, {"y": declared})
    assert "Could not find an implementation for Erf(13)" in refusal(load_engine, model, tmp_path)


def test_inputs_that_are_no_tensors(load_engine, tmp_path):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(T.FLOAT, ["N"]))
    graph = helper.make_graph(
        [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)],
        "graph",
        [helper.make_value_info("x", kind)],
        [helper.make_tensor_value_info("y", T.FLOAT, ["M"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    text = refusal(load_engine, model, tmp_path)
    assert "input 'x' is no tensor but seq(tensor(float)), which cannot be served" in text


@pytest.mark.parametrize("element", [T.FLOAT8E4M3FN, T.FLOAT8E5M2])
def test_types_without_a_json_form(element, load_engine, tmp_path, build):
    declared = (element, ["N"])
    model = build([helper.make_node("Identity", ["x"], ["y"])], {"x": declared}, {"y": declared})
    text = refusal(load_engine, model, tmp_path)
    assert "input 'x' has the type tensor(float8" in text
    assert "add a Cast to one of float16, bfloat16, float32" in text


def external(location: str, offset: int = 0, length: int = CELLS * 4) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    external_data_helper.set_external_data(tensor, location=location, offset=offset, length=length)
    tensor.ClearField("raw_data")
    return tensor


@pytest.fixture
def with_weights(build):
    """A model whose weights lie at `location`: as an initializer, in an attribute, or in a subgraph's initializer."""

    def make(location, place="initializer", **more):
        tensor = external(location, **more)
        if place == "initializer":
            return build([helper.make_node("Add", ["x", "w"], ["y"])], {"x": DECLARED}, {"y": DECLARED}, [tensor])
        if place == "attribute":
            nodes = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["x", "w"], ["y"])]
            return build(nodes, {"x": DECLARED}, {"y": DECLARED})
        out = helper.make_tensor_value_info("o", *DECLARED)
        branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["o"])], "branch", [], [out], [tensor])
        other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "other", [], [out])
        choice = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=other)
        yes = numpy_helper.from_array(np.array(True), "yes")
        return build([choice], {"x": DECLARED}, {"y": DECLARED}, [yes])

    return make


PLACES = ["initializer", "attribute", "subgraph"]


@pytest.mark.parametrize("place", ["initializer", "subgraph"])
def test_external_data_beside_the_model_is_read(place, with_weights, tmp_path, load_engine, score):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w.bin").write_bytes(WEIGHTS.tobytes())
    engine = load_engine(with_weights("weights/w.bin", place), tmp_path)
    (answer,) = score(engine, [{"data": [[1.0] * CELLS]}])
    assert answer.body["outputs"]["y"] == [(WEIGHTS + 1).tolist()]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_missing(place, with_weights, tmp_path, load_engine):
    text = refusal(load_engine, with_weights("w.bin", place), tmp_path)
    assert f"tensor 'w' has its data in 'w.bin', but there is no such file: put it into {tmp_path}" in text


def test_external_data_too_short(with_weights, tmp_path, load_engine):
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes()[:100])
    assert "which ends at byte 100 before byte 256: copy" in refusal(load_engine, with_weights("w.bin"), tmp_path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["absolute", "parent", "parent within", "windows", "empty", "link", "folder link"])
def test_external_data_outside_is_refused_before_onnxruntime_sees_it(
    how, place, with_weights, tmp_path, load_engine, monkeypatch
):
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "w.bin"
    outside.write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    location, why = {
        "absolute": (str(outside), "an absolute path"),
        "parent": ("../w.bin", "which points out of the model's folder"),
        "parent within": ("sub/../../w.bin", "which points out of the model's folder"),
        "windows": ("C:\\w.bin", "an absolute path"),
        "empty": ("", "no file name"),
        "link": ("link.bin", f"a link that leads out of the model's folder, to {outside}"),
        "folder link": ("linked/w.bin", "a link that leads out of the model's folder"),
    }[how]
    opened = []
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *args, **more: opened.append(args))
    text = refusal(load_engine, with_weights(location, place), folder)
    assert why in text
    assert not opened


def test_a_second_location_is_checked_as_well(with_weights, tmp_path, load_engine):
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    model = with_weights("w.bin")
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    assert "which points out of the model's folder" in refusal(load_engine, model, tmp_path)


def test_a_field_number_that_onnxruntime_cuts_hides_no_external_data(with_weights):
    """It keeps 32 bits of a field's key: with one bit more its graph was no graph to us, and nobody looked at its files."""
    model = with_weights("../w.bin")
    graph = _sized(model.graph.SerializeToString())
    model.ClearField("graph")
    key = 7 << 3 | model_file.BYTES | 1 << 32
    hidden = model.SerializeToString() + bytes([key & 127 | 128, 128, 128, 128, key >> 28]) + graph
    with pytest.raises(model_file.MalformedModelError, match="a field number beyond all bounds"):
        model_file.external_tensors(hidden)


@pytest.mark.parametrize("location", ["w" * 300, "ring/w.bin"], ids=["too long a name", "links in a ring"])
def test_external_data_that_cannot_be_looked_at(location, with_weights, tmp_path, load_engine):
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    text = refusal(load_engine, with_weights(location), tmp_path)
    assert f"tensor 'w' has its data in {location!r}, which cannot be looked at" in text


@pytest.mark.parametrize("key", ["offset", "length"])
def test_an_offset_of_more_digits_than_numbers_have(key, with_weights, tmp_path, load_engine):
    model = with_weights("w.bin")
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == key).value = "1" * 5000
    assert f"a tensor with an {key} of 5000 digits" in refusal(load_engine, model, tmp_path)


def test_the_walk_knows_every_way_from_a_model_to_a_tensor():
    """Compared with the schema that the onnx package carries."""
    ways: dict[str, dict[int, str]] = {}

    def leads_to_tensors(descriptor: Any, seen: frozenset[str] = frozenset()) -> bool:
        if descriptor.name == "TensorProto":
            return True
        kinds = [field.message_type for field in descriptor.fields if field.message_type is not None]
        return any(kind.name not in seen and leads_to_tensors(kind, seen | {descriptor.name}) for kind in kinds)

    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.name in ways or descriptor.name == "TensorProto":
            continue
        ways[descriptor.name] = {}
        for field in descriptor.fields:
            if field.message_type is not None and leads_to_tensors(field.message_type):
                ways[descriptor.name][field.number] = field.message_type.name
                waiting.append(field.message_type)
    assert ways == model_file.CHILDREN


def test_messages_nested_too_deep_are_refused():
    graph = b""
    for _ in range(model_file.MAX_DEPTH):
        attribute = b"\x32" + _sized(graph)  # AttributeProto.g
        graph = b"\x0a" + _sized(b"\x2a" + _sized(attribute))  # GraphProto.node, NodeProto.attribute
    with pytest.raises(model_file.MalformedModelError, match="nested more than"):
        model_file.external_tensors(b"\x3a" + _sized(graph) + b"\x12\x08location")


def _sized(data: bytes) -> bytes:
    size = len(data)
    varint = b""
    while size > 127:
        varint += bytes([size & 127 | 128])
        size >>= 7
    return varint + bytes([size]) + data


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x0b", b"\x09abc", b"\x0d", b"\xff" * 20])
def test_the_walk_refuses_what_is_no_message(data):
    with pytest.raises(model_file.MalformedModelError):
        list(model_file.fields(data, 0, len(data)))


def test_declared_shapes(build):
    declared: dict[str, tuple[int, Any]] = {
        "a": (T.FLOAT, ["N", 3, None]),
        "b": (T.INT64, []),
        "c": (T.FLOAT, None),
        "d": (T.FLOAT, [-1]),
    }
    model = build([], declared, {})
    shapes = model_file.declared_shapes(model.SerializeToString())
    assert shapes == {"a": ("N", 3, None), "b": (), "c": None, "d": (None,)}
