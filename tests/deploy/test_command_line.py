"""`scoring-runtime image` and what `serve` says about commands, as people type them."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("scoring-runtime")


def ended(*arguments: str, path: str = os.environ["PATH"]) -> tuple[int, str, str]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, env={"PATH": path})
    return done.returncode, done.stdout, done.stderr


def test_help_names_both_parts():
    code, output, _ = ended("image", "--help")
    assert code == 0
    assert "map|check" in output
    for what in ("map", "check"):
        code, output, _ = ended("image", what, "--help")
        assert code == 0
        assert "IMAGE" in output


def test_a_name_of_before():
    name = "mcr.microsoft.com/azureml/onnxruntime:latest-cuda"
    code, output, error = ended("image", "map", name)
    assert (code, error) == (0, "")
    assert output.startswith(f"{name}: ONNX Runtime for NVIDIA GPUs")
    assert output.endswith("\nUse in its place: cuda\n")


def test_a_name_without_successor():
    code, output, _ = ended("image", "map", "azureml/onnxruntime:latest-migraphx")
    assert code == 0
    assert output.endswith("\nNothing in this family takes its place.\n")


def test_an_unknown_name():
    code, output, error = ended("image", "map", "nginx")
    assert (code, output) == (1, "")
    assert error.startswith("scoring-runtime: error: nginx: no image that this family takes the place of.")


def test_no_engine_to_look_into_images_with(tmp_path: Path):
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    (tmp_path / "readlink").symlink_to("/usr/bin/readlink")
    code, output, error = ended("image", "check", "x", path=str(tmp_path))
    assert (code, output) == (1, "")
    assert error.startswith("scoring-runtime: error: neither podman nor docker can be found")


def test_a_command_of_another_image():
    code, output, error = ended("serve", "runsvdir", "/var/runit")
    assert (code, output) == (1, "")
    assert error.startswith("scoring-runtime: error: `runsvdir /var/runit` is a command")
    assert error.count("\n") == 1
