"""A server as it is started, with the packages of this interpreter, and load on it: for gpu_check.py.

The server's own interpreter is isolated: it sees no PYTHONPATH and no working directory. Where nothing may be installed, it
gets an environment of its own that names the folders of this one.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.gpu_models import ROOT, Inputs

READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 20.0


class ServingError(Exception):
    """The server could not be measured. The text has what it printed last."""


def interpreter(folder: Path) -> Path:
    """An environment in `folder` that sees what this interpreter sees, isolated or not; this repository last."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    seen = [str(Path(path).resolve()) for path in sys.path if path and Path(path).is_dir()]
    standard = {str(Path(os.__file__).parent), str(Path(os.__file__).parent / "lib-dynload")}
    paths = [path for path in dict.fromkeys(seen) if path not in standard and path != str(ROOT)]
    (site / "these.pth").write_text("\n".join([*paths, str(ROOT)]) + "\n")
    return folder / "bin" / "python"


@contextlib.contextmanager
def serving(python: Path, model: Path, flags: Sequence[str], folder: Path, port: int = 0) -> Iterator[int]:
    """A server that is ready; its port."""
    port = port or _free_port()
    command = [str(python), "-I", "-m", "scoring_runtime", "serve", str(model), "--port", str(port), *flags]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "SCORING_DRAIN_GRACE_S": "0.1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while get(port, "/readyz")[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServingError(f"{' '.join(command)}: not ready: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its scorers end with it
            process.wait()


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body; 0 when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


_DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32"}


def binary_request(inputs: Inputs) -> tuple[str, bytes]:
    """Lines of headers and a body of the Open Inference Protocol, with inputs and outputs as raw bytes."""
    blobs = [np.ascontiguousarray(array).tobytes() for array in inputs.values()]
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _DATATYPES[array.dtype.name],
            "parameters": {"binary_data_size": len(blob)},
        }
        for (name, array), blob in zip(inputs.items(), blobs, strict=True)
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = f"Content-Type: application/octet-stream\nInference-Header-Content-Length: {len(head)}\n"
    return headers, head + b"".join(blobs)


def post_again(
    port: int, model: str, inputs: Inputs, connections: int, seconds: float, clients: int, folder: Path
) -> float:
    """Answers with 200 a second that so many client processes get together, after a warm-up."""
    headers, body = binary_request(inputs)
    (folder / "headers").write_text(headers)
    (folder / "body").write_bytes(body)
    each = max(1, connections // clients)
    words = ["--port", port, "--path", f"/v2/models/{model}/infer", "--connections", each]
    words += ["--body", folder / "body", "--headers", folder / "headers"]

    def rates(for_s: float) -> list[float]:
        command = [sys.executable, "-m", "benchmarks.open_loop", *map(str, words), "--seconds", str(for_s)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        running = [
            subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(clients)
        ]
        found = []
        for client in running:
            output, errors = client.communicate()
            if client.returncode:
                raise ServingError(f"the load client failed: {errors.decode(errors='replace')[-500:]}")
            found.append(float(json.loads(output)["good_per_s"]))
        return found

    rates(min(1.0, seconds / 2))
    return sum(rates(seconds))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
