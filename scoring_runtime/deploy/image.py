"""Looks into an image without running anything of it: `scoring-runtime image check`."""

import hashlib
import platform
import shutil
import subprocess
import tarfile
from typing import IO

from ..errors import UsageError
from .requirements_of_base import SERVER, Contents, Finding, findings, is_of_interest, read_config

ENGINES = ("podman", "docker")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def check(image: str) -> list[Finding]:
    """What is met of what a base image must hold; UsageError when the image cannot be looked at."""
    engine = next(filter(shutil.which, ENGINES), None)
    if engine is None:
        raise UsageError("neither podman nor docker can be found: install one of them, to look into images.")
    config, architecture = read_config(_ask(engine, "image", "inspect", image))
    container = _ask(engine, "create", image, "nothing").decode().split()[-1]
    try:
        with subprocess.Popen([engine, "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            contents = read_tar(export.stdout)
    finally:
        _ask(engine, "rm", "-f", container)
    machine = MACHINES.get(platform.machine(), platform.machine())
    return list(findings(contents, config, architecture, machine))


def read_tar(stream: IO[bytes]) -> Contents:
    """What a root file system holds, read once from front to back."""
    contents = Contents()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./").strip("/")
            contents.paths.add(path)
            below = path.removeprefix(f"{SERVER}/")
            if member.issym():
                contents.links[path] = member.linkname
                if below != path:
                    contents.digests[below] = hashlib.sha256(member.linkname.encode()).hexdigest()
            elif member.isfile() and (below != path or is_of_interest(path)):
                file = archive.extractfile(member)
                data = file.read() if file is not None else b""
                if below != path:
                    contents.digests[below] = hashlib.sha256(data).hexdigest()
                if is_of_interest(path):
                    contents.files[path] = data
    return contents


def _ask(engine: str, *arguments: str) -> bytes:
    answer = subprocess.run([engine, *arguments], check=False, capture_output=True)
    if answer.returncode:
        why = answer.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UsageError(f"{engine} {' '.join(arguments)}: {why[-1] if why else f'exit code {answer.returncode}'}.")
    return answer.stdout
