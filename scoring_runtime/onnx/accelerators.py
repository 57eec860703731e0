"""Why a provider cannot be used on this machine: found before ONNX Runtime is asked, which would fall back in silence."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from scoring_runtime.providers import PROVIDERS

from . import libraries, nvidia

_LAZY = ("libcudnn.so.9", "libcufft.so.12")
"""What CUDA's provider loads when a node needs it."""
_DRIVER = "libcuda.so.1"


def why_absent(name: str, available: Sequence[str], version: str) -> str | None:
    """Why this ONNX Runtime has no such provider; None when it has. Names are ours."""
    if name in available:
        return None
    return f"the installed onnxruntime {version} has only {', '.join(available)}. {PROVIDERS[name].install}"


def why_unusable(name: str, onnxruntime_folder: Path, version: str) -> str | None:
    """Why a provider of NVIDIA's cannot run here: driver, device and libraries; None when nothing is missing.

    onnxruntime_folder: of the installed package.
    """
    where = libraries.folders(onnxruntime_folder.parent, os.environ)
    cuda = libraries.needed(_file("cuda", onnxruntime_folder))
    toolkit = _major(cuda, "libcudart")
    wheel = f"'onnxruntime-gpu[cuda,cudnn]=={version}'"
    problems = [nvidia.why_no_device(os.environ, toolkit)]
    if missing := libraries.why_missing([each for each in cuda if each != _DRIVER], where):
        problems.append(f"{missing}. Install the CUDA libraries: pip install {wheel}")
    if name == "tensorrt":
        more = [each for each in libraries.needed(_file(name, onnxruntime_folder)) if each not in cuda]
        if missing := libraries.why_missing(more, where):
            tensorrt = f"'tensorrt-cu{toolkit}=={_major(more, 'libnvinfer')}.*'"
            problems.append(f"{missing}. Install TensorRT: pip install {wheel} {tensorrt}")
    return ". ".join(filter(None, problems)) or None


def why_not_loaded(name: str, onnxruntime_folder: Path) -> str:
    """Why ONNX Runtime did not take a provider that nothing seemed to be missing for."""
    error = libraries.why_not_loaded(_file(name, onnxruntime_folder))
    return f"onnxruntime could not load it: {error or 'it does not say why'}"


def why_partly_unusable(onnxruntime_folder: Path) -> str | None:
    """What CUDA's provider will miss once a node needs it, as convolutions need cuDNN."""
    return libraries.why_missing(_LAZY, libraries.folders(onnxruntime_folder.parent, os.environ))


def _file(name: str, onnxruntime_folder: Path) -> Path:
    return onnxruntime_folder / "capi" / f"libonnxruntime_providers_{name}.so"


def _major(names: Sequence[str], stem: str) -> int | None:
    versions = [found[1] for name in names if (found := re.fullmatch(rf"{stem}\.so\.(\d+)", name))]
    return int(versions[0]) if versions else None
