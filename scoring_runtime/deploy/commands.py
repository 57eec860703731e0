"""A command meant for another image, given to ours as arguments of the server: `podman run IMAGE runsvdir /var/runit`. Pure."""

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

_PROGRAMS = frozenset(
    (
        *("runsvdir", "runsv", "gunicorn", "azmlinfsrv", "nginx", "supervisord", "uvicorn", "waitress-serve", "flask"),
        *("tritonserver", "mlserver", "onnxruntime_server", "conda", "jupyter", "sh", "bash", "dash", "zsh"),
        *("env", "exec", "entrypoint.sh", "tini", "dumb-init", "python", "python3", "scoring-runtime", "sleep", "cat"),
    )
)


def misread(arguments: Sequence[str]) -> str | None:
    """What to say about arguments of `serve` that begin with another program's name; None when they do not."""
    if not arguments or PurePosixPath(arguments[0]).name not in _PROGRAMS:
        return None
    program, *others = arguments
    instead = shlex.join(["podman", "run", "--entrypoint", program, "IMAGE", *others])
    return (
        f"`{shlex.join(arguments)}` is a command, and here it is read as arguments of `scoring-runtime serve`, which an image of "
        "ours starts by itself. Leave the command (CMD, or `args` in Kubernetes) out, or put options of the server in its "
        f"place, as in `--scorers 2`. To run that program and no server: `{instead}`."
    )
