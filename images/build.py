"""Builds the images of the family with buildah: `python images/build.py cpu minimal`. See docs/images.md.

Where no registry can be reached, the base images are root file systems that mmdebstrap makes from Debian's packages.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import family
from .family import Family, FamilyError, Image

ROOT = family.HERE.parent
CONTEXT = family.HERE / "context"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SUITE = "bookworm"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))

_PATHS = (
    *("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright"),
    *("path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/info/*"),
)
_MINIMAL_PACKAGES = (
    *("base-files", "libc6", "libstdc++6", "libgcc-s1", "zlib1g", "ca-certificates", "python3.11-minimal"),
    "libpython3.11-stdlib",
)
# What each package is, for a list of materials: nothing was configured, so dpkg has no record of its own.
_RECORD_PACKAGES = """\
mkdir -p "$1/var/lib/dpkg/status.d"
for deb in "$1"/var/cache/apt/archives/*.deb; do
    dpkg-deb -f "$deb" > "$1/var/lib/dpkg/status.d/$(dpkg-deb -f "$deb" Package)"
done
"""
_KEEP_ONLY_THE_INTERPRETER = """\
find "$1/bin" "$1/sbin" "$1/usr/bin" "$1/usr/sbin" ! -type d ! -name "python3*" -delete
ln -s python3.11 "$1/usr/bin/python3"
cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"
rm -rf "$1"/usr/lib/python3*/test "$1"/usr/share/perl* "$1"/usr/share/debconf
find "$1" -xdev -perm /6000 -type f -exec chmod a-s {} +
"""


def main(arguments: Sequence[str]) -> int:
    """Build what is named; every image that can be built here when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument(
        "--base-image", help="in place of Debian made here, for the images that name no base of their own"
    )
    parser.add_argument(
        "--write", action="store_true", help="write what follows from the description, and build nothing"
    )
    parser.add_argument(
        "--print", action="store_true", help="print the commands that build them elsewhere, and build nothing"
    )
    parsed = parser.parse_args(arguments)
    try:
        known = family.load()
        named = [known.find(name) for name in parsed.images]
        if parsed.write:
            family.BAKE.write_text(family.bake(known), encoding="utf-8")
            family.README.write_text(
                family.with_table(family.README.read_text(encoding="utf-8"), known), encoding="utf-8"
            )
            return 0
        if parsed.print:
            print("\n".join(family.docker_command(known, image) for image in named or known.images.values()))
            return 0
        return _build(known, named, parsed.base_image)
    except FamilyError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"images: {error.cmd[0]} failed with exit code {error.returncode}: what it printed says why",
            file=sys.stderr,
        )
        return 1


def _build(known: Family, named: Sequence[Image], base_image: str | None) -> int:
    wanted = list(named)
    if not named:
        for image in known.images.values():
            why = image.elsewhere or image.on_demand
            if why:
                print(f"images: left out: {image.name}: {why}. {family.docker_command(known, image)}")
            else:
                wanted.append(image)
    missing = [program for program in ("buildah", "podman", "mmdebstrap") if shutil.which(program) is None]
    if missing:
        raise FamilyError(f"{', '.join(missing)} cannot be found: run `make images-apt`")
    prepare_context()
    bases = _bases(wanted, known, base_image)
    for image in _with_parents(known, wanted):
        began = time.monotonic()
        build(known, image, bases)
        print(f"images: {known.tag(image)} in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _with_parents(known: Family, images: Sequence[Image]) -> list[Image]:
    ordered: dict[str, Image] = {}
    for image in images:
        chain = [image]
        while chain[-1].parent is not None:
            chain.append(known.find(chain[-1].parent))
        ordered |= {each.name: each for each in reversed(chain)}
    return list(ordered.values())


def prepare_context() -> None:
    """What the Dockerfile copies: locked lists of packages, the wheel, the programs that slim and seal."""
    shutil.rmtree(CONTEXT, ignore_errors=True)
    shutil.copytree(ROOT / "requirements", CONTEXT / "requirements", ignore=shutil.ignore_patterns("*.in"))
    (CONTEXT / "wheel").mkdir()
    (wheel,) = (ROOT / ".venv" / "wheel").glob("*.whl")
    shutil.copy(wheel, CONTEXT / "wheel")
    for name in ("Dockerfile", "slim.py", "seal.py"):
        shutil.copy(family.HERE / name, CONTEXT)


def _bases(images: Sequence[Image], known: Family, base_image: str | None) -> dict[str, str]:
    bases = {"BASE_IMAGE": base_image or "localhost/debian:bookworm", "MINIMAL_BASE_IMAGE": "localhost/debian:minimal"}
    if base_image is None and not _exists(bases["BASE_IMAGE"]):
        make_root(bases["BASE_IMAGE"], ["--variant=minbase"])
    if any(known.root(image).target == "minimal" for image in images) and not _exists(bases["MINIMAL_BASE_IMAGE"]):
        hooks = [f"--extract-hook={hook}" for hook in (_RECORD_PACKAGES, _KEEP_ONLY_THE_INTERPRETER)]
        make_root(
            bases["MINIMAL_BASE_IMAGE"], ["--variant=extract", f"--include={','.join(_MINIMAL_PACKAGES)}", *hooks]
        )
    return bases


def make_root(tag: str, options: Sequence[str]) -> None:
    """A root file system from Debian's packages, as an image."""
    sources = next((str(path) for path in SOURCES if path.is_file()), None)
    if sources is None:
        raise FamilyError("this is no Debian system: name a base image with --base-image")
    archive = CONTEXT / "rootfs.tar"
    paths = [f"--dpkgopt={path}" for path in _PATHS]
    command = ["mmdebstrap", "--quiet", '--aptopt=Acquire::Languages "none"', *paths, *options, SUITE, archive, sources]
    _run(command)
    _run(["podman", "import", archive, tag])
    archive.unlink()


def build(known: Family, image: Image, bases: dict[str, str]) -> None:
    """One image, whose parent is there."""
    command = ["buildah", "bud", "--quiet", "--layers", "--format", "docker", "--isolation", "chroot"]
    command += ["--timestamp", _epoch(), "--target", image.target, "-t", known.tag(image)]
    if CA_BUNDLE.is_file():
        command += ["--secret", f"id=ca_bundle,src={CA_BUNDLE}"]
    if "PIP_CONFIG_FILE" in os.environ:
        command += ["--secret", f"id=pip_conf,src={os.environ['PIP_CONFIG_FILE']}"]
    for name, value in family.build_arguments(known, image, bases).items():
        command += ["--build-arg", f"{name}={value}"]
    for name in image.build_args:
        if not os.environ.get(name):
            raise FamilyError(f"{image.name} needs {name} in the environment: {image.elsewhere}")
        command += ["--build-arg", f"{name}={os.environ[name]}"]
    _run([*command, CONTEXT])


def _epoch() -> str:
    """The time of the last commit, so that two builds of one commit have equal layers."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    shown = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], check=False, capture_output=True, text=True
    )
    return shown.stdout.strip() or "0"


def _exists(tag: str) -> bool:
    return subprocess.run(["podman", "image", "exists", tag], check=False, env=_environ()).returncode == 0


def _run(command: Sequence[object]) -> None:
    subprocess.run([str(word) for word in command], check=True, env=_environ())


def _environ() -> dict[str, str]:
    return {"CONTAINERS_CONF": str(family.HERE / "containers.conf"), **os.environ}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
