"""What a custom base image must hold, and whether one does. Pure: paths, a few files' bytes and the configuration in, lines out.

The requirements are those that Azure ML states for custom base images: Ubuntu 16.04 or newer, conda 4.5 or newer, Python 3.5
or newer, libfuse. Beyond them: it does not run as root, it opens the server's port, and the server in it is as it was built.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SERVER = "opt/scoring-runtime"
MANIFEST = f"{SERVER}/MANIFEST.sha256"
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
PORT = "5001/tcp"

_CONDA = re.compile(r".*/conda-meta/conda-(\d[\d.]*)-[^/]+\.json")
_PYTHON = re.compile(r"(.*/bin/)python(\d+)\.(\d+)")
_FUSE = re.compile(r".*/libfuse3?\.so\.[\d.]+")


@dataclass
class Contents:
    """What was found in an image: every path (no leading slash), links by what they name, files of interest by their bytes."""

    paths: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file and link below SERVER, by its path below it."""


class Finding(NamedTuple):
    """One line: whether a requirement is met. `met` None: it is not asked of every image, and it is not there."""

    what: str
    met: bool | None
    text: str


def is_of_interest(path: str) -> bool:
    """Whether the bytes of the file are wanted."""
    return path in (*OS_RELEASE, MANIFEST)


def findings(contents: Contents, config: Mapping[str, Any], architecture: str, machine: str) -> Iterator[Finding]:
    """Every requirement, in the order in which a person fixes them. config: as OCI has it; machine: what it shall run on."""
    yield _architecture(architecture, machine)
    for check in _CHECKS:
        yield check(contents)
    yield _user(config)
    yield _port(config)
    yield _server(contents)


def render(found: list[Finding]) -> str:
    """One line for each."""
    width = max(len(finding.what) for finding in found)
    word = {True: "ok", False: "MISSING", None: "-"}
    return "\n".join(f"{finding.what:<{width}}  {word[finding.met]:<7}  {finding.text}" for finding in found)


def _architecture(architecture: str, machine: str) -> Finding:
    same = architecture == machine
    text = (
        architecture
        if same
        else f"{architecture}, and this machine is {machine}: build it with --platform linux/{machine}"
    )
    return Finding("architecture", same, text)


def _os(contents: Contents) -> Finding:
    text = next((contents.files[path] for path in OS_RELEASE if path in contents.files), b"").decode("utf-8", "replace")
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    name, version = fields.get("ID", "unknown"), fields.get("VERSION_ID", "")
    number = float(match[0]) if (match := re.match(r"\d+(\.\d+)?", version)) else 0.0
    oldest = {"ubuntu": 16.04, "debian": 9.0}.get(name)
    if oldest is None or number < oldest:
        return Finding("os", False, f"{name} {version}: Azure ML asks for Ubuntu 16.04 or newer (Debian 9 works alike)")
    return Finding("os", True, f"{name} {version}")


def _conda(contents: Contents) -> Finding:
    versions = [tuple(map(int, match[1].split("."))) for path in contents.paths if (match := _CONDA.fullmatch(path))]
    if not versions:
        return Finding("conda", None, "none: Azure ML needs it unless the environment says userManagedDependencies")
    newest = ".".join(map(str, max(versions)))
    return Finding("conda", max(versions) >= (4, 5), f"{newest}; Azure ML asks for 4.5 or newer")


def _python(contents: Contents) -> Finding:
    found = [(int(match[2]), int(match[3])) for path in contents.paths if (match := _PYTHON.fullmatch(path))]
    if not found:
        return Finding("python", False, "none: install python3")
    return Finding("python", max(found) >= (3, 5), f"{'.'.join(map(str, max(found)))}; Azure ML asks for 3.5 or newer")


def _fuse(contents: Contents) -> Finding:
    there = any(_FUSE.fullmatch(path) for path in contents.paths)
    return Finding("libfuse", True if there else None, "found" if there else "none: Azure ML needs it to mount data")


_CHECKS: tuple[Callable[[Contents], Finding], ...] = (_os, _conda, _python, _fuse)


def _user(config: Mapping[str, Any]) -> Finding:
    user = str(config.get("User") or "root")
    root = user.partition(":")[0] in ("root", "0")
    return Finding("user", not root, f"{user}: end the Dockerfile with USER 10001:0" if root else user)


def _port(config: Mapping[str, Any]) -> Finding:
    ports = sorted(config.get("ExposedPorts") or {})
    text = ", ".join(ports) or "none"
    return Finding("ports", PORT in ports, text if PORT in ports else f"{text}: EXPOSE 5001")


def _server(contents: Contents) -> Finding:
    manifest = contents.files.get(MANIFEST)
    if manifest is None:
        return Finding("server", False, f"/{SERVER} holds no server of ours: stand on an image of the family")
    wanted = {}
    for line in manifest.decode("utf-8", "replace").splitlines():
        digest, _, path = line.partition("  ")
        wanted[path] = digest
    there = {path: digest for path, digest in contents.digests.items() if path != "MANIFEST.sha256"}
    changed = sorted(path for path in wanted if path in there and there[path] != wanted[path])
    gone, added = sorted(wanted.keys() - there.keys()), sorted(there.keys() - wanted.keys())
    for what, paths in (("changed", changed), ("gone", gone), ("added", added)):
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            cure = "build the image again, and leave this folder alone"
            return Finding("server", False, f"{what}: /{SERVER}/{paths[0]}{more}: {cure}")
    return Finding("server", True, f"{len(wanted)} files, as built ({hashlib.sha256(manifest).hexdigest()[:12]})")


def read_config(inspected: bytes) -> tuple[dict[str, Any], str]:
    """Configuration and architecture from what `podman inspect` or `docker inspect` of an image prints."""
    document = json.loads(inspected)[0]
    return document.get("Config") or {}, str(document.get("Architecture", "unknown"))
