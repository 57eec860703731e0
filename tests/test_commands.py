"""The shell scripts that are the commands: which Python they start."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
COMMANDS = {"scoring-runtime": "scoring_runtime", "azmlinfsrv": "scoring_runtime.azmlinfsrv"}


def installed(folder: Path, command: str, *pythons: str) -> Path:
    """A command beside programs that say how they were called."""
    for name in pythons:
        python = folder / name
        python.write_text('#!/bin/sh\necho "${0##*/}" "$@"\n')
        python.chmod(0o755)
    return Path(shutil.copy(SCRIPTS / command, folder))


def said(command: Path) -> str:
    ended = subprocess.run([command, "serve", "a b"], capture_output=True, text=True, check=True, env={})
    return ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("beside", "started"), [(["python", "python3"], "python"), (["python"], "python"), (["python3"], "python3")]
)
def test_a_command_starts_the_python_beside_it_isolated(tmp_path, command, beside, started):
    path = installed(tmp_path, command, *beside)
    expected = f"{started} -I -m {COMMANDS[command]} serve a b\n"
    assert said(path) == expected
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    assert said(link) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_a_python_beside_it_says_what_to_do(tmp_path, command):
    path = installed(tmp_path, command)
    ended = subprocess.run([path], capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert (ended.returncode, ended.stdout) == (127, "")
    assert ended.stderr.count("\n") == 1
    assert "Install scoring-runtime into an environment" in ended.stderr
