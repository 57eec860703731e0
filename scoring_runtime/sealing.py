"""The front's interpreter is nobody's but ours: isolated, and with nothing in its environment that steers it."""

import os
import site
import sys
from pathlib import Path

_READ_BY_GUNICORN = ("WEB_CONCURRENCY", "PORT", "SENDFILE", "FORWARDED_ALLOW_IPS", "LISTEN_PID", "LISTEN_FDS")


def restart_isolated(arguments: list[str], module: str = "scoring_runtime") -> None:
    """Replace this process by an isolated interpreter that runs the same command; return when it is isolated already.

    Isolated means: no PYTHONPATH or other PYTHON* variable, no user site, no module from the working directory.
    """
    if sys.flags.isolated:
        return
    if _is_in_user_site():
        raise SystemExit(
            "scoring-runtime is installed in the user site, which an isolated interpreter does not read. "
            "Install it in a virtual environment: python3 -m venv .venv && .venv/bin/pip install scoring-runtime"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-m", module, *arguments])  # noqa: S606 - itself, isolated


def seal_environment() -> dict[str, str]:
    """Take away what would steer gunicorn, and return the environment as it was, for the scorers.

    To be called before gunicorn is imported: it reads some of these while it is imported.
    """
    original = dict(os.environ)
    for variable in original:
        if variable.startswith("GUNICORN_") or variable in _READ_BY_GUNICORN:
            del os.environ[variable]
    return original


def _is_in_user_site() -> bool:
    return Path(site.getusersitepackages()).resolve() in Path(__file__).resolve().parents
