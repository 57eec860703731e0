"""The Python environments that the tests here need: where they are, and how they are made.

    python tests/differential/environments.py   makes those that are missing or out of date (`make incumbent`)

`user-3.8` stands for the environment of a user: it has packages, but nothing of ours or of the incumbent's. `bare-3.8` is an
interpreter without any package. `user-own` is the environment of the incumbent itself: there the very same packages run under
both servers.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCUMBENT = ROOT / ".venv-incumbent"
USERS = ROOT / ".venv-user"
VERSIONS = ("3.8", "3.13")
PINNED = ("flask-0", "flask-1", "flask-2")
"""Environments of users who hold on to old packages, all of Python 3.8: for tests/live/test_old_pins.py."""


def main() -> int:
    """Make every environment whose interpreter is to be found."""
    _make(INCUMBENT, sys.executable, ROOT / "requirements" / "incumbent.txt")
    for version in VERSIONS:
        interpreter = find_interpreter(version)
        if interpreter is None:
            print(f"No Python {version} here: nothing is tested under it.", file=sys.stderr)
        else:
            _make(USERS / version, interpreter, ROOT / "requirements" / "user.txt")
    oldest = find_interpreter(VERSIONS[0])
    for name in PINNED if oldest else ():
        _make(USERS / name, str(oldest), ROOT / "requirements" / f"user-{name}.txt")
    return 0


def find_interpreter(version: str) -> str | None:
    """An interpreter of that minor version."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in sorted(pyenv.glob(f"versions/{version}.*/bin/python")):
        if re.fullmatch(r"[\d.]+", python.parent.parent.name):
            return str(python)
    on_path = shutil.which(f"python{version}")
    # pyenv's shims exist for versions that are not selected, and only fail.
    return on_path if on_path and "shims" not in on_path else None


def pythons() -> dict[str, str]:
    """The interpreter of each environment that is there, by the environment's name."""
    found = {"user-own": INCUMBENT / "bin" / "python"}
    found.update({f"user-{version}": USERS / version / "bin" / "python" for version in VERSIONS})
    there = {name: str(python) for name, python in found.items() if python.exists()}
    bare = {f"bare-{version}": find_interpreter(version) for version in VERSIONS}
    return there | {name: python for name, python in bare.items() if python}


def _make(folder: Path, interpreter: str, requirements: Path) -> None:
    stamp = folder / "requirements.txt"
    if stamp.exists() and stamp.read_bytes() == requirements.read_bytes():
        return
    subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--require-hashes", "-r", str(requirements)], check=True)
    shutil.copyfile(requirements, stamp)


if __name__ == "__main__":
    sys.exit(main())
