"""What lies in the images: their structure, their bill of materials, packages, licences, and that it can be built again."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from stat import S_ISLNK

import pytest
from packaging.requirements import Requirement

from images import engine, family, materials

from .conftest import BUILT_HERE, NAME, ROOT, podman

pytestmark = [pytest.mark.images, pytest.mark.timeout(600)]

FAMILY = family.load()
STRUCTURE = Path(__file__).with_name("structure")
OF_THE_USERS_ENVIRONMENT = {"pip", "setuptools"}


@pytest.fixture(scope="session")
def podman_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Podman, as a service that speaks Docker's protocol."""
    address = f"unix://{tmp_path_factory.mktemp('podman')}/socket"
    command = ["podman", "--log-level", "fatal", "system", "service", "--time=0", address]
    with subprocess.Popen(command, env=engine.environ()) as service:
        try:
            deadline = time.monotonic() + 30
            while not Path(address.removeprefix("unix://")).exists():
                assert service.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield address
        finally:
            service.terminate()


@pytest.mark.parametrize("image", BUILT_HERE)
def test_structure(image: str, podman_socket: str):
    own = STRUCTURE / ("minimal.yaml" if image == "minimal" else "cpu.yaml")
    program = str(Path(sys.executable).with_name("container-structure-test"))
    command = [program, "test", "--image", f"{NAME}:{image}"]
    command += ["--config", str(STRUCTURE / "served.yaml"), "--config", str(own)]
    environ = {**os.environ, "DOCKER_HOST": podman_socket}
    ended = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def bills() -> dict[str, materials.Bill]:
    """Bills of materials, each made when it is first asked for."""
    return Bills()


class Bills(dict[str, materials.Bill]):
    def __missing__(self, image: str) -> materials.Bill:
        self[image] = materials.take_stock(FAMILY, FAMILY.find(image))
        return self[image]


@pytest.mark.parametrize("image", BUILT_HERE)
def test_the_bill_lists_the_locked_python_packages_and_no_other(image: str, bills: dict[str, materials.Bill]):
    described = FAMILY.root(FAMILY.find(image))
    found = materials.python_packages(bills[image])
    if described.target != "minimal":
        assert found.keys() >= OF_THE_USERS_ENVIRONMENT
        found = {name: version for name, version in found.items() if name not in OF_THE_USERS_ENVIRONMENT}
    assert found == {**locked(f"{described.requirements}"), "scoring-runtime": metadata.version("scoring-runtime")}


def locked(requirements: str) -> dict[str, str]:
    """The packages of a list that are for this system, with their versions."""
    lines = (ROOT / "requirements" / f"{requirements}.txt").read_text().replace("\\\n", " ").splitlines()
    pins = [Requirement(line.partition(" --hash")[0]) for line in lines if line and line[0] not in " #"]
    wanted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": "3.11"})]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in wanted}


@pytest.mark.parametrize("image", BUILT_HERE)
def test_the_bill_lists_the_debian_packages_that_are_allowed_and_no_other(image: str, bills: dict[str, materials.Bill]):
    allowed = materials.listed(image).read_text().split()
    found = materials.debian_packages(bills[image])
    cure = f"if that is meant, run: python -m images.materials --renew {image}"
    assert found == allowed, f"{image} holds other Debian packages than {materials.listed(image).name} says: {cure}"
    assert "libc6" in found
    assert all(each.get("version") for each in bills[image]["components"] if each.get("purl"))


@pytest.mark.parametrize("image", BUILT_HERE)
def test_the_licence_of_each_python_package_is_collected(image: str, bills: dict[str, materials.Bill]):
    with engine.mounted(f"{NAME}:{image}") as root:
        server = root / "opt/scoring-runtime"
        text = (server / "LICENSES.txt").read_text()
        entries = dict(re.findall(r"^([\w.-]+) \S+: (.+)$", text, re.MULTILINE))
        texts = re.findall(r"^    (.+)$", text, re.MULTILINE)
        assert all((server / path).is_file() for path in texts)
    found = {re.sub(r"[-_.]+", "-", name).lower() for name in entries}
    assert found == materials.python_packages(bills[image]).keys() - OF_THE_USERS_ENVIRONMENT
    assert len(texts) >= len(entries)


@pytest.mark.parametrize("image", BUILT_HERE)
def test_the_server_is_roots_and_nobody_may_write_to_it(image: str):
    with engine.mounted(f"{NAME}:{image}") as root:
        server = root / "opt/scoring-runtime"
        found = {path: path.lstat() for path in (server, *server.rglob("*"))}
    assert {status.st_uid for status in found.values()} == {status.st_gid for status in found.values()} == {0}
    assert [str(path) for path, status in found.items() if status.st_mode & 0o022 and not S_ISLNK(status.st_mode)] == []


@pytest.mark.parametrize("image", BUILT_HERE)
def test_no_package_leaves_its_lists_or_logs(image: str):
    with engine.mounted(f"{NAME}:{image}") as root:
        left = [
            path
            for name in ("var/lib/apt/lists", "var/log", "var/cache/apt", "tmp", "root/.cache")
            for path in (root / name).rglob("*")
            if path.is_file() and path.stat().st_size
        ]
    assert [str(path) for path in left] == []


def test_two_builds_have_the_same_layers():
    """The second takes nothing of what the first one has left behind."""
    again = f"{NAME}-again:cpu"
    try:
        command = [sys.executable, "-m", "images.build", "--again", again, "cpu"]
        subprocess.run(command, cwd=ROOT, env=engine.environ(), check=True, capture_output=True)
        assert layers(again) == layers(f"{NAME}:cpu")
    finally:
        podman("rmi", "-f", again, check=False)


def layers(tag: str) -> list[str]:
    inspected: list[str] = json.loads(podman("image", "inspect", tag, "--format", "{{json .RootFS.Layers}}").stdout)
    return inspected
