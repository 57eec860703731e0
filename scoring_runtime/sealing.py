"""The front's interpreter is nobody's but ours: isolated, and with nothing in its environment that steers it."""

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = frozenset(
    (
        *("HOME", "LANG", "LANGUAGE", "PATH", "TMPDIR", "TZ"),
        "NOTIFY_SOCKET",
        # How telemetry reaches the network.
        *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "http_proxy", "https_proxy", "no_proxy"),
        *("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
        # Which devices a model may use, and how it shares them with others.
        *("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES"),
        *("CUDA_CACHE_PATH", "CUDA_MODULE_LOADING", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PIPE_DIRECTORY"),
    )
)
_KEPT_PREFIXES = (
    "APPLICATIONINSIGHTS_",
    "LC_",
    # Of the dynamic linker and the allocator, which have read them before our first line runs. ONNX Runtime may need
    # the same ones to find its libraries.
    *("DYLD_", "LD_", "MALLOC_"),
)


def restart_isolated(arguments: list[str], module: str = "scoring_runtime") -> None:
    """Replace this process by an isolated interpreter that runs the same command; return when it is isolated already.

    Isolated means: no PYTHONPATH or other PYTHON* variable, no user site, no module from the working directory. The
    installed commands start isolated. This is for `python -m scoring_runtime`, whose first interpreter is not.
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
    """Leave only what `sealed` keeps, and return the environment as it was, for the scorers of scripts.

    To be called before any library is imported: GUNICORN_CMD_ARGS, FLASK_DEBUG, PROMETHEUS_MULTIPROC_DIR, OPENSSL_CONF and
    many more are read while their readers are imported, and some of them name code to load.
    """
    original = dict(os.environ)
    for variable in original.keys() - sealed(original).keys():
        del os.environ[variable]
    return original


def sealed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that our own interpreters may see. A list of what is kept: nobody can list all that libraries read."""
    return {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}


def _is_in_user_site() -> bool:
    return Path(site.getusersitepackages()).resolve() in Path(__file__).resolve().parents
