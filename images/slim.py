"""Takes out of a virtual environment what a server never reads: `python3 slim.py /opt/scoring-runtime`.

Tests, headers, sources of compiled modules, tools of onnxruntime that need packages which are not there, and debug symbols.
What lies beside a package's metadata stays: licences are there.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDERS = ("tests", "test", "testing", "__pycache__")
KEPT_FOLDERS = ("numpy/testing",)  # numpy imports it
SUFFIXES = frozenset((".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".cpp", ".hpp", ".f90", ".a", ".md"))
PACKAGES = (
    *(f"onnxruntime/{name}" for name in ("datasets", "quantization", "tools", "transformers")),
    *("numpy/distutils", "numpy/f2py"),  # they compile
)


def main(environment: Path) -> None:
    """Slim the environment."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    for name in PACKAGES:
        shutil.rmtree(packages / name, ignore_errors=True)
    for folder in [path for path in environment.rglob("*") if path.is_dir() and path.name in FOLDERS]:
        if str(folder.relative_to(packages)) not in KEPT_FOLDERS:
            shutil.rmtree(folder, ignore_errors=True)
    for path in environment.rglob("*"):
        if path.is_file() and path.suffix in SUFFIXES and "dist-info" not in str(path):
            path.unlink()
        elif ".so" in path.suffixes and path.is_file() and not path.is_symlink() and not _left_alone(path, packages):
            subprocess.run(["strip", "--strip-unneeded", "--preserve-dates", path], check=True)


def _left_alone(library: Path, packages: Path) -> bool:
    """What auditwheel has put into NAME.libs, whose patched sections do not survive strip; and NVIDIA's, as they came."""
    return library.parent.suffix == ".libs" or library.is_relative_to(packages / "nvidia")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
