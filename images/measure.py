"""Sizes, times and memory of the images that were built here: `python -m images.measure`. Writes benchmarks/results/images.json
and, with `--write`, the table of docs/images.md from it.

Start to first answer: from `podman run` to the first 200 of /score, a model of 40 kB mounted, everything read once before.
"""

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from . import build, engine, family

RESULTS = family.HERE.parent / "benchmarks" / "results" / "images.json"
PAGE = family.HERE.parent / "docs" / "images.md"
BEGINS, ENDS = "<!-- measured -->", "<!-- end of measured -->"
MODEL = family.HERE.parent / "examples" / "digits"
REPEATS = 5
WAIT_S = 60.0
IDLE_S = 5.0
"""How long a server rests before its memory is read."""


def main(arguments: Sequence[str]) -> int:
    """Measure the images that are named; every image that was built here when none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("--write", action="store_true", help="write the table from the results, and measure nothing")
    parsed = parser.parse_args(arguments)
    known = family.load()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"images": {}}
    if not parsed.write:
        named = [known.find(name) for name in parsed.images]
        for image in named or [each for each in known.images.values() if engine.exists(known.tag(each))]:
            results["images"][image.name] = measure(known, image)
            print(f"images: {image.name}: {results['images'][image.name]}", flush=True)
        results["machine"] = machine()
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 0


def measure(known: family.Family, image: family.Image) -> dict[str, Any]:
    """Numbers of one image."""
    tag = known.tag(image)
    base = build.root_tag("MINIMAL_BASE_IMAGE" if known.root(image).target == "minimal" else "BASE_IMAGE")
    layers = json.loads(ask_history(tag))
    found: dict[str, Any] = {
        "size_bytes": size_bytes(tag),
        "base_bytes": size_bytes(base),
        "compressed_bytes": compressed_bytes(tag),
        "layers": [{"bytes": each["size"], "by": _shortened(each["CreatedBy"])} for each in layers if each["size"]],
    }
    if known.root(image).target != "cuda":  # it does not start without a GPU
        times, memory = zip(*(start_once(tag) for _ in range(REPEATS)), strict=True)
        found |= {"first_answer_s": statistics.median(times), "idle_pss_bytes": int(statistics.median(memory))}
    return found


def ask_history(tag: str) -> str:
    """The layers of an image, as podman tells them."""
    return engine.ask("history", "--no-trunc", "--human=false", "--format", "json", tag)


def _shortened(command: str) -> str:
    """Without what differs from build to build."""
    text = re.sub(r"(?<=dir|ile):[0-9a-f]{64}", "", command.removeprefix("/bin/sh -c #(nop) "))
    return " ".join(text.split())[:100]


def size_bytes(tag: str) -> int:
    """Uncompressed, as podman counts it."""
    return int(engine.ask("image", "inspect", tag, "--format", "{{.Size}}"))


def compressed_bytes(tag: str) -> int:
    """What a registry would send, near enough: the archive of all layers, through gzip."""
    command = ["bash", "-o", "pipefail", "-c", 'podman save "$0" | gzip -c | wc -c', tag]
    return int(subprocess.run(command, check=True, env=engine.environ(), stdout=subprocess.PIPE, text=True).stdout)


def start_once(tag: str) -> tuple[float, int]:
    """Seconds to the first answer, and bytes of memory at rest (PSS: what is shared counts once)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["--network", "host", "--no-healthcheck", "--read-only", "-e", f"SCORING_PORT={port}"]
    # The example is for the CPU: where it runs makes no difference to what is measured here.
    options += ["-e", "SCORING_PROVIDER_POLICY=prefer", "-v", f"{MODEL}:/var/azureml-app/azureml-models:ro"]
    began = time.monotonic()
    name = engine.ask("run", "-d", *options, tag).strip()
    try:
        body = (MODEL / "request.json").read_bytes()
        while not _answers(port, body):
            if time.monotonic() - began > WAIT_S:
                raise SystemExit(f"{tag} gives no answer:\n{engine.ask('logs', name)}")
            time.sleep(0.01)
        first_answer_s = time.monotonic() - began
        time.sleep(IDLE_S)
        root = psutil.Process(int(engine.ask("inspect", name, "--format", "{{.State.Pid}}")))
        tree = [root, *root.children(recursive=True)]
        return first_answer_s, sum(process.memory_full_info().pss for process in tree)
    finally:
        engine.ask("rm", "-f", "--time", "0", name)


def _answers(port: int, body: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("POST", "/score", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False  # not listening yet
    finally:
        connection.close()


def machine() -> dict[str, object]:
    """Where the numbers come from."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": os.uname().release,
        "podman": engine.ask("--version").split()[-1],
        "load_average": os.getloadavg(),
    }


def table(results: dict[str, Any]) -> str:
    """The results for a page."""
    lines = ["| image | MB | of which base | MB compressed | start to first answer, s | memory at rest, MB |"]
    lines.append("|---|---|---|---|---|---|")
    for name, found in results["images"].items():
        cells = [f"`{name}`", *(f"{found[key] / 1e6:.0f}" for key in ("size_bytes", "base_bytes", "compressed_bytes"))]
        started = f"{found['first_answer_s']:.1f}" if "first_answer_s" in found else "needs a GPU"
        memory = f"{found['idle_pss_bytes'] / 1e6:.0f}" if "idle_pss_bytes" in found else ""
        lines.append(f"| {' | '.join([*cells, started, memory])} |")
    return "\n".join(lines)


def with_table(page: str, results: dict[str, Any]) -> str:
    """The page with today's table between its marks."""
    return family.between(page, BEGINS, ENDS, table(results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
