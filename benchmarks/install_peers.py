"""Set up the servers that ours is measured with: for each folder of peers/ a virtual environment of its own.

What does not install is named with its reason, and left out of the measurements; the rest goes on. An environment is made
anew only when its locked requirements have changed.
"""

import argparse
import concurrent.futures
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
ENVIRONMENTS = HERE.parent / ".venv-bench"
INSTALL_TIMEOUT_S = 1800
STAMP = "installed"

INTERPRETERS = {"pytriton": "/usr/bin/python3.11"}
"""Other interpreters than this one. Triton loads the libpython that the linker finds, which on Debian 12 is this one's; the
standard library must be of the same version."""


class InstallError(Exception):
    """A peer cannot be set up; the message says why."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="PEER", help="only these (default: every folder of peers/)")
    names = arguments.parse_args().names or [lock.parent.name for lock in sorted(PEERS.glob("*/requirements.txt"))]
    failures = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        installs = {name: pool.submit(install, name) for name in names}
        for name, done in installs.items():
            try:
                done.result()
                print(f"{name}: {ENVIRONMENTS / name}")
            except InstallError as error:
                failures[name] = str(error)
    for name, why in failures.items():
        print(f"{name}: NOT installed: {why}")
    return 1 if len(failures) == len(names) else 0


def install(name: str) -> None:
    lock = PEERS / name / "requirements.txt"
    if not lock.is_file():
        raise InstallError(f"there is no {lock}")
    interpreter = INTERPRETERS.get(name, sys.executable)
    if not Path(interpreter).exists():
        raise InstallError(f"it needs {interpreter}")
    digest = hashlib.sha256(lock.read_bytes() + interpreter.encode() + sys.version.encode()).hexdigest()
    folder = ENVIRONMENTS / name
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    # Without pip: the one of this environment does it, and not every interpreter brings one.
    _run([interpreter, "-m", "venv", "--without-pip", str(folder)])
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "--python",
        str(folder / "bin" / "python"),
    ]
    _run([*pip, "install", "--require-hashes", "-r", str(lock)])
    stamp.write_text(digest)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"it took longer than {INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallError((errors or done.stderr.splitlines() or [f"{command[0]} failed"])[0])


if __name__ == "__main__":
    sys.exit(main())
