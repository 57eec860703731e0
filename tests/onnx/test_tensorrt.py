"""TensorRT without a GPU: options, what an engine depends on, and everything around the session, with sessions on the CPU."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import external_data_helper, helper, numpy_helper

from scoring_runtime.onnx import exactness, gpu, profiles, tensorrt
from scoring_runtime.onnx.dtypes import BY_NAME
from scoring_runtime.onnx.engine import Engine
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan, read
from scoring_runtime.onnx.session import RunRefusedError, Session
from scoring_runtime.onnx.swap import why_differs
from scoring_runtime.scorer.loop import LoadError

H200 = gpu.Gpu("NVIDIA H200", "9.0", "580.65.06, CUDA 13000")
PROFILE = profiles.plan({"x": ("N", 4)}, 8)


def plan_of(path: Path, **more: Any) -> SessionPlan:
    return SessionPlan(path, 1, ("tensorrt", "cuda", "cpu"), **more)


def on_cpu(path: Path) -> Session:
    return open_session(SessionPlan(path, 1, ("cpu",)))


class Recording:
    """A Runner that remembers the shapes of the first input of its runs."""

    def __init__(self, runner: Any) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def run(self, arrays: Any) -> list[Any]:
        outputs: list[Any] = self._runner.run(arrays)
        self.shapes.append(arrays[0].shape)
        return outputs


# Options and keys


def test_options_of_the_session(tmp_path):
    options = tensorrt.with_options(plan_of(tmp_path), PROFILE, tmp_path / "key").options["tensorrt"]
    assert options == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path / "key"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path / "key"),
        "trt_profile_min_shapes": "x:1x4",
        "trt_profile_opt_shapes": "x:4x4",
        "trt_profile_max_shapes": "x:8x4",
    }
    without = tensorrt.with_options(plan_of(tmp_path), {}, None).options["tensorrt"]
    assert without == {"trt_engine_cache_enable": "0", "trt_timing_cache_enable": "0"}


def test_options_of_the_user_win_and_those_of_others_stay(tmp_path):
    given = {"tensorrt": {"trt_timing_cache_path": "/elsewhere", "trt_fp16_enable": "1"}, "cuda": {"use_tf32": "0"}}
    options = tensorrt.with_options(plan_of(tmp_path, options=given), PROFILE, tmp_path).options
    assert options["tensorrt"]["trt_timing_cache_path"] == "/elsewhere"
    assert options["tensorrt"]["trt_fp16_enable"] == "1"
    assert options["tensorrt"]["trt_engine_cache_enable"] == "1"
    assert options["cuda"] == {"use_tf32": "0"}
    assert given["tensorrt"] == {"trt_timing_cache_path": "/elsewhere", "trt_fp16_enable": "1"}


def test_a_folder_of_the_users_own_is_used(tmp_path):
    given = {"tensorrt": {"trt_engine_cache_path": "/own"}}
    options = tensorrt.with_options(plan_of(tmp_path, options=given), {}, None).options["tensorrt"]
    assert options["trt_engine_cache_path"] == "/own"
    assert options["trt_engine_cache_enable"] == "1"


def test_every_option_is_one_that_the_settings_know(tmp_path):
    from scoring_runtime.providers import PROVIDERS

    made = tensorrt.with_options(plan_of(tmp_path), PROFILE, tmp_path).options["tensorrt"]
    assert set(made) <= PROVIDERS["tensorrt"].options
    assert PROVIDERS["tensorrt"].options >= tensorrt._WITHOUT_EFFECT


def test_what_an_engine_depends_on_makes_another_key():
    from scoring_runtime.onnx.engine_cache import key_of

    wider = profiles.plan({"x": ("N", 4)}, 16)
    made = [
        tensorrt.made_of("ab", H200, PROFILE, {}),
        tensorrt.made_of("cd", H200, PROFILE, {}),
        tensorrt.made_of("ab", dataclasses.replace(H200, name="NVIDIA H100"), PROFILE, {}),
        tensorrt.made_of("ab", dataclasses.replace(H200, driver="590.1"), PROFILE, {}),
        tensorrt.made_of("ab", H200, wider, {}),
        tensorrt.made_of("ab", H200, PROFILE, {"trt_fp16_enable": "1"}),
        tensorrt.made_of("ab", H200, PROFILE, {"trt_builder_optimization_level": "5"}),
    ]
    assert len(set(map(key_of, made))) == len(made)
    assert {"gpu", "compute_capability", "driver", "tensorrt", "onnxruntime", "profile", "model_sha256"} < set(made[0])


def test_what_an_engine_does_not_depend_on_makes_none():
    plain = tensorrt.made_of("ab", H200, PROFILE, {})
    assert tensorrt.made_of("ab", H200, PROFILE, {"device_id": "1", "trt_detailed_build_log": "1"}) == plain
    given = profiles.to_options(PROFILE)  # said by the user or found by us: the engine is the same
    assert tensorrt.made_of("ab", H200, PROFILE, given) == plain


def test_the_digest_covers_external_data(build, tmp_path):
    model = build(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (T.FLOAT, ["N", 64])},
        {"y": (T.FLOAT, ["N", 64])},
        [numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")],
    )
    external_data_helper.convert_model_to_external_data(model, location="weights", size_threshold=0)
    path = tmp_path / "model.onnx"
    external_data_helper.write_external_data_tensors(model, str(tmp_path))
    path.write_bytes(model.SerializeToString())
    before = tensorrt._read(path)
    assert before is not None
    assert before.shapes == {"x": ("N", 64)}
    weights = tmp_path / "weights"
    weights.write_bytes(b"\1" + weights.read_bytes()[1:])
    after = tensorrt._read(path)
    assert after is not None
    assert after.sha256 != before.sha256
    weights.unlink()
    assert tensorrt._read(path) is None  # opening it says why


def test_settings_reach_the_plan(tmp_path):
    hello = {"target": str(tmp_path / "m.onnx"), "provider": "tensorrt,cuda", "max_batch_size": 100}
    plan = read({**hello, "tensorrt_build": "background"}, 1)
    assert tensorrt.leads(plan)
    assert (plan.tensorrt_build, plan.most_rows) == ("background", 100)
    assert not tensorrt.leads(read({**hello, "provider": "cuda,tensorrt"}, 1))


@pytest.mark.parametrize(
    ("options", "row"),
    [({}, "float16"), ({"trt_fp16_enable": "1"}, "bfloat16"), ({"trt_bf16_enable": "1"}, "bfloat16")],
)
def test_tolerances(options, row):
    allowed, why = exactness.of_tensorrt(options)
    assert allowed == BY_NAME[row].tolerance
    assert why


def test_eight_bits_are_allowed_most():
    allowed, why = exactness.of_tensorrt({"trt_int8_enable": "1"})
    widest = BY_NAME["bfloat16"].tolerance
    assert widest is not None
    assert allowed.relative > widest.relative
    assert why == "trt_int8_enable keeps eight bits"


# Around a session


def test_a_shape_that_no_engine_was_built_for_is_refused_before_it_runs(trained, score):
    session = on_cpu(trained.iris)
    profile = profiles.plan({"X": session.inputs[0].shape}, 2)
    runner = tensorrt.Profiled(session, profile)
    rows = np.ones((3, 4), np.float32)
    assert len(runner.run([rows[:2]])) == len(session.outputs)
    with pytest.raises(RunRefusedError, match="input 'X' axis 0 is 3; the engine was built for 1 to 2"):
        runner.run([rows])
    engine = Engine(runner, "iris", 2)
    few, many = score(engine, [{"data": rows[:2].tolist()}, {"data": rows.tolist()}])
    assert few.status == 200
    assert many.status == 400
    assert "the model refuses the inputs: input 'X' axis 0 is 3; the engine was built for 1 to 2" in str(many.body)


def test_requests_of_any_number_share_runs_within_the_profile(trained, score):
    session = on_cpu(trained.iris)
    rows = profiles.most_rows(6, "auto")
    runner = Recording(tensorrt.Profiled(session, profiles.plan({"X": session.inputs[0].shape}, rows)))
    engine = Engine(runner, "iris", 6)
    assert engine.info["batchable"] is True
    del runner.shapes[:]
    answers = score(engine, [{"data": [[5.1, 3.5, 1.4, 0.2]]}] * 15)
    assert [answer.status for answer in answers] == [200] * 15
    shared = [shape[0] for shape in runner.shapes]
    assert sum(shared) == 15
    assert max(shared) <= 6
    assert len(shared) < 15


@pytest.fixture
def divides(build, tmp_path):
    """Takes only lengths that are a multiple of 24, of which no guess is."""
    model = build(
        [
            helper.make_node("Reshape", ["x", "shape"], ["parts"]),
            helper.make_node("ReduceSum", ["parts", "axes"], ["y"], keepdims=0),
        ],
        {"x": (T.FLOAT, ["N", "S"])},
        {"y": (T.FLOAT, ["N", 24])},
        [
            numpy_helper.from_array(np.array([0, 24, -1]), "shape"),
            numpy_helper.from_array(np.array([2]), "axes"),
        ],
    )
    path: Path = tmp_path / "divides.onnx"
    path.write_bytes(model.SerializeToString())
    return path


RANGE = profiles.parse({"x": ("N", "S")}, dict(zip(profiles.OPTIONS, ("x:1x24", "x:4x48", "x:8x96"), strict=True)))


def test_the_sizes_of_a_profile_are_those_to_try(divides):
    session = on_cpu(divides)
    assert Engine(session, "divides", 8).info["batchable"] is False
    usual = {name: sizes.usual for name, sizes in RANGE.items()}
    assert Engine(tensorrt.Profiled(session, RANGE), "divides", 8, usual_shapes=usual).info["batchable"] is True


def test_every_corner_of_the_profile_is_run_before_requests_are(divides, caplog):
    runner = Recording(on_cpu(divides))
    tensorrt.warm(runner, RANGE)
    assert runner.shapes[-3:] == [(1, 24), (4, 48), (8, 96)]
    assert caplog.messages == []


def test_a_corner_that_does_not_run_is_told(divides, caplog):
    odd = profiles.parse({"x": ("N", "S")}, dict(zip(profiles.OPTIONS, ("x:1x25", "x:4x48", "x:8x96"), strict=True)))
    tensorrt.warm(on_cpu(divides), odd)
    (message,) = caplog.messages
    assert message.startswith("the model does not run with inputs of x:1x25, which its profile allows: ")


@pytest.mark.parametrize("name", ["iris", "digits_mlp", "lac", "minilm"])
def test_samples_tell_a_session_from_another(real_model, name):
    session = on_cpu(real_model(name).path)
    declared = {tensor.name: tensor.shape or () for tensor in session.inputs}
    free = {size for shape in declared.values() for size in shape[1:] if not isinstance(size, int)}
    given = {}
    if free:
        for option, rows, length in zip(profiles.OPTIONS, (1, 4, 8), (4, 8, 16), strict=True):
            given[option] = ",".join(
                f"{each}:" + "x".join(str(rows if axis == 0 else length) for axis in range(len(shape)))
                for each, shape in declared.items()
            )
    profile = profiles.make(declared, 8, given)
    inputs = tensorrt.samples_of(session, profile)
    assert len(inputs) == 6
    assert {len(arrays[0]) for arrays in inputs} == {1, 4}
    from scoring_runtime.onnx.swap import take

    samples = take(session, inputs)
    assert len(samples) == 6
    assert (
        why_differs(
            open_session(SessionPlan(real_model(name).path, 1, ("cpu",), graph_optimization="basic")),
            samples,
            exactness.of_tensorrt({})[0],
        )
        is None
    )


def test_damage_is_known_by_its_text():
    text = "TensorRT EP could not deserialize engine from cache: /c/TensorrtExecutionProvider_1.engine"
    assert tensorrt.is_damage(LoadError(f"/m.onnx: onnxruntime 1.31.1 refuses the model: {text}: check it"))
    assert not tensorrt.is_damage(LoadError("/m.onnx: out of memory"))


# Where a driver says that there is a GPU: a stub


@pytest.fixture
def ask_stub(stub_driver):
    """What is found where the driver's library is a stub."""

    def ask(expression: str, **environ: str) -> str:
        code = f"from scoring_runtime.onnx import gpu, tensorrt\nfrom scoring_runtime.onnx.plan import *\nprint({expression})"
        environ = {"LD_LIBRARY_PATH": str(stub_driver), "PATH": os.environ["PATH"], **environ}
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code], env=environ, capture_output=True, text=True, check=False
        )
        return ended.stdout.strip() or ended.stderr.rstrip().splitlines()[-1]

    return ask


def test_what_the_driver_says(ask_stub):
    assert ask_stub("gpu.look(0).name, gpu.look(1).name, gpu.look(2)") == "STUB GPU 0 STUB GPU 1 None"
    assert ask_stub("gpu.look(0).compute_capability") == "9.0"
    assert ask_stub("gpu.look(0).driver").endswith(", CUDA 13000")
    assert ask_stub("gpu.tensorrt_version()") == "101304"
    assert ask_stub("gpu.look(0)", STUB_FAILS="1") == "None"


def test_sizes_that_nobody_knows_are_asked_for_before_anything_is_built(ask_stub, divides):
    expression = f"tensorrt.open_runner(SessionPlan(Path({str(divides)!r}), 1, ('tensorrt',)), 'divides')"
    error = ask_stub(expression)
    assert error.startswith(
        f"scoring_runtime.scorer.loop.LoadError: {divides}: TensorRT builds its engine for a range of"
    )
    assert "axis 1 (S) of input 'x'" in error


def test_what_cannot_be_had_is_an_error_or_another_provider(ask_stub, trained):
    plan = f"SessionPlan(Path({str(trained.iris)!r}), 1, ('tensorrt', 'cpu'), require={{}})"
    opened = f"tensorrt.open_runner({plan}, 'iris')"
    assert ask_stub(opened.format(True)).startswith("scoring_runtime.scorer.loop.LoadError: ")
    assert ask_stub(opened.format(False) + ".runner.providers") == "['CPUExecutionProvider']"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs) \nGCC 12.2.0\n",
            "580.65.06",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        ("", "unknown"),
    ],
)
def test_the_version_of_the_driver(text, version):
    assert gpu.parse_driver(text) == version
