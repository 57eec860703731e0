"""Containers as people start them, and nothing left behind."""

import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

ROOT = Path(__file__).resolve().parents[2]
if "images" not in sys.modules:  # without this folder's root on sys.path, where the source tree would hide the wheel
    spec = importlib.util.spec_from_file_location(
        "images", ROOT / "images/__init__.py", submodule_search_locations=[str(ROOT / "images")]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["images"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["images"])

WAIT_S = 60.0
NAME = "localhost/scoring-runtime"
BUILT_HERE = ("cpu", "minimal", "openvino", "cpu-mpi")
"""What `make images-test` builds."""
PREFER = ("-e", "SCORING_PROVIDER_POLICY=prefer")
"""For the example's model, which is made of what only the CPU runs."""

HARDENED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:rw,exec,mode=1777", "--user", "123456:0"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory", "512m", "--pids-limit", "64"),
)
"""What a cluster that trusts nobody grants."""


class Answer(NamedTuple):
    """A response, or what a command printed."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def podman(*arguments: str | Path, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run podman; what it printed."""
    environ = {"CONTAINERS_CONF": str(ROOT / "images" / "containers.conf"), **os.environ}
    command = ["podman", "--log-level", "fatal", *map(str, arguments)]
    ended = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=timeout_s)
    assert ended.returncode == 0 or not check, f"{command}: {ended.stderr}"
    return ended


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Container:
    """A running container of ours, on the host's network."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port

    @classmethod
    def run_image(cls, image: str, options: Sequence[str], command: Sequence[str]) -> "Container":
        started = cls(f"scoring-runtime-test-{uuid.uuid4().hex[:12]}", free_port())
        own = ("--network", "host", "--no-healthcheck", "-e", f"SCORING_PORT={started.port}")
        podman("run", "-d", "--name", started.name, *own, *options, image, *command)
        return started

    def ask(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            fields = {"Content-Type": "application/json", **(headers or {})}
            connection.request("GET" if body is None else "POST", path, body, fields)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def await_ready(self) -> "Container":
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                if self.ask("/readyz").status == 200:
                    return self
            except OSError:
                pass  # not listening yet
            assert self.running, self.log
            assert time.monotonic() < deadline, f"not ready after {WAIT_S:g} s:\n{self.log}"
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        return podman("inspect", self.name, "--format", "{{.State.Running}}").stdout.strip() == "true"

    @property
    def log(self) -> str:
        shown = podman("logs", self.name)
        return shown.stdout + shown.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return podman("exec", self.name, *command, check=False)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        podman("stop", "--time", "20", self.name)
        return self.wait()

    def wait(self) -> int:
        return int(podman("wait", self.name, timeout_s=WAIT_S).stdout.strip())


Start = Callable[..., Container]


@contextmanager
def started() -> Iterator[Start]:
    containers: list[Container] = []

    def start(image: str, *options: str, command: Sequence[str] = ()) -> Container:
        containers.append(Container.run_image(image, options, command))
        return containers[-1]

    try:
        yield start
    finally:
        for container in containers:
            podman("rm", "-f", "--time", "0", container.name, check=False)


@pytest.fixture
def start() -> Iterator[Start]:
    with started() as starter:
        yield starter


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds one ONNX model."""
    folder = tmp_path_factory.mktemp("models")
    folder.chmod(0o755)
    shutil.copy(ROOT / "examples" / "digits" / "digits.onnx", folder)
    return folder


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds one ONNX model which every provider runs: y = relu(x W + b), of 3 columns to 2."""
    folder = tmp_path_factory.mktemp("dense")
    folder.chmod(0o755)
    nodes = [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["z"]), onnx.helper.make_node("Relu", ["z"], ["y"])]
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["rows", size]) for name, size in (("x", 3), ("y", 2)))
    w = onnx.numpy_helper.from_array(np.array([[1, -1], [2, 0], [0, 3]], np.float32), "w")
    b = onnx.numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "b")
    graph = onnx.helper.make_graph(nodes, "dense", [x], [y], [w, b])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])
    onnx.save(model, folder / "dense.onnx")
    return folder


@pytest.fixture(scope="session")
def request_body() -> bytes:
    return (ROOT / "examples" / "digits" / "request.json").read_bytes()


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[[str, dict[str, str]], str]]:
    """Build a derived image from a Dockerfile and files; its name."""
    built: list[str] = []

    def make(dockerfile: str, files: dict[str, str]) -> str:
        context = tmp_path / f"context-{len(built)}"
        context.mkdir()
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            (context / name).write_text(text)
        tag = f"localhost/scoring-runtime-test:{uuid.uuid4().hex[:12]}"
        ca_bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        secret = ["--secret", f"id=ca_bundle,src={ca_bundle}"] if ca_bundle.is_file() else []
        podman("build", "--isolation", "chroot", "--format", "docker", *secret, "-t", tag, context)
        built.append(tag)
        return tag

    yield make
    for tag in built:
        podman("rmi", "-f", tag, check=False)
