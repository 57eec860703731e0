"""The description of the family, what follows from it, and the Dockerfile, read and linted. Nothing is built here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from images import build, family
from images.family import FamilyError

from .conftest import ROOT

DOCKERFILE = (ROOT / "images/Dockerfile").read_text()
FAMILY = family.load()
ONE = "name: x\nbase_image: b\nminimal_base_image: m\nimages:\n"


def test_what_follows_from_the_description_is_up_to_date():
    """`make images-files` writes both."""
    assert family.BAKE.read_text() == family.bake(FAMILY)
    page = family.README.read_text()
    assert family.with_table(page, FAMILY) == page


def test_every_target_of_the_family_is_in_the_dockerfile():
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert {image.target for image in FAMILY.images.values()} <= stages


def test_every_locked_list_is_there_with_hashes_and_without_addresses():
    for image in FAMILY.images.values():
        if image.requirements is not None:
            text = (ROOT / "requirements" / f"{image.requirements}.txt").read_text()
            pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
            assert pins
            assert all(re.match(r"[\w.\[\],-]+==\S+", line) for line in pins)
            assert text.count("--hash=sha256:") >= len(pins)
            assert "://" not in text


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("  a: {target: t, holds: h}", "give either its parent or its requirements"),
        ("  a: {target: t, holds: h, requirements: r, parent: b}", "give either its parent or its requirements"),
        ("  a: {target: t, holds: h, requirements: r, colour: red}", "image a: colour: no such key"),
        ("  a: {target: t, holds: h, parent: z}", "there is no image 'z': there are a"),
    ],
)
def test_a_description_that_is_wrong(rows: str, why: str):
    with pytest.raises(FamilyError, match=why):
        family.parse(ONE + rows)


def test_what_cannot_be_built_here_has_a_command_and_a_reason():
    for image in FAMILY.images.values():
        if image.elsewhere or image.on_demand:
            command = family.docker_command(FAMILY, image)
            assert command.startswith(f"docker build --target {image.target} ")
            assert all(f"--build-arg {name}" in command for name in image.build_args)


def test_an_unknown_image_is_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]):
    assert build.main(["gpu"]) == 1
    assert capsys.readouterr().err == f"images: there is no image 'gpu': there are {', '.join(FAMILY.images)}\n"


# The Dockerfile


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, ROOT / "images/Dockerfile"], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_no_program_runs_as_root_and_none_is_started_by_a_shell():
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    for stage in stages:
        name = stage.splitlines()[0].rpartition(" ")[2]
        users = re.findall(r"^USER (\S+)$", stage, re.MULTILINE)
        assert not users or users[-1] == "10001:0", name
        for line in re.findall(r"^\s*(?:ENTRYPOINT|CMD) (.*)$", stage, re.MULTILINE):
            assert line.startswith('["/'), name


def test_nothing_is_taken_from_the_network_without_a_checksum():
    assert "ADD " not in DOCKERFILE
    assert ":latest" not in DOCKERFILE
    for install in re.findall(r"-m pip [^&]*", DOCKERFILE):
        assert "--require-hashes" in install or "--no-index" in install
    assert DOCKERFILE.index("sha256sum -c") < DOCKERFILE.index("bash /tmp/conda.sh")
