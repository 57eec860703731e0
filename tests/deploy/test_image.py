"""What is read of an image, and what is said about it. No engine is asked."""

import hashlib
import io
import json
import tarfile

import pytest

from scoring_runtime.deploy import image
from scoring_runtime.deploy.requirements_of_base import (
    MANIFEST,
    SERVER,
    Contents,
    Finding,
    findings,
    read_config,
    render,
)

UBUNTU = b'NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n'
FILES = {f"{SERVER}/bin/tool": b"text", f"{SERVER}/lib/a.py": b"a = 1\n"}
LINKS = {f"{SERVER}/bin/python": "/usr/bin/python3"}
CONDA = "opt/conda/conda-meta/conda-23.5.0-py310h06a4308_0.json"
CONFIG = {"User": "10001:0", "ExposedPorts": {"5001/tcp": {}}}


def manifest(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    digests |= {path: hashlib.sha256(to.encode()).hexdigest() for path, to in links.items()}
    return "".join(f"{digest}  {path.removeprefix(SERVER + '/')}\n" for path, digest in digests.items()).encode()


def archive(files: dict[str, bytes], links: dict[str, str], prefix: str = "") -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(prefix + path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for path, to in links.items():
            member = tarfile.TarInfo(prefix + path)
            member.type, member.linkname = tarfile.SYMTYPE, to
            tar.addfile(member)
    stream.seek(0)
    return stream


def whole(**changes: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes | None] = {
        "etc/os-release": UBUNTU,
        "usr/bin/python3.12": b"",
        CONDA: b"{}",
        "usr/lib/x86_64-linux-gnu/libfuse.so.2.9.9": b"",
        **FILES,
        MANIFEST: manifest(FILES, LINKS),
    }
    files |= {path.replace("__", "/"): data for path, data in changes.items()}
    return {path: data for path, data in files.items() if data is not None}


def found_in(contents: Contents, config: object = None, architecture: str = "amd64") -> dict[str, Finding]:
    inspected = json.dumps([{"Config": CONFIG if config is None else config, "Architecture": architecture}]).encode()
    return {finding.what: finding for finding in findings(contents, *read_config(inspected), "amd64")}


@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_image_with_everything_meets_everything(prefix: str):
    found = found_in(image.read_tar(archive(whole(), LINKS, prefix)))
    assert [finding.what for finding in found.values() if finding.met is not True] == []
    assert list(found) == ["architecture", "os", "conda", "python", "libfuse", "user", "ports", "server"]
    assert found["server"].text.startswith("3 files, as built")


@pytest.mark.parametrize(
    ("files", "what", "met", "text"),
    [
        (whole(**{"etc/os-release": b"ID=alpine\nVERSION_ID=3.20\n"}), "os", False, "alpine 3.20: Azure ML asks for"),
        (whole(**{"etc/os-release": b'ID=ubuntu\nVERSION_ID="14.04"\n'}), "os", False, "ubuntu 14.04"),
        (whole(**{"etc/os-release": b'ID=debian\nVERSION_ID="12"\n'}), "os", True, "debian 12"),
        (whole(**{"etc/os-release": None}), "os", False, "unknown"),
        (whole(**{CONDA: None}), "conda", None, "userManagedDependencies"),
        (whole(**{CONDA: None, "c/conda-meta/conda-4.4.11-py36_0.json": b""}), "conda", False, "4.4.11; Azure ML asks"),
        (whole(**{"usr/bin/python3.12": None}), "python", False, "install python3"),
        (
            whole(**{"usr/bin/python3.12": None, "usr/bin/python2.7": b""}),
            "python",
            False,
            "2.7; Azure ML asks for 3.5",
        ),
        (whole(**{"usr/lib/x86_64-linux-gnu/libfuse.so.2.9.9": None}), "libfuse", None, "mount data"),
        (whole(**{MANIFEST: None}), "server", False, "stand on an image of the family"),
        (whole(**{f"{SERVER}/lib/a.py": b"a = 2\n"}), "server", False, f"changed: /{SERVER}/lib/a.py: build"),
        (whole(**{f"{SERVER}/lib/a.py": None}), "server", False, f"gone: /{SERVER}/lib/a.py"),
        (whole(**{f"{SERVER}/b": b"", f"{SERVER}/c": b""}), "server", False, f"added: /{SERVER}/b and 1 more"),
    ],
)
def test_what_is_not_met_is_said(files: dict[str, bytes], what: str, met: bool | None, text: str):
    finding = found_in(image.read_tar(archive(files, LINKS)))[what]
    assert finding.met is met
    assert text in finding.text


def test_a_link_that_leads_elsewhere_is_a_change():
    contents = image.read_tar(archive(whole(), {f"{SERVER}/bin/python": "/evil/python"}))
    assert f"changed: /{SERVER}/bin/python" in found_in(contents)["server"].text


def test_another_architecture_than_this_machines():
    finding = found_in(Contents(), architecture="arm64")["architecture"]
    assert finding == ("architecture", False, "arm64, and this machine is amd64: build it with --platform linux/amd64")


@pytest.mark.parametrize("user", ["", "root", "0", "0:0", "root:root"])
def test_an_image_that_runs_as_root(user: str):
    finding = found_in(Contents(), {"User": user, "ExposedPorts": {"5001/tcp": {}}})["user"]
    assert finding.met is False
    assert finding.text.endswith("end the Dockerfile with USER 10001:0")


@pytest.mark.parametrize(("ports", "text"), [({}, "none: EXPOSE 5001"), ({"80/tcp": {}}, "80/tcp: EXPOSE 5001")])
def test_an_image_that_opens_no_port(ports: dict[str, object], text: str):
    assert found_in(Contents(), {"User": "1", "ExposedPorts": ports})["ports"] == ("ports", False, text)


def test_an_image_without_any_configuration():
    found = findings(Contents(), *read_config(b'[{"Config": null}]'), "amd64")
    assert {finding.what: finding.met for finding in found}["architecture"] is False


def test_one_line_for_each():
    text = render([Finding("os", True, "ubuntu"), Finding("conda", None, "none"), Finding("ports", False, "none")])
    assert text == "os     ok       ubuntu\nconda  -        none\nports  MISSING  none"
