"""The description of the family, what follows from it, and the Dockerfile, read and linted. Nothing is built here."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from images import build, family, licences, measure, seal
from images.family import FamilyError

from .conftest import ROOT

DOCKERFILE = (ROOT / "images/Dockerfile").read_text()
FAMILY = family.load()
ONE = "name: x\nbase_image: b\nminimal_base_image: m\nminimal_build_image: p\nimages:\n"


def test_what_follows_from_the_description_is_up_to_date():
    """`make images-files` writes both."""
    assert family.BAKE.read_text() == family.bake(FAMILY)
    page = family.README.read_text()
    assert family.with_table(page, FAMILY) == page


def test_the_page_has_what_was_measured_last():
    """`make images-measure` writes it."""
    page = measure.PAGE.read_text()
    assert measure.with_table(page, json.loads(measure.RESULTS.read_text())) == page


def test_the_page_has_the_commands_that_build_elsewhere():
    page = measure.PAGE.read_text()
    for name in ("tensorrt", "cpu"):
        assert f"`{family.docker_command(FAMILY, FAMILY.find(name))}`" in page


def test_a_page_without_marks():
    with pytest.raises(FamilyError, match="the page has no <a> with <b> after it"):
        family.between("text <b> text <a>", "<a>", "<b>", "new")
    assert family.between("1 <a> 2 <b> 3", "<a>", "<b>", "new") == "1 <a>\nnew\n<b> 3"


def test_a_base_made_otherwise_is_another_image(monkeypatch: pytest.MonkeyPatch):
    before = build.root_tag("BASE_IMAGE")
    assert re.fullmatch(r"localhost/debian:bookworm-[0-9a-f]{12}", before)
    assert build.root_tag("BASE_IMAGE") == before
    monkeypatch.setitem(build.ROOTS, "BASE_IMAGE", ("bookworm", ["--variant=apt"]))
    assert build.root_tag("BASE_IMAGE") != before


def test_licences_are_listed_with_their_texts(tmp_path: Path):
    packages = tmp_path / "lib/python3.11/site-packages"
    for name, fields, files in (
        ("new", "License-Expression: MIT", ["licenses/LICENSE"]),
        ("old", "License: Apache 2.0", []),
        ("older", "Classifier: License :: OSI Approved :: BSD License", ["COPYING"]),
        ("silent", "", ["LICENSE.txt"]),
    ):
        folder = packages / f"{name}-1.0.dist-info"
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("text")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{fields}\n")
        (folder / "RECORD").write_text("".join(f"{folder.name}/{file},,\n" for file in files))
    licences.main(tmp_path)
    below = "    lib/python3.11/site-packages"
    assert (tmp_path / licences.NAME).read_text() == (
        f"new 1.0: MIT\n{below}/new-1.0.dist-info/licenses/LICENSE\n\nold 1.0: Apache 2.0\n\n"
        f"older 1.0: BSD License\n{below}/older-1.0.dist-info/COPYING\n\n"
        f"silent 1.0: see its text\n{below}/silent-1.0.dist-info/LICENSE.txt\n"
    )
    (packages / "silent-1.0.dist-info/LICENSE.txt").unlink()
    with pytest.raises(SystemExit, match=r"silent 1\.0 says nothing of its licence"):
        licences.main(tmp_path)


def test_a_sealed_tree_is_read_only_and_lists_itself(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/run").write_text("#!/bin/sh\n")
    (tmp_path / "bin/run").chmod(0o775)
    (tmp_path / "bin/link").symlink_to("/usr/bin/python3")
    seal.main(tmp_path)
    assert (tmp_path / seal.NAME).read_text() == (
        f"{hashlib.sha256(b'/usr/bin/python3').hexdigest()}  bin/link\n"
        f"{hashlib.sha256(b'#!/bin/sh' + bytes([10])).hexdigest()}  bin/run\n"
    )
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "bin", tmp_path / "bin/run")}
    assert modes == {"bin": "0o555", "run": "0o555"}


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


def test_somebody_who_is_not_root_is_told_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert build.main(["cpu"]) == 1
    assert (
        capsys.readouterr().err
        == "images: root file systems and images are made as root here: run the same with sudo\n"
    )


def test_what_is_not_installed_is_named_with_the_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert build.main(["cpu"]) == 1
    assert capsys.readouterr().err == "images: buildah, podman, mmdebstrap cannot be found: run `make images-apt`\n"


def test_minimal_is_put_together_with_the_python_that_it_has():
    command = family.docker_command(FAMILY, FAMILY.find("minimal"))
    assert "--build-arg BASE_IMAGE=debian:12 " in command
    assert "--build-arg MINIMAL_BASE_IMAGE=gcr.io/distroless/python3-debian12 " in command


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
