"""Which providers are tried, with which options, and what is said where a model does not run on the one asked for."""

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scoring_runtime import providers as table
from scoring_runtime.onnx import elf, libraries, nvidia, providers
from scoring_runtime.onnx.loading import _why_not_opened
from scoring_runtime.onnx.plan import SessionPlan, read
from scoring_runtime.onnx.providers import Machine, UnsuitableError, UnusableError, WrongOptionError
from scoring_runtime.scorer.loop import LoadError

MODEL = Path("/models/m.onnx")
NAMES = ("tensorrt", "cuda", "openvino", "cpu")
CUDA, CPU, TRT = "CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"


def plan(*names: str, require: bool = True, **more) -> SessionPlan:
    return SessionPlan(MODEL, 2, names or ("auto",), require, **more)


# Which are tried


@pytest.mark.parametrize(
    ("asked", "require", "available", "gpu", "tried"),
    [
        (("auto",), True, ("cpu",), False, ["cpu"]),
        (("auto",), True, ("cpu",), True, ["cpu"]),
        (("auto",), True, ("tensorrt", "cuda", "cpu"), False, ["cpu"]),
        (("auto",), True, ("tensorrt", "cuda", "cpu"), True, ["cuda", "cpu"]),
        (("auto",), False, ("tensorrt", "cuda", "cpu"), True, ["cuda", "cpu"]),
        (("auto",), True, ("openvino", "cpu"), False, ["openvino", "cpu"]),
        (("auto",), True, ("cuda", "openvino", "cpu"), True, ["cuda", "openvino", "cpu"]),
        (("cuda",), True, ("cpu",), False, ["cuda"]),
        (("cuda", "cpu"), True, ("cuda", "cpu"), True, ["cuda"]),
        (("cuda",), False, ("cpu",), False, ["cuda", "cpu"]),
        (("tensorrt", "cuda"), False, ("cpu",), False, ["tensorrt", "cuda", "cpu"]),
        (("cpu", "cuda"), False, ("cpu",), False, ["cpu", "cuda"]),
    ],
)
def test_candidates(asked, require, available, gpu, tried):
    machine = Machine(available, None if gpu else "this machine shows no NVIDIA GPU")
    assert providers.candidates(plan(*asked, require=require), machine) == tried


class Opener:
    """Opens a session, which is its provider's name, unless there is an error for it."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors

    def __call__(self, name: str) -> tuple[str, list[tuple[str, str]]]:
        if name in self.errors:
            raise self.errors[name]
        return name, [(table.PROVIDERS[name].onnx_name, "MatMul"), (CPU, "Shape")]


def test_what_is_required_and_cannot_be_had_is_an_error():
    with pytest.raises(LoadError) as caught:
        providers.place(plan("cuda", "cpu"), Machine(NAMES, None), Opener(cuda=UnusableError("no driver")))
    assert caught.value.message == "/models/m.onnx: the model cannot run on the provider cuda: no driver"


def test_what_is_preferred_and_cannot_be_had_is_told():
    errors = {"tensorrt": UnusableError("no libnvinfer"), "cuda": UnsuitableError("it can run no node")}
    session, placement = providers.place(
        plan("tensorrt", "cuda", require=False), Machine(NAMES, None), Opener(**errors)
    )
    assert session == "cpu"
    assert placement.degraded == "runs on cpu; tensorrt: no libnvinfer; cuda: it can run no node"
    assert placement.nodes == {"cpu": 2}


def test_the_first_that_works_is_not_degraded():
    session, placement = providers.place(plan("cuda", "cpu", require=False), Machine(NAMES, None), Opener())
    assert (session, placement.degraded, placement.nodes) == ("cuda", None, {"cuda": 1, "cpu": 1})
    assert placement.summary == "1 of 2 nodes on CUDA; on the CPU: Shape x1"


def test_auto_is_degraded_by_what_is_broken_whatever_the_policy():
    opener = Opener(cuda=UnusableError("libcudart.so.13 was not found"))
    session, placement = providers.place(plan(), Machine(("cuda", "cpu"), None), opener)
    assert session == "cpu"
    assert placement.degraded == "runs on cpu; cuda: libcudart.so.13 was not found"


def test_auto_is_not_degraded_by_a_model_that_is_not_for_it():
    opener = Opener(cuda=UnsuitableError("it can run none of the 7 nodes of this model"))
    _, placement = providers.place(plan(), Machine(("cuda", "cpu"), None), opener)
    assert placement.degraded is None
    assert placement.summary.endswith("; cuda: it can run none of the 7 nodes of this model")


def test_auto_does_not_take_a_provider_for_the_few_nodes_that_it_can_run():
    """Trees of scikit-learn come with a Cast, which CUDA has: their values would travel to the GPU for that."""
    nodes = {"cuda": [(CUDA, "Cast"), (CPU, "TreeEnsembleClassifier"), (CPU, "ZipMap")], "cpu": [(CPU, "Cast")] * 3}
    machine = Machine(("cpu", "cuda"), None)
    session, placement = providers.place(plan("auto"), machine, lambda name: (name, nodes[name]))
    assert session == "cpu"
    assert placement.degraded is None
    assert "cuda: it can run only 1 of the 3 nodes of this model" in placement.summary
    session, _ = providers.place(plan("cuda"), machine, lambda name: (name, nodes[name]))
    assert session == "cuda"  # who asks for it, gets it


def test_auto_says_what_the_installation_lacks_for_a_gpu_that_is_there():
    _, placement = providers.place(plan(), Machine(("cpu",), None), Opener())
    assert placement.degraded is None
    assert "has an NVIDIA GPU" in placement.summary
    assert "onnxruntime-gpu[cuda,cudnn]" in placement.summary


def test_a_refused_option_is_an_error_under_any_policy():
    opener = Opener(cuda=WrongOptionError("the provider option cuda.device_id=9 is refused"))
    with pytest.raises(LoadError, match=r"m\.onnx: the provider option cuda\.device_id=9 is refused"):
        providers.place(plan("cuda", require=False), Machine(NAMES, None), opener)


def test_what_a_library_says_is_a_line_of_bounded_length():
    opener = Opener(cuda=UnusableError("\x1b[31mred\nlines " + "x" * 9999))
    _, placement = providers.place(plan("cuda", require=False), Machine(NAMES, None), opener)
    assert placement.degraded is not None
    assert placement.degraded.isprintable()
    assert len(placement.degraded) == 2000


def test_a_session_that_runs_elsewhere_is_noticed():
    def check(asked: str, actual: list[str], *nodes: tuple[str, str]) -> None:
        providers.check_runs(asked, actual, nodes, lambda: "the reason")

    check("cuda", [CUDA, CPU], (CUDA, "MatMul"), (CPU, "Shape"))
    check("cpu", [CPU])
    with pytest.raises(UnusableError, match="the reason"):
        check("cuda", [CPU], (CPU, "MatMul"))
    with pytest.raises(UnusableError, match="the reason"):
        check("tensorrt", [CUDA, CPU], (CUDA, "MatMul"))
    with pytest.raises(UnsuitableError, match="none of the 2 nodes"):
        check("cuda", [CUDA, CPU], (CPU, "MatMul"), (CPU, "Shape"))


def test_the_summary_shows_the_operators_elsewhere_but_not_all():
    nodes = [(CUDA, "MatMul")] * 5 + [(CPU, "Shape")] * 3 + [(CPU, f"Op{number}") for number in range(10)]
    assert providers.summarise(nodes, "cuda") == (
        "5 of 18 nodes on CUDA; on the CPU: Shape x3, Op0 x1, Op1 x1, Op2 x1, Op3 x1, Op4 x1, Op5 x1, Op6 x1, 3 more"
    )
    assert providers.summarise([(CPU, "Add")], "cpu") == "all 1 nodes on the CPU"


def test_a_model_too_large_for_the_gpu_is_not_called_faulty():
    error = RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);")
    why = str(_why_not_opened("cuda", plan("cuda"), error))
    assert "too little memory for the model: CUDA failure 2: out of memory" in why
    assert "--gpu-memory-mb" in why
    assert "export it again" not in why


# With which options


def test_options_are_those_of_a_server_under_those_that_are_given():
    given = plan("tensorrt", gpu_memory_mb=512, options={"cuda": {"cudnn_conv_algo_search": "DEFAULT"}})
    (trt, trt_options), (cuda, cuda_options), cpu = providers.session_providers("tensorrt", given)
    assert (trt, trt_options, cuda, cpu) == (TRT, {}, CUDA, (CPU, {}))
    assert cuda_options == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "DEFAULT",
        "gpu_mem_limit": str(512 << 20),
        "use_tf32": "0",
    }
    assert [name for name, _ in providers.session_providers("cuda", given)] == [CUDA, CPU]
    assert [name for name, _ in providers.session_providers("cpu", given)] == [CPU]


def openvino_config(text: str) -> dict[str, str]:
    asked = read({"target": "m.onnx", "provider": "openvino", "provider_option": text}, threads=3)
    return providers.openvino_options(providers.options("openvino", asked), asked.options.get("openvino", {}))


def test_openvino_is_exact_unpinned_and_takes_the_threads_of_the_scorer():
    (config,) = openvino_config("").values()
    assert json.loads(config) == {
        "CPU": {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": "3",
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": False,
        }
    }


def test_openvino_options_become_its_properties():
    text = 'openvino.precision=bf16; openvino.cache_dir=/c; openvino.load_config={"CPU": {"NUM_STREAMS": 2}, "X": {"A": 1}}'
    config = json.loads(openvino_config(text)["load_config"])
    assert config["X"] == {"A": 1}
    assert config["CPU"]["INFERENCE_PRECISION_HINT"] == "bf16"
    assert config["CPU"]["CACHE_DIR"] == "/c"
    assert config["CPU"]["NUM_STREAMS"] == 2


def test_openvino_on_a_gpu_gets_only_what_was_given():
    given = openvino_config("openvino.device_type=GPU; openvino.precision=FP16; openvino.reshape_input=x[1,2]")
    assert json.loads(given["load_config"]) == {"GPU": {"INFERENCE_PRECISION_HINT": "f16"}}
    assert given["reshape_input"] == "x[1,2]"


@pytest.mark.parametrize("text", ["[1]", "{", '{"CPU": 1}'])
def test_a_load_config_that_is_none_is_named(text):
    with pytest.raises(WrongOptionError, match=r"openvino\.load_config="):
        openvino_config(f"openvino.load_config={text}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('Failed to parse provider option "device_id": invalid', "cuda.device_id=9"),
        ("Wrong value f7 for property key INFERENCE_PRECISION_HINT.", "openvino.precision=FP7"),
        ("NotFound: Unsupported property NOPE by CPU plugin", 'openvino.load_config={"CPU": {"NOPE": 1}}'),
        ("the_device_id of something else", None),
        ("Protobuf parsing failed", None),
    ],
)
def test_the_refused_option_is_found_in_the_message(text, named):
    given = {
        "cuda": {"device_id": "9"},
        "openvino": {"precision": "FP7", "load_config": '{"CPU": {"NOPE": 1}}'},
    }
    assert providers.refused_option(text, given) == named


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (table.parse_list, "cudda", "no provider 'cudda' (did you mean 'cuda'?)"),
        (table.parse_list, "cuda,cpu,tensorflow", "no provider 'tensorflow' (did you mean 'tensorrt'?)"),
        (table.parse_list, "auto,cpu", "auto stands alone"),
        (table.parse_options, "cuda.use_tf23=0", "cuda has no option 'use_tf23' (did you mean 'use_tf32'?)"),
        (table.parse_options, "cpu.x=0", "the provider cpu has no options"),
        (table.parse_options, "openvin.precision=FP32", "no provider 'openvin' (did you mean 'openvino'?)"),
        (table.parse_options, "openvino.precison=FP32", "did you mean 'precision'?"),
        (table.parse_options, "tensorrt.trt_cuda_graph_enable=1", "--cuda-graphs captures on the provider cuda"),
    ],
)
def test_the_nearest_name_is_told(parse, text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(text)


# What the machine has


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides every GPU"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "hides every GPU"),
        ({"CUDA_VISIBLE_DEVICES": "-1,0"}, "hides every GPU"),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, None),  # as CDI sets it in containers that do have GPUs
        ({"CUDA_VISIBLE_DEVICES": "0,1", "NVIDIA_VISIBLE_DEVICES": "all"}, None),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1b2c"}, None),
        ({}, None),
    ],
)
def test_gpus_may_be_hidden(environ, says, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    why = nvidia.why_no_gpu(environ, tmp_path)
    assert why == nvidia.why_hidden(environ)
    assert why is None if says is None else says in str(why)


@pytest.mark.parametrize(
    ("files", "gpu"),
    [
        (["dev/nvidia0"], True),
        (["proc/driver/nvidia/gpus/0000:01:00.0/information"], True),
        (["dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"], True),
        (["dev/dxg"], False),
        (["dev/nvidiactl", "dev/nvidia-uvm"], False),
        ([], False),
    ],
)
def test_gpus_are_seen_by_the_files_of_their_driver(files, gpu, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert (nvidia.why_no_gpu({}, tmp_path) is None) is gpu


# What libraries need


def build(folder: Path, name: str, *links: str) -> Path:
    """A shared library that does nothing, and needs others."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    others = [f"-l:{link}" for link in links]
    shared = ["gcc", "-shared", "-fPIC", "-xc", "/dev/null", f"-Wl,-soname,{name}", "-Wl,--no-as-needed"]
    subprocess.run([*shared, f"-L{folder}", *others, "-o", path], check=True)
    return path


@pytest.fixture
def gcc() -> None:
    assert shutil.which("gcc") is not None, "gcc is needed to build stubs of libraries: install it"


def test_needed_libraries_are_read_from_the_file(gcc, tmp_path):
    build(tmp_path, "libfirst-13.so.13")
    build(tmp_path, "libsecond.so.1.2")
    top = build(tmp_path, "libtop.so", "libfirst-13.so.13", "libsecond.so.1.2")
    assert elf.needed(top.read_bytes())[:2] == ["libfirst-13.so.13", "libsecond.so.1.2"]
    assert libraries.needed(top) == [name for name in elf.needed(top.read_bytes()) if "ld-linux" not in name]


def test_a_damaged_library_is_no_crash(gcc, tmp_path):
    content = build(tmp_path, "libdamaged.so").read_bytes()
    for end in (*range(0, 1024, 7), len(content) // 2):
        try:
            elf.needed(content[:end])
        except elf.MalformedLibraryError:
            continue
    for position in range(64, 1024, 5):
        try:
            elf.needed(content[:position] + b"\xff" + content[position + 1 :])
        except elf.MalformedLibraryError:
            continue
    with pytest.raises(elf.MalformedLibraryError):
        elf.needed(b"not a library")


def test_what_is_missing_is_told_with_what_lies_in_its_place(gcc, tmp_path):
    old = build(tmp_path, "libolder.so.12")
    build(tmp_path, "libpresent.so.3")
    broken = tmp_path / "libbroken.so.1"
    broken.write_bytes(b"no library")
    names = ["libolder.so.13", "libabsent.so.1", "libgone.so.2", "libpresent.so.3", "libc.so.6"]
    assert libraries.why_missing(names, [tmp_path]) == (
        f"libolder.so.13 was not found, but {old}, which is of another major version; "
        "libabsent.so.1, libgone.so.2 were not found"
    )
    assert libraries.why_missing(["libpresent.so.3"], [tmp_path]) is None
    ctypes.CDLL("libpresent.so.3")  # loaded by its path, it is found by its name
    assert f"{broken} cannot be loaded" in str(libraries.why_missing(["libbroken.so.1"], [tmp_path]))


def test_other_versions_of_a_library(tmp_path):
    for name in ("libx.so.12.4.1", "libx.so.13.0", "libx.so", "libxy.so.11", "liby.so.9"):
        (tmp_path / name).touch()
    assert libraries.other_versions("libx.so.13", [tmp_path]) == [tmp_path / "libx.so.12.4.1"]


def test_libraries_are_looked_for_where_wheels_and_the_linker_have_them(tmp_path):
    packages = tmp_path / "site-packages"
    wanted = [
        "site-packages/nvidia/cu13/lib",
        "site-packages/tensorrt_libs",
        "mine",
        "opt/cuda",
        "usr/local/cuda-13.0/lib64",
    ]
    for folder in wanted:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf.d/cuda.conf").write_text("# CUDA\n/opt/cuda\n")
    found = libraries.folders(packages, {"LD_LIBRARY_PATH": f":{tmp_path}/mine:/nowhere"}, tmp_path)
    assert found == [tmp_path / folder for folder in wanted]
