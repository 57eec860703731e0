"""Where a model runs, as it is told: with the GPU build on a machine without a GPU, and on OpenVINO.

The GPU build lies in .venv-gpu and OpenVINO's plugin in .venv-openvino, made by `make gpu-wheel openvino-wheel`. The libraries
of CUDA that some tests put in its way are stubs, compiled here: nothing in this file runs on a GPU.
"""

import ctypes
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import pytest

ROOT = Path(__file__).parents[2]
ROWS = {"data": [[5.1, 3.5, 1.4, 0.2]]}


def installation(name: str) -> list[str]:
    """The command of the server in another environment."""
    if sys.platform != "linux":
        pytest.skip(f"{name} is made on Linux only")
    command = ROOT / name / "bin" / "scoring-runtime"
    if not command.exists():
        pytest.fail(f"{name} is missing: run the tests with `make test`")
    return [str(command)]


@pytest.fixture
def gpu_build() -> list[str]:
    """The server with onnxruntime-gpu, on a machine that has no GPU."""
    if Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/gpus").exists():
        pytest.skip("this machine has an NVIDIA GPU: what is shown here is what happens without one")
    return installation(".venv-gpu")


@pytest.fixture(scope="module")
def openvino_build(trained, tmp_path_factory) -> list[str]:
    """The server with OpenVINO's plugin, on a machine whose CPU the plugin runs on."""
    program = installation(".venv-openvino")
    ended = subprocess.run(
        [*program, "check", trained.iris, "--provider", "openvino"],
        cwd=tmp_path_factory.mktemp("probe"),
        capture_output=True,
        text=True,
        check=False,
    )
    if "offers no device CPU" in ended.stdout + ended.stderr:
        pytest.skip("OpenVINO's plugin offers no device on this CPU")
    return program


def metric(text: str, name: str) -> float:
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Without a GPU


def test_a_provider_that_is_required_and_not_there_ends_the_start(gpu_build, command, trained):
    ended = command("serve", trained.iris, "--provider", "cuda", "--port", free_port(), program=gpu_build)
    assert ended.code == 3
    assert "the model cannot run on the provider cuda: no NVIDIA driver: libcuda.so.1 was not found" in ended.last_line
    assert "Ready on" not in ended.output
    assert "onnxruntime:Default" not in ended.output, "ONNX Runtime prints what it tries"


def test_a_provider_that_is_preferred_and_not_there_is_told_everywhere(gpu_build, serve, trained):
    flags = ("--provider", "cuda,cpu", "--provider-policy", "prefer", "--scorers", "2")
    with serve(trained.iris, *flags, command=(*gpu_build, "serve")) as server:
        assert server.score(ROWS).status == 200
        ready = server.get("/readyz?verbose")
        assert ready.status == 200
        state, degraded, *scorers = ready.body.decode().splitlines()
        assert (state, len(scorers)) == ("ok", 2)
        assert degraded.startswith("degraded: runs on cpu; cuda: no NVIDIA driver: libcuda.so.1 was not found")
        metrics = server.get("/metrics").body.decode()
        assert metric(metrics, "scoring_degraded") == 1
        assert metric(metrics, 'scoring_provider_nodes{provider="cpu"}') > 0
        model = server.get(f"/v2/models/{trained.iris.stem}").json
        assert model["providers"] == ["CPUExecutionProvider"]
        assert model["degraded"] == degraded.removeprefix("degraded: ")
        warnings = [line for line in server.log.splitlines() if "Degraded: runs on cpu; cuda: no NVIDIA driver" in line]
        assert len(warnings) == 1, "once, not for each scorer"


def test_auto_without_a_gpu_is_the_cpu_and_not_degraded(gpu_build, serve, trained):
    with serve(trained.iris, "--scorers", "2", command=(*gpu_build, "serve")) as server:
        assert server.score(ROWS).status == 200
        assert b"degraded" not in server.get("/readyz?verbose").body
        assert metric(server.get("/metrics").body.decode(), "scoring_degraded") == 0
        told = re.findall(r"The model runs here: (.*)\.", server.log)
        assert len(told) == 1
        assert re.fullmatch(r"all \d+ nodes on the CPU; this machine shows no NVIDIA GPU", told[0])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--provider", "cudda"), "there is no provider 'cudda' (did you mean 'cuda'?)"),
        (("--provider-option", "cuda.use_tf23=0"), "cuda has no option 'use_tf23' (did you mean 'use_tf32'?). Try `"),
        (
            ("--provider", "cuda"),
            "has only cpu. Put the GPU build in its place: pip uninstall onnxruntime; pip install",
        ),
        (("--provider", "openvino"), "has only cpu. Add the plugin: pip install onnxruntime-ep-openvino"),
    ],
)
def test_what_the_usual_build_does_not_have(flags, says, command, trained):
    ended = command("check", trained.iris, *flags)
    assert ended.code != 0
    assert says in ended.last_line


# Stubs of the driver and of CUDA's libraries

DRIVER = """
#include <stdlib.h>
static int number(const char *name, int other) { const char *text = getenv(name); return text ? atoi(text) : other; }
int cuInit(unsigned flags) { return number("LC_STUB_INIT", 0); }
int cuDeviceGetCount(int *count) { *count = number("LC_STUB_DEVICES", 1); return 0; }
int cuDriverGetVersion(int *version) { *version = number("LC_STUB_VERSION", 13000); return 0; }
"""
NEEDED = ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13")


@pytest.fixture
def stubs(tmp_path) -> Callable[..., dict[str, str]]:
    """Build stubs of these libraries; the environment in which they are found."""
    assert shutil.which("gcc") is not None, "gcc is needed to build stubs of libraries: install it"
    with suppress(OSError):
        ctypes.CDLL(NEEDED[0])
        pytest.skip(f"{NEEDED[0]} is installed on this machine")

    def build(*names: str) -> dict[str, str]:
        folder = tmp_path / "stubs"
        folder.mkdir()
        for name in names:
            text = DRIVER if name.startswith("libcuda.") else ""
            compiler = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-xc", "-", "-o", folder / name]
            subprocess.run(compiler, input=text, text=True, check=True)
        return {"LD_LIBRARY_PATH": str(folder)}

    return build


@pytest.fixture
def refusal(gpu_build, command, trained) -> Callable[[dict[str, str]], str]:
    """What is said in this environment when CUDA is required: the output up to the reason, and the reason as its last line."""

    def ask(environ: dict[str, str]) -> str:
        ended = command("check", trained.iris, "--provider", "cuda", environ=environ, program=gpu_build)
        assert ended.code == 3
        before, _, why = ended.output.rstrip().rpartition("the model cannot run on the provider cuda: ")
        return f"{before}\n{why}"

    return ask


def test_a_library_of_another_major_version_is_named(refusal, stubs, tmp_path):
    environ = stubs("libcuda.so.1", "libcublasLt.so.12", *NEEDED[1:])
    why = refusal(environ).splitlines()[-1]
    assert why == (
        f"libcublasLt.so.13 was not found, but {tmp_path}/stubs/libcublasLt.so.12, which is of another major version. "
        f"Install the CUDA libraries: pip install 'onnxruntime-gpu[cuda,cudnn]=={onnxruntime.__version__}'"
    )


def test_a_missing_library_is_named(refusal, stubs):
    environ = stubs("libcuda.so.1", *NEEDED[2:])
    why = refusal(environ).splitlines()[-1]
    assert why.startswith("libcublasLt.so.13, libcublas.so.13 were not found. Install the CUDA libraries: pip install")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"LC_STUB_DEVICES": "0"}, "no device: the NVIDIA driver is there, but shows no GPU"),
        (
            {"LC_STUB_INIT": "100", "CUDA_VISIBLE_DEVICES": "GPU-7"},
            "no device: the NVIDIA driver is there, but shows no GPU among CUDA_VISIBLE_DEVICES=GPU-7. In a container",
        ),
        ({"LC_STUB_INIT": "999"}, "the NVIDIA driver does not start (cuInit returned 999)"),
        ({"LC_STUB_VERSION": "12040"}, "the NVIDIA driver knows CUDA up to 12.4, but CUDA 13 is needed"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "no device: CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
    ],
)
def test_a_driver_that_cannot_serve_says_why(environ, says, refusal, stubs):
    libraries = stubs("libcuda.so.1", *NEEDED)
    assert refusal(libraries | environ).splitlines()[-1].startswith(says)


def test_a_library_that_is_not_what_its_name_says_is_no_silent_fallback(refusal, stubs):
    """All files are there, but ONNX Runtime cannot use them: then it opens a session on the CPU, without an error."""
    output = refusal(stubs("libcuda.so.1", *NEEDED))
    why = output.splitlines()[-1]
    assert why.startswith("onnxruntime could not load it: ")
    assert "libonnxruntime_providers_cuda.so" in why
    assert "models with convolutions, recurrent layers or FFTs will not run on CUDA: libcudnn.so.9" in output


# OpenVINO


@pytest.mark.parametrize("name", ["lac", "orientation", "diabetes_trees"])
def test_openvino_runs_models_and_answers_as_the_cpu_does(name, real_model, openvino_build, serve, compare):
    model = real_model(name)
    feed = model.make(np.random.default_rng(3), 2)
    document = {"inputs": feed} if len(feed) > 1 else {"data": next(iter(feed.values()))}
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    flags = ("--provider", "openvino", "--provider-policy", "prefer")
    with serve(model.path, *flags, command=(*openvino_build, "serve")) as server:
        answer = server.score(body)
        metadata = server.get(f"/v2/models/{model.path.stem}").json
    assert answer.status == 200, answer.body
    if name == "diabetes_trees":  # OpenVINO has no operators of ai.onnx.ml
        assert metadata["degraded"].startswith("runs on cpu; openvino: it can run none of the ")
        assert metadata["providers"] == ["CPUExecutionProvider"]
    else:
        assert metadata["degraded"] is None
        assert metadata["providers"][0] == "OpenVINOExecutionProvider"
        assert metadata["nodes"]["openvino"] > 10
    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    compare(json.loads(answer.body)["outputs"], names, session.run(names, feed))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("precision=FP7", "option openvino.precision=FP7 is refused: Wrong value FP7 for property key"),
        ("num_of_threads=x", "option openvino.num_of_threads=x is refused: Wrong value for property key"),
        ('load_config={"CPU": {"NOPE": 1}}', '{"CPU": {"NOPE": 1}} is refused: NotFound: Unsupported property NOPE'),
        ("load_config=nope.json", "option openvino.load_config=nope.json is no JSON"),
        ("reshape_input=x", "option openvino.reshape_input=x is refused"),
        (
            "device_type=GPU",
            "cannot run on the provider openvino: OpenVINO offers no device GPU on this machine, but CPU",
        ),
    ],
)
def test_an_option_that_is_refused_is_named_with_its_value(option, says, openvino_build, command, real_model):
    path = real_model("lac").path
    flags = ("--provider", "openvino", "--provider-option", f"openvino.{option}")
    ended = command("check", path, *flags, program=openvino_build)
    assert ended.code == 3
    assert says in ended.last_line


def test_auto_takes_openvino_where_its_plugin_is_what_was_installed(openvino_build, command, real_model):
    ended = command("check", real_model("lac").path, program=openvino_build)
    assert ended.code == 0
    assert "nodes on OpenVINO" in ended.output
    assert "degraded" not in ended.output
