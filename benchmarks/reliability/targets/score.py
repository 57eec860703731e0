"""The script that every server runs: it answers with the request's number, and does the harm that it is asked for."""

import ctypes
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

RUN_S = 0.005
MAY_GROW_BYTES = 1 << 30
_FOLDER = Path(os.environ["RELIABILITY_FOLDER"])

begun = -1
busy = -1


def init() -> None:
    """Note who is at work. No worker may take more than 1 GiB more than it has now."""
    global begun, busy
    size_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes + MAY_GROW_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    begun = _append("begun")
    busy = os.open(_FOLDER / f"busy-{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(_append("workers"), b"%d\n" % os.getpid())


def run(data: Any) -> dict[str, int]:
    """Begun is begun: the number is noted before anything else."""
    order = json.loads(data) if isinstance(data, str) else data
    os.write(begun, b"%d\n" % order["number"])
    os.pwrite(busy, b"%-24f" % time.monotonic(), 0)  # since when, for whoever wants to know whether it hangs
    try:
        harm(order.get("do", ""))
        time.sleep(RUN_S)
    finally:
        os.pwrite(busy, b"%-24f" % 0, 0)
    return {"number": order["number"], "twice": 2 * order["number"]}


def harm(do: str) -> None:
    """What a bad request makes a script do."""
    if do == "raise":
        raise ValueError("told to fail")
    if do == "exit":
        os._exit(1)
    if do == "segfault":
        ctypes.string_at(0)
    if do == "loop":
        while True:
            pass
    if do == "hold":
        sum(range(10**15))  # C code that keeps the interpreter to itself
    if do == "memory":
        held = []
        while True:
            held.append(b"x" * (16 << 20))


def _append(name: str) -> int:
    return os.open(_FOLDER / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
