"""Floors without HTTP: a part of a request's work, done again and again by one process. Prints one JSON object."""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Step = Callable[[], object]

BLOCK_S = 0.05
"""How long to run between two looks at the clock."""


def session_run(model: Path, body: Path) -> Step:
    """One run of ONNX Runtime, on one thread, with what the body holds."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    document = json.loads(body.read_bytes())
    types = {tensor.name: np.int64 if "int64" in tensor.type else np.float32 for tensor in session.get_inputs()}
    values = document.get("inputs") or {next(iter(types)): document["data"]}
    arrays = {name: np.array(values[name], dtype) for name, dtype in types.items()}
    return lambda: session.run(None, arrays)


def simdjson_parse(_model: Path, body: Path) -> Step:
    """Parse the body, and look at nothing in it."""
    import simdjson

    parser = simdjson.Parser()
    text = body.read_bytes()

    def parse() -> None:
        document = parser.parse(text)
        del document  # the parser must not be used again while objects of it live

    return parse


def decode(model: Path, body: Path) -> Step:
    """The server's own way from the body to arrays."""
    from scoring_runtime.onnx.codecs.json import JsonCodec
    from scoring_runtime.onnx.loading import open_session
    from scoring_runtime.onnx.plan import SessionPlan

    session = open_session(SessionPlan(model, 1))
    codec = JsonCodec(session.inputs, session.outputs)
    text = body.read_bytes()
    return lambda: codec.decode(text)


def copies(_model: Path, body: Path) -> Step:
    """Write the body into a socket pair and read it again: one copy out of the process and one in."""
    return _through(*socket.socketpair(), body)


def tcp(_model: Path, body: Path) -> Step:
    """The same through a TCP connection, as a client's body comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    return _through(here, there, body)


def _through(here: socket.socket, there: socket.socket, body: Path) -> Step:
    data = memoryview(body.read_bytes())
    here.setblocking(False)
    received = bytearray(len(data))

    def both_ways() -> None:
        sent = got = 0
        while got < len(data):
            if sent < len(data):
                with contextlib.suppress(BlockingIOError):
                    sent += here.send(data[sent:])
            got += there.recv_into(memoryview(received)[got:])

    return both_ways


LOOPS: dict[str, Callable[[Path, Path], Step]] = {
    "raw": session_run,
    "raw-two": session_run,
    "simdjson": simdjson_parse,
    "decode": decode,
    "copies": copies,
    "tcp": tcp,
}
PROCESSES = {"raw-two": 2}


def run(name: str, model: Path, body: Path, seconds: float, core: int) -> dict[str, float]:
    os.sched_setaffinity(0, {core})
    step = LOOPS[name](model, body)
    begun = time.monotonic()
    step()
    block = max(1, int(BLOCK_S / max(1e-7, time.monotonic() - begun)))
    requests = 0
    cpu_ns = time.process_time_ns()
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        for _ in range(block):
            step()
        requests += block
    return {"requests": requests, "cpu_ns": time.process_time_ns() - cpu_ns, "wall_ns": int((now - begun) * 1e9)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=LOOPS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--cores", type=json.loads, required=True)
    arguments = parser.parse_args()
    work = [
        (arguments.name, arguments.model, arguments.body, arguments.seconds, core)
        for core in arguments.cores[: PROCESSES.get(arguments.name, 1)]
    ]
    with multiprocessing.get_context("spawn").Pool(len(work)) as pool:
        runs = pool.starmap(run, work)
        pool.close()
        pool.join()
    total = {key: sum(one[key] for one in runs) for key in ("requests", "cpu_ns")}
    print(
        json.dumps(
            {
                **total,
                "wall_ns": max(one["wall_ns"] for one in runs),
                "requests_per_s": round(sum(one["requests"] / one["wall_ns"] * 1e9 for one in runs), 1),
                "processes": len(runs),
                "memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
