"""Commands of other images, read as arguments of the server."""

import shlex

import pytest

from scoring_runtime.deploy.commands import misread


@pytest.mark.parametrize(
    "line", ["runsvdir /var/runit", "bash", "/bin/sh -c 'echo x'", "gunicorn app:app", "/opt/conda/bin/python score.py"]
)
def test_a_command_is_answered_with_what_to_do(line: str):
    text = misread(shlex.split(line))
    assert text is not None
    assert text.startswith(f"`{line}` is a command")
    program, *others = shlex.split(line)
    assert f"`podman run --entrypoint {shlex.join([program, 'IMAGE', *others])}`" in text
    assert "\n" not in text


@pytest.mark.parametrize("line", ["", "score.py", "--scorers 2", "/models/bash.onnx", "models --port 1", "bash.py"])
def test_arguments_of_the_server_are_left_to_it(line: str):
    assert misread(shlex.split(line)) is None
