"""Whether the libraries that a provider needs can be loaded; what is missing, and what lies there in its place.

ONNX Runtime falls back to the CPU, with a line on stderr, where a provider's library does not load. So we look first.
"""

import ctypes
import mmap
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import elf

_USUAL = (
    *("usr/local/cuda*/lib64", "usr/local/cuda*/targets/*/lib", "usr/local/tensorrt*/lib"),
    *("usr/lib/*-linux-gnu", "usr/lib64", "usr/lib", "lib64", "lib"),
)


def folders(site_packages: Path, environ: Mapping[str, str], root: Path = Path("/")) -> list[Path]:
    """Where libraries lie: those of wheels, of LD_LIBRARY_PATH, of the linker's configuration, and the usual ones."""
    found = [*site_packages.glob("nvidia/*/lib"), *site_packages.glob("tensorrt_libs")]
    found += map(Path, filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")))
    for configuration in sorted(root.glob("etc/ld.so.conf.d/*.conf")):
        lines = configuration.read_text("utf-8", "replace").splitlines()
        found += [root / line.strip().lstrip("/") for line in lines if line.strip().startswith("/")]
    found += [folder for pattern in _USUAL for folder in sorted(root.glob(pattern))]
    return list(dict.fromkeys(folder for folder in found if folder.is_dir()))


def needed(library: Path) -> list[str]:
    """What a library needs by name, but the linker; nothing where that cannot be read: then loading it will tell."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names = elf.needed(content)
    except (OSError, ValueError):
        return []
    return [name for name in names if not name.startswith("ld-linux")]


def why_missing(names: Iterable[str], where: Sequence[Path]) -> str | None:
    """Which of these cannot be loaded, and why; None when all can: they are loaded then, as the provider would do."""
    absent: list[str] = []
    reasons: list[str] = []
    for name in names:
        why = _why_not_loaded(name, where)
        if why == "":
            absent.append(name)
        elif why is not None:
            reasons.append(why)
    if absent:
        reasons.append(f"{', '.join(absent)} {'was' if len(absent) == 1 else 'were'} not found")
    return "; ".join(reasons) or None


def why_not_loaded(library: Path) -> str | None:
    """Why a library itself does not load; None when it does."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None


def _why_not_loaded(name: str, where: Sequence[Path]) -> str | None:
    """Empty where there is no such file, and none like it."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        text = str(error)
    else:
        return None
    for folder in where:  # of wheels, which the linker does not search
        if (folder / name).is_file():
            try:
                ctypes.CDLL(str(folder / name))
            except OSError as error:
                return f"{folder / name} cannot be loaded: {error}"
            return None
    if not text.startswith(f"{name}: cannot open"):
        return f"{name} cannot be loaded: {text}"
    others = other_versions(name, where)
    return f"{name} was not found, but {others[0]}, which is of another major version" if others else ""


def other_versions(name: str, where: Sequence[Path]) -> list[Path]:
    """Files of the same library in another major version: libx.so.12 where libx.so.13 is needed."""
    stem, _, version = name.partition(".so.")
    found = [path for folder in where for path in sorted(folder.glob(f"{stem}.so.*"))]
    return [path for path in found if (major := _major(path.name)) is not None and major != version.split(".")[0]]


def _major(name: str) -> str | None:
    found = re.search(r"\.so\.(\d+)", name)
    return found[1] if found else None
