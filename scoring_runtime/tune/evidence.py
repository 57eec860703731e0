"""The file of tuned settings: what was found, on what ground, and whether that ground is still there."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TuneError
from ..onnx import cpus
from ..settings import EVIDENCE_KEY, Settings, flag


@dataclass(frozen=True)
class Circumstances:
    """What numbers depend on beside the settings."""

    model_sha256: Mapping[str, str]
    """Of the model file, under the empty name, and of those beside it that hold its weights."""
    cpu: str
    cpus: float
    """That affinity and control group grant."""
    gpus: tuple[str, ...]
    onnxruntime: str


def observe(model: Path, files: Iterable[str]) -> Circumstances:
    """What is here now. Reads the whole model: a second for each gigabyte or two."""
    hashes = {name: _sha256(model.parent / name if name else model) for name in ("", *files)}
    return Circumstances(hashes, _cpu(), usable_cpus(), _gpus(), _onnxruntime())


def usable_cpus() -> float:
    """CPUs that affinity and control group grant."""
    granted = cpus.quota()
    return float(cpus.by_affinity()) if granted is None else min(float(cpus.by_affinity()), granted)


def write(path: Path, settings: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Write the file that `serve --config-file` reads; TuneError when it cannot be written."""
    text = json.dumps({**settings, EVIDENCE_KEY: dict(evidence)}, indent=1, allow_nan=False) + "\n"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, "utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise TuneError(f"--out {path}: cannot be written: {error.strerror}.") from None


def doubts_of_file(config_file: str | None, model: Path, settings: Settings) -> list[str]:
    """Why what was measured may not hold for this server, a line each; none for a file without evidence."""
    if config_file is None:
        return []
    evidence = json.loads(Path(config_file).read_text("utf-8")).get(EVIDENCE_KEY)
    if evidence is None:
        return []
    try:
        then = Circumstances(**{**evidence["circumstances"], "gpus": tuple(evidence["circumstances"]["gpus"])})
        chosen = dict(evidence["chosen"]["settings"])
        now = observe(model, (name for name in then.model_sha256 if name))
        found = doubts(then, now, chosen, dataclasses.asdict(settings))
    except (AttributeError, KeyError, TypeError, ValueError):
        return [f"{config_file}: its evidence cannot be read, so that nothing vouches for its settings. Tune again."]
    return [f"{config_file} {doubt}" for doubt in found]


def doubts(
    then: Circumstances, now: Circumstances, chosen: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[str]:
    """What is not as it was when the settings were found."""
    found = []
    for name, digest in then.model_sha256.items():
        if digest != now.model_sha256.get(name):
            what = f"with another {name}" if name else "for another model"
            found.append(f"was made {what} (sha256 {_short(digest)}, here {_short(now.model_sha256.get(name))})")
    if then.cpu != now.cpu:
        found.append(f"was made on another CPU ({then.cpu}, here {now.cpu})")
    if then.cpus != now.cpus:
        found.append(f"was made with {then.cpus:g} usable CPUs, here there are {now.cpus:g}")
    if then.gpus != now.gpus:
        found.append(f"was made with {_list(then.gpus)} as GPUs, here there are {_list(now.gpus)}")
    if then.onnxruntime != now.onnxruntime:
        found.append(f"was made with {then.onnxruntime}, here is {now.onnxruntime}")
    for name, value in chosen.items():
        if name in settings and settings[name] != value:
            found.append(f"found {flag(name)} {value}; it is {settings[name]} here")
    return found


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "none"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _sha256(path: Path) -> str:
    """Empty for a file that cannot be read: whoever serves it says why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _cpu() -> str:
    """The model's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    for wanted in ("model name", "CPU part", "Hardware"):
        for line in lines:
            if line.startswith(wanted):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return platform.machine()


def _gpus() -> tuple[str, ...]:
    """The models of NVIDIA's GPUs, as the driver tells them."""
    paths = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for path in paths for line in path.read_text("utf-8", "replace").splitlines()]
    return tuple(line.partition(":")[2].strip() for line in lines if line.startswith("Model:"))


def _onnxruntime() -> str:
    """The packages that hold ONNX Runtime, with their versions. It is not imported: this process is to stay small."""
    names = sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", ())))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names) or "no onnxruntime"
