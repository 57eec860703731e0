"""Builds the images of the family with buildah: `python images/build.py cpu minimal`. See docs/images.md.

Where no registry can be reached, the base images are root file systems that mmdebstrap makes from Debian's packages.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from . import engine, family
from .family import Family, FamilyError, Image

ROOT = family.HERE.parent
CONTEXT = family.HERE / "context"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SUITE = "bookworm"
EPOCH = "315532800"
"""The time of every file, 1980-01-01: a layer depends on what is in it, and not on when, or from which commit, it was built."""
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
cd "$1"/usr/lib/python3.11
rm -rf test lib2to3 pydoc_data "$1"/usr/share/perl* "$1"/usr/share/debconf
PYTHONHASHSEED=0 chroot "$1" /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11
find "$1" -xdev -perm /6000 -type f -exec chmod a-s {} +
"""
ROOTS = {
    "BASE_IMAGE": ("bookworm", ["--variant=minbase"]),
    "MINIMAL_BASE_IMAGE": (
        "minimal",
        [
            *("--variant=extract", f"--include={','.join(_MINIMAL_PACKAGES)}"),
            *(f"--extract-hook={hook}" for hook in (_RECORD_PACKAGES, _KEEP_ONLY_THE_INTERPRETER)),
        ],
    ),
}
"""The root file systems that stand in for base images: by build argument, a name and what mmdebstrap is told."""


def main(arguments: Sequence[str]) -> int:
    """Build what is named; every image that can be built here when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument(
        "--base-image", help="in place of Debian made here, for the images that name no base of their own"
    )
    parser.add_argument("--again", metavar="TAG", help="build the image from nothing, under this name")
    parser.add_argument(
        "--write", action="store_true", help="write what follows from the description, and build nothing"
    )
    parser.add_argument(
        "--print",
        action="store_true",
        help="prepare images/context, print the commands that build them from it elsewhere, and build nothing",
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
            prepare_context()
            print("\n".join(family.docker_command(known, image) for image in named or known.images.values()))
            return 0
        return _build(known, named, parsed.base_image, parsed.again)
    except FamilyError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"images: {error.cmd[0]} failed with exit code {error.returncode}: what it printed says why",
            file=sys.stderr,
        )
        return 1


def _build(known: Family, named: Sequence[Image], base_image: str | None, again: str | None) -> int:
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
    if os.geteuid() != 0:
        raise FamilyError("root file systems and images are made as root here: run the same with sudo")
    prepare_context()
    bases = _bases(wanted, known, base_image)
    for image in wanted if again else _with_parents(known, wanted):
        began = time.monotonic()
        build(known, image, bases, again)
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
    for name in ("Dockerfile", "slim.py", "licences.py", "seal.py"):
        shutil.copy(family.HERE / name, CONTEXT)


def _bases(images: Sequence[Image], known: Family, base_image: str | None) -> dict[str, str]:
    bases = {argument: root_tag(argument) for argument in ROOTS}
    wanted = set(ROOTS)
    if base_image is not None:
        bases["BASE_IMAGE"] = base_image
        wanted.discard("BASE_IMAGE")
    if all(known.root(image).target != "minimal" for image in images):
        wanted.discard("MINIMAL_BASE_IMAGE")
    for argument in wanted:
        if not engine.exists(bases[argument]):
            make_root(bases[argument], ROOTS[argument][1])
    return bases


def root_tag(argument: str) -> str:
    """The local name of the root file system that stands in for a base image: another one when it is made otherwise."""
    name, options = ROOTS[argument]
    recipe = "\n".join([SUITE, *_PATHS, *options])
    return f"localhost/debian:{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def make_root(tag: str, options: Sequence[str]) -> None:
    """A root file system from Debian's packages, as an image."""
    sources = next((str(path) for path in SOURCES if path.is_file()), None)
    if sources is None:
        raise FamilyError("this is no Debian system: name a base image with --base-image")
    archive = CONTEXT / "rootfs.tar"
    paths = [f"--dpkgopt={path}" for path in _PATHS]
    command = ["mmdebstrap", "--quiet", '--aptopt=Acquire::Languages "none"', *paths, *options, SUITE, archive, sources]
    engine.run(command)
    engine.run(["podman", "import", archive, tag])
    archive.unlink()


def build(known: Family, image: Image, bases: dict[str, str], again: str | None = None) -> None:
    """One image, whose parent is there. again: build it from nothing, under this name."""
    command = ["buildah", "bud", "--quiet", "--layers", "--format", "docker", "--isolation", "chroot"]
    command += ["--timestamp", os.environ.get("SOURCE_DATE_EPOCH", EPOCH), "--target", image.target]
    command += ["-t", again or known.tag(image), *(["--no-cache"] if again else [])]
    for name, value in _labels().items():
        command += ["--label", f"org.opencontainers.image.{name}={value}"]
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
    engine.run([*command, CONTEXT])


def _labels() -> dict[str, str]:
    """Which state of the source an image was built from; nothing where that is not known."""
    shown = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%H %cI"], check=False, capture_output=True, text=True
    )
    if shown.returncode:
        return {}
    revision, created = shown.stdout.split()
    return {"revision": revision, "created": created, "version": metadata.version("scoring-runtime")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
