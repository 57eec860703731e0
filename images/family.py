"""The family of images as images.yaml describes it, and what follows from it: commands, docker-bake.hcl, a table. Pure."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DESCRIPTION = HERE / "images.yaml"
BAKE = HERE / "docker-bake.hcl"
README = HERE.parent / "README.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- images -->", "<!-- end of images -->"


class FamilyError(Exception):
    """The description, or what was asked of it, is wrong. The text names the cause and the cure."""


@dataclasses.dataclass(frozen=True)
class Image:
    """One image. Sizes are uncompressed, in MB of 10^6 bytes."""

    name: str
    target: str
    """The target of the Dockerfile."""
    holds: str
    requirements: str | None = None
    """The locked list of Python packages; None for what stands on another image."""
    parent: str | None = None
    base_image: str | None = None
    max_mb: int | None = None
    max_added_mb: int | None = None
    """On top of the base image."""
    build_args: tuple[str, ...] = ()
    """Arguments that whoever builds it must give."""
    on_demand: str | None = None
    """Why it is built only when it is asked for by name."""
    elsewhere: str | None = None
    """Why it cannot be built from packages alone."""


@dataclasses.dataclass(frozen=True)
class Family:
    """All images, in the order of the description."""

    name: str
    base_image: str
    minimal_base_image: str
    minimal_build_image: str
    """It has the same Python as minimal_base_image."""
    images: Mapping[str, Image]

    def find(self, name: str) -> Image:
        """The image of that name; FamilyError that lists the names when there is none."""
        if name not in self.images:
            raise FamilyError(f"there is no image {name!r}: there are {', '.join(self.images)}")
        return self.images[name]

    def root(self, image: Image) -> Image:
        """The one that `image` stands on, which brings its Python packages."""
        return image if image.parent is None else self.root(self.find(image.parent))

    def tag(self, image: Image) -> str:
        """Its name in local storage."""
        return f"localhost/{self.name}:{image.name}"


def parse(text: str) -> Family:
    """The family that the description holds; FamilyError when a key or a reference in it is wrong."""
    document: dict[str, Any] = yaml.safe_load(text)
    known = {field.name for field in dataclasses.fields(Image)}
    images = {}
    for name, row in document["images"].items():
        if unknown := row.keys() - known:
            raise FamilyError(f"image {name}: {', '.join(sorted(unknown))}: no such key")
        if (row.get("parent") is None) == (row.get("requirements") is None):
            raise FamilyError(f"image {name}: give either its parent or its requirements")
        images[name] = Image(name=name, **{**row, "build_args": tuple(row.get("build_args", ()))})
    family = Family(images=images, **{key: document[key] for key in document if key != "images"})
    for image in images.values():
        family.root(image)
    return family


def load() -> Family:
    """The family of this repository."""
    return parse(DESCRIPTION.read_text(encoding="utf-8"))


def build_arguments(family: Family, image: Image, bases: Mapping[str, str]) -> dict[str, str]:
    """The build arguments of one image. bases: what stands in for the base images, by argument, where they cannot be had."""
    if image.parent is not None:
        return {"PARENT_IMAGE": family.tag(family.find(image.parent))}
    minimal = image.target == "minimal"
    base_image = family.minimal_build_image if minimal else family.base_image
    arguments = {
        "BASE_IMAGE": image.base_image or bases.get("BASE_IMAGE", base_image),
        "REQUIREMENTS": f"{image.requirements}.txt",
    }
    if minimal:
        arguments["MINIMAL_BASE_IMAGE"] = bases.get("MINIMAL_BASE_IMAGE", family.minimal_base_image)
    return arguments


def docker_command(family: Family, image: Image) -> str:
    """What builds an image elsewhere, with Docker, from the folder that `build.py --print` prepares, too."""
    arguments = build_arguments(family, image, {})
    words = ["docker", "build", "--target", image.target]
    for name, value in arguments.items():
        words += ["--build-arg", f"{name}={value}"]
    for name in image.build_args:
        words += ["--build-arg", name]
    return shlex.join([*words, "-t", family.tag(image), "images/context"])


def bake(family: Family) -> str:
    """The same as docker-bake.hcl."""
    blocks = ["# Written by images/build.py from images.yaml. Change the description there.\n"]
    blocks.append(f'group "default" {{\n  targets = {json.dumps([_target(name) for name in family.images])}\n}}\n')
    for image in family.images.values():
        arguments = build_arguments(family, image, {})
        lines = [f'target "{_target(image.name)}" {{', '  context = "images/context"', f'  target = "{image.target}"']
        if image.parent is not None:
            arguments = {"PARENT_IMAGE": "parent"}
            lines.append(f'  contexts = {{ parent = "target:{_target(image.parent)}" }}')
        lines.append(f'  tags = ["{family.tag(image)}"]')
        lines.append("  args = {")
        lines += [f"    {name} = {json.dumps(value)}" for name, value in arguments.items()]
        lines += [f"    {name} = null # from the environment" for name in image.build_args]
        lines += ["  }", '  attest = ["type=sbom", "type=provenance,mode=max"]', "}\n"]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _target(name: str) -> str:
    return name.replace(".", "-")


def table(family: Family) -> str:
    """The family as a table for the README."""
    lines = ["| image | holds | size |", "|---|---|---|"]
    for image in family.images.values():
        size = f"at most {image.max_mb} MB" if image.max_mb else ""
        if image.max_added_mb:
            size = f"at most {image.max_added_mb} MB over its base"
        lines.append(f"| `{image.name}` | {image.holds} | {size} |")
    return "\n".join(lines)


def with_table(page: str, family: Family) -> str:
    """A page with the family's table of today between its two marks."""
    return between(page, TABLE_BEGINS, TABLE_ENDS, table(family))


def between(page: str, begins: str, ends: str, text: str) -> str:
    """A page with another text between two marks; FamilyError when it has none."""
    before, _, rest = page.partition(begins)
    _, found, after = rest.partition(ends)
    if not found:
        raise FamilyError(f"the page has no {begins} with {ends} after it")
    return f"{before}{begins}\n{text}\n{ends}{after}"
