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
from .arena import Arena

_ONNX_SETTINGS = (
    *("provider", "provider_policy", "provider_option", "graph_optimization", "cache_dir", "gpu_memory_mb"),
    *("batch_buckets", "cuda_graphs", "tensorrt_build", "ragged", "mask_inputs", "length_inputs", "max_batch_tokens"),
)
"""What the scorer of an ONNX model is told of the settings, by their names."""

_SCORER = Path(__file__).resolve().parent.parent / "scorer" / "__main__.py"


@dataclass(frozen=True)
class LaunchPlan:
    """Everything about the scorers of a server: all that differs between them is their seat's GPU."""

    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    """What the server was started with."""
    hello: Mapping[str, Any]
    preload: bool = False
    arena: Arena | None = None
    """Where the front puts large bodies; None for a scorer that is given none."""
    gpus: tuple[str, ...] = ()
    """UUID of each seat's GPU, the only one that its scorer sees; empty when scorers see what the server does."""

    def scorer_environ(self, seat: int) -> Mapping[str, str]:
        """A script sees the environment as it was; a model runs in our interpreter, and so in our sealed environment."""
        environ = os.environ if self.hello.get("engine") == "onnx" else self.environ
        return {**environ, "CUDA_VISIBLE_DEVICES": self.gpus[seat]} if self.gpus else environ

    @property
    def target(self) -> str:
        """The file that is served."""
        return str(self.hello["target"])


class Wires:
    """What connects the front with a scorer: our ends, and `theirs`, which is closed once they have it.

    channel: the stream socket. progress: the id that the scorer marks before it runs a request. outputs: our ends of the
    pipes of its stdout and stderr, when it is given pipes. theirs: descriptors of the channel and of the progress file,
    then of stdout and stderr.
    """

    def __init__(self, *, piped: bool) -> None:
        with contextlib.ExitStack() as on_failure:
            self.channel, their_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            on_failure.callback(self.channel.close)
            on_failure.callback(their_channel.close)
            shared_file = progress.create_shared_file()
            on_failure.callback(os.close, shared_file)
            self.outputs: list[int] = []
            self.theirs = [0, shared_file]
            for _ in range(2 if piped else 0):
                reader, writer = os.pipe()
                on_failure.callback(os.close, reader)
                on_failure.callback(os.close, writer)
                self.outputs.append(reader)
                self.theirs.append(writer)
            self.progress = progress.ProgressReader(shared_file)
            self.theirs[0] = their_channel.detach()
            on_failure.pop_all()

    def close_theirs(self) -> None:
        """They have their ends, or never will."""
        while self.theirs:
            os.close(self.theirs.pop())

    def close(self) -> None:
        """Let go of everything: nobody is at the other end."""
        self.close_theirs()
        self.channel.close()
        self.progress.close()
        while self.outputs:
            os.close(self.outputs.pop())


def plan(target: Target, settings: Settings, environ: Mapping[str, str], gpus: tuple[str, ...] = ()) -> LaunchPlan:
    """How to start scorers for `target`.

    environ: the environment that the server was started with. gpus: of each scorer, as `gpus.allot` says.
    """
    hello: dict[str, Any] = {
        "engine": target.engine,
        "target": None if target.import_main else str(target.path),
        "name": settings.model_name or target.name,
        "scorers": settings.scorers,
        "threads": settings.threads,
        "max_batch_size": settings.max_batch_size,
        "log_level": settings.log_level,
        "scoring_timeout_ms": settings.scoring_timeout_ms,
        "app_root": str(Path(settings.app_root or ".").absolute()),
        "source_dir": environ.get("AZUREML_SOURCE_DIRECTORY"),
        "model_dir": settings.model_dir,
        "debug_port": settings.debug_port,
    }
    if target.engine == "onnx":
        hello |= {name: getattr(settings, name) for name in _ONNX_SETTINGS}
        hello |= {"cache_dir": cache_dir(settings, environ), "cache_dir_is_named": settings.cache_dir is not None}
    scorer_environ = dict(environ)
    if settings.model_dir is not None:
        scorer_environ["AZUREML_MODEL_DIR"] = settings.model_dir
    if target.engine == "onnx":
        arguments: tuple[str, ...] = (sys.executable, "-I", "-m", "scoring_runtime.onnx")
    else:
        arguments = (user_python(settings, environ), str(_SCORER))
    return LaunchPlan(arguments, scorer_environ, hello, settings.preload, gpus=gpus)


def cache_dir(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """The folder that keeps what was built for a model: as set, else in the cache folder of the user who started the server.

    None where it is switched off, or the user has none.
    """
    if settings.cache_dir is not None:
        return None if settings.cache_dir.lower() == "off" else str(Path(settings.cache_dir).expanduser().absolute())
    for variable, below in (("XDG_CACHE_HOME", ""), ("HOME", ".cache")):
        folder = Path(environ.get(variable, ""))
        if folder.is_absolute():  # the convention: a relative one is as good as none
            return str(folder / below / "scoring-runtime")
    return None


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
    named = environ.get("AZUREML_CONDA_ENVIRONMENT_PATH")
    if named and not os.access(Path(named, "bin", "python"), os.X_OK):
        raise ConfigurationError(
            f"environment variable AZUREML_CONDA_ENVIRONMENT_PATH is {named!r}, where there is no python in bin/. "
            "Add python to that environment's packages, unset the variable, or use --python."
        )
    for variable in ("AZUREML_CONDA_ENVIRONMENT_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"):
        candidate = Path(environ.get(variable, ""), "bin", "python")
        if environ.get(variable) and os.access(candidate, os.X_OK):
            return str(candidate)
    # Our images name one, which a derived image shadows by its PATH: there the server's own holds nothing of the user.
    return shutil.which(environ.get("SCORING_DEFAULT_PYTHON", ""), path=environ.get("PATH")) or sys.executable


def launch(
    plan: LaunchPlan, *, seat: int = 0, piped: bool = False, control: socket.socket | None = None
) -> tuple["subprocess.Popen[bytes]", Wires]:
    """Start one scorer and say HELLO to it; ScorerStartError when the interpreter cannot be started.

    seat: which of the pool's places it takes. piped: its stdout and stderr are pipes; otherwise they are ours. control: makes it a preload process, which is asked
    over the other end of this socket.
    """
    wires = Wires(piped=piped)
    wires.channel.sendall(frames.encode_json(frames.HELLO, dict(plan.hello)))  # it fits what a socket holds
    try:
        passed = [*wires.theirs[:2], *([] if plan.arena is None else [plan.arena.reader])]
        arguments = passed if plan.arena is not None else [*passed, -1]
        if control is not None:
            passed, arguments = [*passed, control.fileno()], [*arguments, control.fileno()]
        stdout, stderr = wires.theirs[2:] or (None, None)
        process = subprocess.Popen(
            (*plan.arguments, *map(str, arguments)),
            env=plan.scorer_environ(seat),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=passed,
            start_new_session=True,  # a Ctrl-C in the terminal is the front's to act on; a kill reaches the group
        )
    except OSError as error:
        wires.close()
        raise ScorerStartError(
            f"{plan.arguments[0]}: cannot start the interpreter: {error.strerror}. Name another one with --python."
        ) from None
    wires.close_theirs()
    return process, wires


def describe_exit(returncode: int | None) -> str:
    """What a return code of subprocess means, in words; None is one that nobody knows."""
    if returncode is None:
        return "ended with the process that it was forked from"
    if returncode >= 0:
        return f"exited with code {returncode}"
    hint = " (out of memory?)" if returncode == -9 else ""
    return f"was killed by signal {-returncode}{hint}"
