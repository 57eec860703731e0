"""buildah and podman, told to work on a machine without systemd."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(command: Sequence[object]) -> None:
    """Run a command; subprocess.CalledProcessError when it fails."""
    subprocess.run([str(word) for word in command], check=True, env=environ())


def ask(*arguments: object) -> str:
    """What podman answers; subprocess.CalledProcessError when it fails."""
    command = ["podman", "--log-level", "fatal", *map(str, arguments)]
    return subprocess.run(command, check=True, env=environ(), stdout=subprocess.PIPE, text=True).stdout


def exists(tag: str) -> bool:
    """Whether there is an image of that name."""
    return subprocess.run(["podman", "image", "exists", tag], check=False, env=environ()).returncode == 0


@contextmanager
def mounted(tag: str) -> Iterator[Path]:
    """The root file system of an image."""
    try:
        yield Path(ask("image", "mount", tag).strip())
    finally:
        ask("image", "umount", tag)


def environ() -> dict[str, str]:
    """The environment of both programs."""
    return {"CONTAINERS_CONF": str(HERE / "containers.conf"), **os.environ}
