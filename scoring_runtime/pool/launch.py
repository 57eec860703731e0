"""How a scorer is started: which interpreter, which arguments, which environment, which HELLO."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, ScorerStartError
from ..scorer import frames, progress
from ..settings import Settings
from ..target import Target

_SCORER = Path(__file__).resolve().parent.parent / "scorer" / "__main__.py"


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that is the same for every scorer of a server."""

    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    hello: Mapping[str, Any]

    @property
    def target(self) -> str:
        """The file that is served."""
        return str(self.hello["target"])


@dataclass
class Launched:
    """A started scorer: its process, our end of its channel, and the id that it marks before it runs a request."""

    process: "subprocess.Popen[bytes]"
    channel: socket.socket
    progress: progress.Progress
    outputs: tuple[int, int] | None
    """Our ends of the pipes of its stdout and stderr, when it was given pipes."""


def plan(target: Target, settings: Settings, environ: Mapping[str, str]) -> LaunchPlan:
    """How to start scorers for `target`. `environ` is the environment that the server was started with."""
    hello: dict[str, Any] = {
        "engine": target.engine,
        "target": None if target.import_main else str(target.path),
        "name": target.name,
        "scorers": settings.scorers,
        "threads": 0,
        "max_batch_size": settings.max_batch_size,
        "log_level": settings.log_level,
        "scoring_timeout_ms": settings.scoring_timeout_ms,
        "app_root": str(Path(settings.app_root or ".").absolute()),
        "source_dir": environ.get("AZUREML_SOURCE_DIRECTORY"),
        "model_dir": settings.model_dir,
        "debug_port": settings.debug_port,
    }
    scorer_environ = dict(environ)
    if settings.model_dir is not None:
        scorer_environ["AZUREML_MODEL_DIR"] = settings.model_dir
    if target.engine == "onnx":
        return LaunchPlan((sys.executable, "-I", "-m", "scoring_runtime.onnx"), scorer_environ, hello)
    return LaunchPlan((user_python(settings, environ), str(_SCORER)), scorer_environ, hello)


def user_python(settings: Settings, environ: Mapping[str, str]) -> str:
    """The interpreter of the user's own environment.

    `--python`, else the environment that is named or active, else the interpreter that runs this server.
    """
    if settings.python is not None:
        found = shutil.which(settings.python, path=environ.get("PATH"))
        if found is None:
            raise ConfigurationError(
                f"--python {settings.python}: no such executable. Name the python of your environment."
            )
        return found
    for variable in ("AZUREML_CONDA_ENVIRONMENT_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"):
        candidate = Path(environ.get(variable, ""), "bin", "python")
        if environ.get(variable) and os.access(candidate, os.X_OK):
            return str(candidate)
    return sys.executable


def launch(plan: LaunchPlan, *, piped: bool = False) -> Launched:
    """Start one scorer and say HELLO to it; ScorerStartError when the interpreter cannot be started.

    piped: its stdout and stderr are pipes, whose other ends come back; otherwise they are ours.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours_on_failure:
        channel, their_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours_on_failure.callback(channel.close)
        theirs.callback(their_channel.close)
        shared_file = progress.create_shared_file()
        theirs.callback(os.close, shared_file)
        outputs, their_outputs = [], []
        for _ in range(2 if piped else 0):
            reader, writer = os.pipe()
            ours_on_failure.callback(os.close, reader)
            theirs.callback(os.close, writer)
            outputs.append(reader)
            their_outputs.append(writer)
        stdout, stderr = their_outputs or (None, None)
        try:
            process = subprocess.Popen(
                (*plan.arguments, str(their_channel.fileno()), str(shared_file)),
                env=plan.environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(their_channel.fileno(), shared_file),
                start_new_session=True,  # a Ctrl-C in the terminal is the front's to act on; a kill reaches the group
            )
        except OSError as error:
            raise ScorerStartError(
                f"{plan.arguments[0]}: cannot start the interpreter: {error.strerror}. Name another one with --python."
            ) from None
        channel.sendall(frames.encode_json(frames.HELLO, dict(plan.hello)))
        launched = Launched(
            process, channel, progress.Progress(shared_file), (outputs[0], outputs[1]) if piped else None
        )
        ours_on_failure.pop_all()
        return launched


def describe_exit(returncode: int) -> str:
    """What a return code of subprocess means, in words."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    hint = " (out of memory?)" if returncode == -9 else ""
    return f"was killed by signal {-returncode}{hint}"
