"""What is in an image: `python -m images.materials cpu` writes its bill of materials (CycloneDX) into images/sbom/.

With `--renew` it also writes which Debian packages the image holds into images/packages/, which the tests hold it to.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import engine, family

SBOM = family.HERE / "sbom"
PACKAGES = family.HERE / "packages"

Bill = Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Write the bill of each image that is named; of every image that was built here when none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("--renew", action="store_true", help="write the lists of Debian packages, too")
    parsed = parser.parse_args(arguments)
    known = family.load()
    named = [known.find(name) for name in parsed.images]
    for image in named or (each for each in known.images.values() if engine.exists(known.tag(each))):
        bill = take_stock(known, image)
        if parsed.renew:
            PACKAGES.mkdir(exist_ok=True)
            listed(image.name).write_text("\n".join(debian_packages(bill)) + "\n", encoding="utf-8")
        print(f"images: {image.name}: {len(bill['components'])} components in {bill_of(image.name)}")
    return 0


def bill_of(name: str) -> Path:
    """Where the bill of an image lies."""
    return SBOM / f"{name}.cdx.json"


def listed(name: str) -> Path:
    """Where it stands which Debian packages an image may hold."""
    return PACKAGES / f"{name}.txt"


def take_stock(known: family.Family, image: family.Image) -> Bill:
    """Look through the image, and write its bill."""
    SBOM.mkdir(exist_ok=True)
    name, _, version = known.tag(image).rpartition(":")
    syft = Path(sys.executable).with_name("syft")
    with engine.mounted(known.tag(image)) as root:
        command = [str(syft), "scan", f"dir:{root}", "--override-default-catalogers", "image", "--quiet"]
        command += ["--source-name", name, "--source-version", version, "-o", f"cyclonedx-json={bill_of(image.name)}"]
        subprocess.run(command, check=True, env={**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"})
    bill: Bill = json.loads(bill_of(image.name).read_text(encoding="utf-8"))
    return bill


def debian_packages(bill: Bill) -> list[str]:
    """Their names, sorted: versions change with each update, names when somebody adds something."""
    return sorted({name for name, _ in _of_kind(bill, "pkg:deb/")})


def python_packages(bill: Bill) -> dict[str, str]:
    """Their versions by their names."""
    return dict(_of_kind(bill, "pkg:pypi/"))


def _of_kind(bill: Bill, prefix: str) -> list[tuple[str, str]]:
    components = [each for each in bill["components"] if each.get("purl", "").startswith(prefix)]
    return [(each["name"].lower(), each["version"]) for each in components]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
