"""Writes down under which licence each package of an environment comes: `python3 licences.py /opt/scoring-runtime`.

The list lies in the environment as `LICENSES.txt`, and names the files with the texts. A package that says nothing ends it.
"""

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

NAME = "LICENSES.txt"
WORDS = ("LICEN", "COPYING", "NOTICE", "EULA")
CLASSIFIER = "License :: "


def main(environment: Path) -> None:
    """List the environment's packages."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    found = sorted(distributions(path=[str(packages)]), key=lambda each: each.name.lower())
    (environment / NAME).write_text("\n\n".join(_entry(each, environment) for each in found) + "\n", encoding="utf-8")


def _entry(package: Distribution, environment: Path) -> str:
    paths = [Path(str(package.locate_file(file))) for file in package.files or ()]
    texts = [path for path in paths if path.is_file() and any(word in path.name.upper() for word in WORDS)]
    licence = _licence(package)
    if not licence and not texts:
        raise SystemExit(f"{package.name} {package.version} says nothing of its licence: is it to be in the image?")
    lines = [f"{package.name} {package.version}: {licence or 'see its text'}"]
    return "\n".join(lines + [f"    {path.relative_to(environment)}" for path in sorted(set(texts))])


def _licence(package: Distribution) -> str:
    """As the package says it; of the three ways to say it the newest that it uses."""
    said = package.metadata.json
    classifiers = [text for text in said.get("classifier", ()) if text.startswith(CLASSIFIER)]
    short = str(said.get("license", "")).strip()
    return str(
        said.get("license_expression")
        or (short if "\n" not in short else "")
        or ", ".join(text.removeprefix(CLASSIFIER).removeprefix("OSI Approved :: ") for text in classifiers)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
