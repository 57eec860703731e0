"""Buckets, fixed memory and halving, on the CPU with real models and ONNX Runtime's real errors."""

import logging
import subprocess
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from scoring_runtime.onnx import bound, buckets, memory, pinned
from scoring_runtime.onnx.dtypes import Array
from scoring_runtime.onnx.engine import Engine, load
from scoring_runtime.onnx.graphs import open_capturing
from scoring_runtime.onnx.loading import open_session
from scoring_runtime.onnx.plan import SessionPlan, read
from scoring_runtime.onnx.providers import Placement
from scoring_runtime.onnx.runner import Runner
from scoring_runtime.onnx.samples import Guess, guesses
from scoring_runtime.onnx.session import (
    NO_GRAPH,
    DeviceLostError,
    OutOfMemoryError,
    RunError,
    RunRefusedError,
    Session,
    is_device_lost,
    is_out_of_memory,
)
from scoring_runtime.scorer.loop import LoadError

BUCKETS = "1,2,4,8"
MODELS = ["iris", "digits_mlp", "diabetes_trees", "digits_forest", "orientation", "lac"]


def opened(path: Path) -> Session:
    return open_session(SessionPlan(path, 1))


def guess_for(session: Runner) -> Guess:
    for guess in guesses(session.inputs):
        try:
            session.run(guess.make(1, 1))
        except RunError:
            continue
        return guess
    raise AssertionError("the model accepts none of the guesses")


def in_buckets(session: Runner, sizes: str = BUCKETS) -> bound.Bucketed:
    runner = bound.Bucketed(session, buckets.choose(sizes, 8, gpu=False))
    runner.warm_up(guess_for(session))
    return runner


def feed(session: Runner, model: Any, generator: np.random.Generator, rows: int) -> list[Array]:
    made = model.make(generator, rows)
    return [made[tensor.name] for tensor in session.inputs]


@pytest.fixture
def always_bound(monkeypatch):
    """Every bucket takes fixed memory where that gives the same outputs, however fast it is."""
    monkeypatch.setattr(bound, "PAYS", float("inf"))
    monkeypatch.setattr(bound, "LONG_RUN_S", float("inf"))


@pytest.fixture
def agree(compare):
    """Are these outputs those of a plain run?"""

    def check(session, got, arrays):
        names = [output.name for output in session.outputs]
        compare(dict(zip(names, got, strict=True)), names, session.run(arrays))

    return check


# Buckets


@pytest.mark.parametrize("name", MODELS)
def test_bound_and_padded_runs_give_the_outputs_of_plain_ones(name, real_model, always_bound, agree):
    model = real_model(name)
    session = opened(model.path)
    runner = in_buckets(session)
    assert [(bucket["rows"], bucket["way"]) for bucket in runner.describe()["buckets"]] == [
        (rows, "bound") for rows in (1, 2, 4, 8)
    ]
    generator = np.random.default_rng(3)
    for rows in (1, 3, 8, 5, 1, 2, 4, 11):
        arrays = feed(session, model, generator, rows)
        agree(session, runner.run(arrays), arrays)


def test_strings_are_padded_and_not_bound(real_model, always_bound, agree):
    model = real_model("topics")
    session = opened(model.path)
    runner = in_buckets(session)
    for bucket in runner.describe()["buckets"]:
        assert bucket["way"] == "plain"
        assert "types" in bucket["note"]
    arrays = feed(session, model, np.random.default_rng(1), 7)
    agree(session, runner.run(arrays), arrays)


def test_answers_do_not_share_the_memory_that_the_next_run_writes(real_model, always_bound):
    model = real_model("digits_mlp")
    session = opened(model.path)
    runner = in_buckets(session)
    generator = np.random.default_rng(5)
    feeds = [feed(session, model, generator, rows) for rows in (8, 8, 5, 7)]
    answers = [runner.run(arrays) for arrays in feeds]  # all of the one bucket
    for arrays, answer in zip(feeds, answers, strict=True):
        for output, expected in zip(answer, session.run(arrays), strict=True):
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_rows_of_another_length_than_at_warm_up_run_plain(real_model, always_bound, agree):
    model = real_model("lac")
    session = opened(model.path)
    runner = in_buckets(session)
    for length in (5, 32, 9):  # 32: that of the warm-up
        arrays = [np.full((3, length), 7), np.full(3, length)]
        agree(session, runner.run(arrays), arrays)


def test_a_large_bucket_is_warmed_up_with_repeated_rows_and_one_that_no_memory_holds_is_left_out(trained, caplog):
    session = opened(trained.digits_mlp)
    runner = bound.Bucketed(session, (48, 1 << 45))
    tracemalloc.start()
    runner.warm_up(guess_for(session))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [bucket["rows"] for bucket in runner.describe()["buckets"]] == [48]
    assert f"no bucket of {1 << 45} rows: it does not fit into memory" in caplog.text
    assert peak_bytes < 4 << 20
    rows = bound._sample(guess_for(session), 48, 1)[0]
    np.testing.assert_array_equal(rows[32:], rows[:16])


def test_outputs_of_another_shape_than_at_warm_up_do_not_fail(build, tmp_path, always_bound):
    """As many columns as the largest value says: at warm-up, with values below 1, that was one."""
    model = build(
        [
            helper.make_node("ReduceMax", ["X"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Add", ["whole", "one"], ["columns"]),
            helper.make_node("Reshape", ["columns", "vector"], ["size"]),
            helper.make_node("Concat", ["ones", "size"], ["shape"], axis=0),
            helper.make_node("Expand", ["X", "shape"], ["Y"]),
        ],
        {"X": (TensorProto.FLOAT, ["N", 1])},
        {"Y": (TensorProto.FLOAT, ["N", None])},
        [
            helper.make_tensor("one", TensorProto.INT64, [], [1]),
            helper.make_tensor("vector", TensorProto.INT64, [1], [1]),
            helper.make_tensor("ones", TensorProto.INT64, [1], [1]),
        ],
    )
    path = tmp_path / "wide.onnx"
    path.write_bytes(model.SerializeToString())
    runner = in_buckets(opened(path), "2")
    assert [bucket["way"] for bucket in runner.describe()["buckets"]] == ["bound"]
    assert runner.run([np.array([[0.5]], np.float32)])[0].tolist() == [[0.5]]
    assert runner.run([np.array([[3.0]], np.float32)])[0].tolist() == [[3.0] * 4]


def test_what_cannot_be_padded_is_the_models_to_refuse(trained, always_bound):
    runner = in_buckets(opened(trained.iris))
    assert [output.shape[0] for output in runner.run([np.zeros((0, 4), np.float32)])] == [0, 0]
    with pytest.raises(RunRefusedError):
        runner.run([np.zeros((2, 5), np.float32)])


@pytest.mark.parametrize("name", ["digits_mlp", "lac"])
def test_runs_that_may_be_captured_all_come_from_one_thread(name, real_model, always_bound, agree, monkeypatch):
    """On a CPU the number of a graph means nothing, so that everything around the capture is what runs here."""
    model = real_model(name)
    session = opened(model.path)
    session.captures = True
    guess = guess_for(session)
    threads = set()
    plain = session.run

    def watched(arrays):
        threads.add(threading.get_ident())
        return plain(arrays)

    monkeypatch.setattr(session, "run", watched)
    runner = bound.Bucketed(session, (1, 2, 4, 8))
    runner.warm_up(guess)
    assert {bucket["way"] for bucket in runner.describe()["buckets"]} <= {"graph", "bound"}
    assert len(runner.describe()["buckets"]) == 4
    arrays = feed(session, model, np.random.default_rng(1), 3)
    answers = []
    others = [threading.Thread(target=lambda: answers.append(runner.run(arrays))) for _ in range(4)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert len(answers) == 4
    assert threading.get_ident() not in threads
    assert len(threads) == 1
    runner.close()
    for answer in answers:
        agree(session, answer, arrays)


def failing_capture(monkeypatch: pytest.MonkeyPatch, session: Session, breaks: bool) -> None:
    """A session whose captures fail, as they may on a GPU, and which after that runs no more if `breaks`."""
    session.captures = True
    bind, plain = session.bind, session.run
    broken = []

    def bind_or_fail(arrays, outputs, graph=NO_GRAPH):
        if graph == NO_GRAPH:
            return bind(arrays, outputs, graph)
        broken.append(breaks)
        raise RunError("CUDA failure 901: operation failed due to a previous error during capture")

    def run_or_fail(arrays):
        if any(broken):
            raise RunError(
                "CUDA failure 906: operation would make the legacy stream depend on a capturing blocking stream"
            )
        return plain(arrays)

    monkeypatch.setattr(session, "bind", bind_or_fail)
    monkeypatch.setattr(session, "run", run_or_fail)


def test_a_bucket_whose_capture_fails_goes_without(trained, always_bound, monkeypatch, caplog):
    session = opened(trained.digits_mlp)
    guess = guess_for(session)
    failing_capture(monkeypatch, session, breaks=False)
    runner, described = bound.wrap(session, guess, SessionPlan(trained.digits_mlp, 1, batch_buckets="2,4"))
    assert [(bucket["rows"], bucket["way"]) for bucket in described["buckets"]] == [(2, "bound"), (4, "bound")]
    assert "no CUDA graph for 4 rows: CUDA failure 901" in caplog.text
    assert "CUDA failure 901" in described["buckets"][0]["note"]
    assert len(runner.run(guess.make(3, 1))[0]) == 3


def test_a_session_that_a_capture_has_broken_is_replaced(trained, monkeypatch, caplog):
    session = opened(trained.digits_mlp)
    guess = guess_for(session)
    failing_capture(monkeypatch, session, breaks=True)
    plan = SessionPlan(trained.digits_mlp, 1, batch_buckets="2,4")
    runner, described = bound.wrap(session, guess, plan, lambda: opened(trained.digits_mlp))
    assert [bucket["rows"] for bucket in described["buckets"]] == [2, 4]
    assert "the model is loaded anew, without CUDA graphs" in caplog.text
    assert len(runner.run(guess.make(3, 1))[0]) == 3


def test_the_engine_pads_what_was_proved_and_only_that(trained, real_model, load_engine, score):
    engine = load_engine(trained.digits_mlp, batch_buckets="4,16")
    assert [bucket["rows"] for bucket in engine.info["buckets"]] == [4, 16]
    assert engine.info["why_no_cuda_graphs"] is None or "CUDA" in engine.info["why_no_cuda_graphs"]
    plain = load_engine(trained.digits_mlp)
    assert plain.info["buckets"] is None
    generator = np.random.default_rng(2)
    bodies = [{"data": generator.uniform(0, 16, (rows, 64)).tolist()} for rows in (1, 2, 19, 3)]
    for one, other in zip(score(engine, bodies), score(plain, bodies), strict=True):
        assert one.status == 200
        assert one.body["outputs"]["label"] == other.body["outputs"]["label"]
    assert "buckets" not in load_engine(real_model("magika").path, batch_buckets="4").info


# CUDA graphs, as far as there is no GPU


@pytest.mark.parametrize(
    ("hello", "cause"),
    [
        ({"provider": "cpu"}, "the provider is cpu, not cuda"),
        ({"batch_buckets": "off"}, "batch_buckets is off"),
        ({}, "does not run on CUDA"),
    ],
)
def test_graphs_that_cannot_be_had_are_said_aloud(hello, cause, trained, load_engine, caplog):
    with pytest.raises(LoadError) as raised:
        load_engine(trained.iris, cuda_graphs="on", **hello)
    assert cause in raised.value.message
    assert "set cuda_graphs to auto" in raised.value.message
    with caplog.at_level(logging.WARNING):
        engine = load_engine(trained.iris, cuda_graphs="on", provider_policy="prefer", **hello)
    assert cause in caplog.text
    assert cause in engine.info["why_no_cuda_graphs"]
    assert cause in load_engine(trained.iris, **hello).info["why_no_cuda_graphs"]


class Loads:
    """open_session(), which writes down what it was asked for; a capture is refused in ONNX Runtime's words."""

    def __init__(self, on_cuda: bool, fault: str = "") -> None:
        self.asked: list[tuple[str, bool, bool]] = []
        self.on_cuda = on_cuda
        self.fault = fault

    def __call__(self, plan: SessionPlan) -> Session:
        captures = plan.options.get("cuda", {}).get("enable_cuda_graph") == "1"
        self.asked.append((plan.providers[0], plan.require, captures))
        if captures and self.fault:
            raise LoadError(f"{plan.path}: {self.fault}")
        session = open_session(SessionPlan(plan.path, 1, providers=("cpu",)))  # in the place of one on CUDA
        if self.on_cuda:
            session.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
            session.captures = captures
        return session


REFUSED = (
    "onnxruntime 1.31.1 refuses the model: This session cannot use the graph capture feature as requested by the user"
)


@pytest.mark.parametrize(
    ("provider", "on_cuda", "fault", "asked", "why"),
    [
        ("cuda", True, "", [("cuda", True, True)], None),
        ("auto", True, "", [("cuda", True, True)], None),
        ("auto", False, "", [("auto", False, False)], "does not run on CUDA"),
        ("cuda", True, REFUSED, [("cuda", True, True), ("cuda", False, False)], "refuses to capture this model"),
        ("auto", True, REFUSED, [("cuda", True, True), ("auto", False, False)], "refuses to capture this model"),
        ("cuda", False, "no GPU", [("cuda", True, True), ("cuda", False, False)], "does not run on CUDA"),
        ("tensorrt", True, "", [("tensorrt", False, False)], "the provider is tensorrt, not cuda"),
    ],
)
def test_what_is_opened_for_graphs(provider, on_cuda, fault, asked, why, trained):
    """A preferred provider never gives way to the CPU because a graph cannot be had, and no model is loaded without need."""
    loads = Loads(on_cuda, fault)
    plan = SessionPlan(trained.iris, 1, providers=(provider,), require=False)
    leads = provider if provider != "auto" else "cuda" if on_cuda else "cpu"
    session, why_not = open_capturing(plan, loads, leads)
    assert loads.asked == asked
    assert session.captures is (why is None)
    assert (why is None and why_not is None) or (why is not None and why in (why_not or ""))


def test_an_option_that_turns_graphs_off_is_heeded(trained):
    loads = Loads(on_cuda=True)
    plan = SessionPlan(trained.iris, 1, providers=("cuda",), options={"cuda": {"enable_cuda_graph": "0"}})
    _, why_not = open_capturing(plan, loads, "cuda")
    assert loads.asked == [("cuda", True, False)]
    assert "cuda.enable_cuda_graph" in (why_not or "")


STUB = """
#include <stdlib.h>
static int held;
int cudaHostAlloc(void **at, size_t size, unsigned flags) { held++; return !(*at = calloc(size, 1)); }
int cudaFreeHost(void *at) { held--; free(at); return 0; }
int stub_held(void) { return held; }
"""


def test_pinned_memory_is_given_back_with_its_array(tmp_path):
    """With a stub in place of the CUDA runtime: it counts what is held. There is no pinned memory without a GPU."""
    import ctypes
    import shutil

    assert pinned.empty((2, 3), np.dtype(np.float32), ("libno-such-runtime.so",)) is None
    assert shutil.which("gcc") is not None, "gcc is needed to build stubs of libraries: install it"
    library = tmp_path / "libcudart-stub.so"
    (tmp_path / "stub.c").write_text(STUB)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "stub.c"], check=True)
    stub = ctypes.CDLL(str(library))
    array = pinned.empty((2, 3), np.dtype(np.float32), (str(library),))
    assert array is not None
    assert stub.stub_held() == 1
    array[:] = 7
    view = array[1:]
    del array
    assert stub.stub_held() == 1
    assert view.tolist() == [[7, 7, 7]]
    del view
    assert stub.stub_held() == 0


# Memory

ARENA_BYTES = 48 << 20


@pytest.fixture(scope="module")
def small_arena():
    """A session of a real model in an arena of 48 MiB: ONNX Runtime itself says when that is used up."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limits = {"max_mem": ARENA_BYTES, "arena_extend_strategy": 1, "initial_chunk_size_bytes": 1 << 20}
    onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg(limits))

    def open_limited(path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.use_env_allocators", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return Session(session, {}, 1, Placement({}, "CPU"))

    return open_limited


def test_a_batch_that_does_not_fit_is_halved_until_it_does(small_arena, real_model, agree, caplog):
    model = real_model("orientation")
    session = small_arena(model.path)
    generator = np.random.default_rng(4)
    arrays = feed(session, model, generator, 24)
    with pytest.raises(OutOfMemoryError, match="smaller than requested bytes"):
        session.run(arrays)
    now = [1000.0]
    runner = memory.Halving(session, lambda: now[0])
    agree(opened(model.path), runner.run(arrays), arrays)
    assert "a batch of 24 rows does not fit into memory" in caplog.text
    learned = runner.bound.most_bytes
    assert learned is not None
    caplog.clear()
    runner.run(arrays)
    assert not caplog.text  # the bound is known: nothing fails
    now[0] += memory.FIRST_TRIAL_S
    runner.run(arrays)
    assert "does not fit" in caplog.text  # larger ones are tried again
    assert runner.bound.most_bytes == learned


def test_a_bucket_that_does_not_fit_is_left_out(small_arena, real_model, agree, caplog):
    model = real_model("orientation")
    session = small_arena(model.path)
    plan = SessionPlan(model.path, 1, batch_buckets="2,4,32")
    runner, described = bound.wrap(session, guess_for(session), plan)
    assert [bucket["rows"] for bucket in described["buckets"]] == [2, 4]
    assert "no bucket of 32 rows: it does not fit into memory" in caplog.text
    arrays = feed(session, model, np.random.default_rng(4), 9)
    agree(opened(model.path), runner.run(arrays), arrays)


def test_what_does_not_fit_is_answered_all_the_same(small_arena, build, tmp_path, score, caplog):
    path = tmp_path / "wide.onnx"
    path.write_bytes(
        build(
            [
                helper.make_node("Expand", ["X", "shape"], ["wide"]),
                helper.make_node("ReduceMax", ["wide", "axes"], ["Y"], keepdims=1),
            ],
            {"X": (TensorProto.FLOAT, ["N", 1])},
            {"Y": (TensorProto.FLOAT, ["N", 1])},
            [
                helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1 << 18]),
                helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            ],
        ).SerializeToString()
    )
    plan = SessionPlan(path, 1)
    engine = Engine(small_arena(path), "wide", 128, 0.0, wrap=lambda session, guess: bound.wrap(session, guess, plan))
    assert engine.info["batchable"]
    bodies = [{"data": [[float(row)]]} for row in range(60)]  # 1 MiB for each row
    *apart, whole = score(engine, [*bodies, {"data": [[float(row)] for row in range(60)]}])
    assert "does not fit into memory" in caplog.text
    assert [answer.status for answer in (*apart, whole)] == [200] * 61
    assert [answer.body["outputs"]["Y"][0][0] for answer in apart] == [float(row) for row in range(60)]
    assert whole.body["outputs"]["Y"] == [[float(row)] for row in range(60)]


def test_one_row_too_large_is_told_so(small_arena, build, tmp_path, score):
    path = tmp_path / "tall.onnx"
    path.write_bytes(
        build(
            [
                helper.make_node("MatMul", ["column", "X"], ["wide"]),
                helper.make_node("ReduceMax", ["wide", "axes"], ["Y"], keepdims=0),
            ],
            {"X": (TensorProto.FLOAT, ["N", 1, "M"])},
            {"Y": (TensorProto.FLOAT, ["N", "M"])},
            [
                helper.make_tensor("column", TensorProto.FLOAT, [4096, 1], [1.0] * 4096),
                helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            ],
        ).SerializeToString()
    )
    plan = SessionPlan(path, 1)
    engine = Engine(small_arena(path), "tall", 128, 0.0, wrap=lambda session, guess: bound.wrap(session, guess, plan))
    small, large = score(engine, [{"data": [[[1.0] * 8]]}, {"data": [[[1.0] * 8000]]}])
    assert small.status == 200
    assert large.status == 507
    assert "more memory for inputs of the shape [1, 1, 8000] than there is" in large.body["message"]
    assert "raise --gpu-memory-mb" in large.body["message"]
    (again,) = score(engine, [{"data": [[[2.0] * 8]]}])
    assert again.body["outputs"]["Y"] == [[2.0] * 8]


@pytest.mark.parametrize(
    ("text", "memory_is_out"),
    [
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... Failed to allocate memory for requested buffer of size 5",
            True,
        ),
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", True),
        ("CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0", True),
        ("BFCArena::AllocateRawInternal Available memory of 474880 is smaller than requested bytes of 25690112", True),
        ("std::bad_alloc", True),
        ("CUDA failure 700: an illegal memory access was encountered", False),
        ("CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED", False),
        ("Invalid input shape: {2,5}", False),
    ],
)
def test_which_failures_are_of_memory(text, memory_is_out):
    assert is_out_of_memory(text) is memory_is_out


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=a ; expr=x", True),
        ("CUDA failure 719: unspecified launch failure ; GPU=0", True),
        ("CUDA failure 214: uncorrectable ECC error encountered ; GPU=0", True),
        ("CUDA failure 2: out of memory ; GPU=0", False),
        ("CUDA failure 70: made up", False),
        ("CUDA failure 901: operation failed due to a previous error during capture", False),
        ("Invalid input shape: {2,700}", False),
    ],
)
def test_which_failures_lose_the_gpu(text, lost):
    assert is_device_lost(text) is lost


def test_a_lost_gpu_ends_the_scorer_in_place_of_failing_each_request(trained, always_bound, monkeypatch, score):
    """CUDA repeats such an error for every later call of the process: only another one can serve."""
    engine = load(
        {"target": str(trained.digits_mlp), "provider": "cpu", "batch_buckets": "2", "max_batch_size": 2, "threads": 1}
    )

    def lost(*_: Any) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lost)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", lost)
    with pytest.raises(DeviceLostError, match="the GPU is lost to this process"):
        score(engine, [{"data": [[0.0] * 64]}])


def test_the_bound_rises_slowly_and_more_slowly_after_each_failure():
    limit = memory.Bound()
    assert limit.rows(100, 1000, 0.0) == 100
    limit.fell(1000, 0.0)
    limit.fell(500, 0.1)  # the first half
    assert limit.rows(100, 1000, 1.0) == 25
    assert limit.rows(1, 5000, 1.0) == 1
    assert limit.rows(100, 1000, 31.0) == 50
    assert limit.rows(100, 1000, 60.0) == 50
    assert limit.rows(100, 1000, 62.0) == 100  # what failed is tried
    limit.fell(1000, 62.5)
    assert limit.rows(100, 1000, 62.6) == 50
    assert limit.rows(100, 1000, 93.0) == 50  # this time it takes twice as long
    assert limit.rows(100, 1000, 123.0) == 100


def test_load_says_what_the_plan_is_made_of(trained):
    plan = read({"target": str(trained.iris), "batch_buckets": "1,2", "cuda_graphs": "off", "max_batch_size": 9}, 1)
    assert (plan.batch_buckets, plan.cuda_graphs, plan.max_batch_size) == ("1,2", "off", 9)
    assert load({"target": str(trained.iris), "cuda_graphs": "off"}).info["why_no_cuda_graphs"] == "turned off"
