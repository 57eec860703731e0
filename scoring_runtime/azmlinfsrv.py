"""The same server under the incumbent's name, option spelling, variables, banner and exit codes (contract 1, 8)."""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from . import sealing, settings
from .errors import ConfigurationError, StartError
from .front.contract import SERVER_VERSION
from .target import Target

logger = logging.getLogger("azmlinfsrv")

DEFAULT_PORT = 5001
DEFAULT_HEALTH_PORT = 5000

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)

_BANNER = (
    ("Entry Script Name", "AZUREML_ENTRY_SCRIPT"),
    ("Model Directory", "AZUREML_MODEL_DIR"),
    ("Config File", "AZUREML_CONFIG_FILE"),
    ("Worker Count", "WORKER_COUNT"),
    ("Worker Timeout (seconds)", "WORKER_TIMEOUT"),
    ("Server Port", "SERVER_PORT"),
    ("Health Port", "HEALTH_PORT"),
    ("Application Insights Enabled", "AML_APP_INSIGHTS_ENABLED"),
    ("Application Insights Key", "AML_APP_INSIGHTS_KEY"),
    ("Inferencing HTTP server version", "HTTP_X_MS_SERVER_VERSION"),
    ("CORS for the specified origins", "AML_CORS_ORIGINS"),
    ("Create dedicated endpoint for health", "SEPERATE_HEALTH_ENDPOINT"),
)

_WORKER_FIELDS = {
    "AML_APP_ROOT": "app_root",
    "AML_APP_INSIGHTS_ENABLED": "app_insights_enabled",
    "AML_APP_INSIGHTS_KEY": "app_insights_key",
    "AML_CORS_ORIGINS": "cors_origins",
    "AML_MDC_STORAGE_ENABLED": "mdc_storage_enabled",
    "APP_INSIGHTS_LOG_RESPONSE_ENABLED": "app_insights_log_response_enabled",
    "AZUREML_DEBUG_PORT": "debug_port",
    "AZUREML_ENTRY_SCRIPT": "entry_script",
    "AZUREML_LOG_LEVEL": "log_level",
    "AZUREML_MODEL_DIR": "azureml_model_dir",
    "AZUREML_SOURCE_DIRECTORY": "source_dir",
    "SCORING_TIMEOUT_MS": "scoring_timeout",
    "SERVICE_NAME": "service_name",
    "SERVICE_PATH_PREFIX": "service_path_prefix",
    "SERVICE_VERSION": "service_version",
    "WORKSPACE_NAME": "workspace_name",
}
"""The variables that the incumbent's worker reads, with their fields (contract 1.4)."""

_FILE_KEYS = frozenset(
    variable for row in settings.ROWS.values() for variable in row.env if not variable.startswith("SCORING_")
) | {variable for _, variable in _BANNER} | {
    "AML_APP_ROOT",
    "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
    "AZUREML_DEBUG_PORT",
    "AZUREML_SOURCE_DIRECTORY",
    "HOSTNAME",
    "SCORING_TIMEOUT_MS",
    "SERVER_VERSION_LOG_RESPONSE_ENABLED",
    "WORKER_PRELOAD",
    "WORKSPACE_NAME",
}  # fmt: skip
"""The variables that a configuration file may set."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns or raises SystemExit with the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sealing.restart_isolated(given, "scoring_runtime.azmlinfsrv")
    parsed = _parser().parse_args(given)
    environ = sealing.seal_environment()

    from .telemetry import log  # it imports gunicorn: not before the environment is sealed

    log.configure("info")
    if not (parsed.entry_script or parsed.config_file):
        logger.error("Error!")
        logger.error(
            "Either provide an entry_script using --entry_script or "
            "provide a path to the configuration file using --config_file"
        )
        return 1
    try:
        _serve(parsed, environ)
    except ConfigurationError as error:
        if error.exit_code == 3:
            logger.critical(_CONFIGURATION_ERROR, error.message)
        else:
            print(f"azmlinfsrv: error: {error.message}", file=sys.stderr)
        return error.exit_code
    except StartError as error:
        sys.stdout.flush()
        print(f"azmlinfsrv: error: {error.message}", file=sys.stderr)
        return error.exit_code


_CONFIGURATION_ERROR = f"""
===============Configuration Error=================
%s
{"=" * 51}"""


def _serve(parsed: argparse.Namespace, environ: dict[str, str]) -> NoReturn:
    _merge(parsed, environ)
    config_error = None
    try:
        _merge_file(environ)
    except ConfigurationError as error:
        config_error = error
    _report(environ)
    if config_error is not None:
        raise config_error
    chosen = settings.load(_flags(environ), environ, None)
    found = _target(environ)

    from .front import app
    from .pool import gpus, launch
    from .telemetry import log

    chosen, seats = gpus.allot(found.engine, chosen, environ)
    plan = launch.plan(found, chosen, environ, seats)
    log.configure(chosen.log_level)
    print("Initializing logger", flush=True)
    logger.info("Starting up app insights client")
    if chosen.cors_origins:
        origins = ", ".join(origin.strip() for origin in chosen.cors_origins.split(","))
        logger.info("Enabling CORS for the following origins: %s", origins)
    if "AML_DBG_MODEL_INFO" in environ or "AML_DBG_RESOURCE_INFO" in environ:
        logger.warning(
            "The debuggability features have been removed. If you have a use case for them please reach out to us."
        )
    app.run(chosen, plan)


def spell_out(environ: dict[str, str]) -> None:
    """Give the worker's variables their own names: it takes them in any case, and by `AML_<field>` as a second choice."""
    by_lower = {variable.lower(): text for variable, text in environ.items()}
    for variable, field in _WORKER_FIELDS.items():
        for spelling in (variable, f"AML_{field}"):
            if variable not in environ and spelling.lower() in by_lower:
                environ[variable] = by_lower[spelling.lower()]


def _merge(parsed: argparse.Namespace, environ: dict[str, str]) -> None:
    """Options over variables over defaults, as variables: that is how user code sees them."""
    spell_out(environ)
    environ.setdefault("AML_APP_ROOT", str(Path.cwd()))
    environ["SERVER_PORT"] = str(parsed.port or DEFAULT_PORT)
    if environ.get("SEPERATE_HEALTH_ENDPOINT") == "true":
        environ["HEALTH_PORT"] = str(parsed.health_port or DEFAULT_HEALTH_PORT)
    elif parsed.port is not None:
        environ["HEALTH_PORT"] = str(parsed.port)
    else:
        environ.setdefault("HEALTH_PORT", str(DEFAULT_PORT))
    environ["TRANSPORT_PROTOCOL"] = "rest" if parsed.rest else "grpc"
    key = parsed.appinsights_instrumentation_key
    for value, variable in (
        (os.path.realpath(parsed.entry_script) if parsed.entry_script else None, "AZUREML_ENTRY_SCRIPT"),
        (os.path.realpath(parsed.config_file) if parsed.config_file else None, "AZUREML_CONFIG_FILE"),
        (parsed.model_dir, "AZUREML_MODEL_DIR"),
        (parsed.worker_count, "WORKER_COUNT"),
        (parsed.access_control_allow_origins, "AML_CORS_ORIGINS"),
        (key, "AML_APP_INSIGHTS_KEY"),
        (None if key is None else "true", "AML_APP_INSIGHTS_ENABLED"),
    ):
        if value is not None:
            environ[variable] = str(value)
    switch = environ.get("SERVER_VERSION_LOG_RESPONSE_ENABLED", "true")
    if switch.lower() == "true":
        environ["HTTP_X_MS_SERVER_VERSION"] = f"azmlinfsrv/{SERVER_VERSION}"


def _merge_file(environ: dict[str, str]) -> None:
    """The configuration file, below what the environment says.

    A file that was named must be right, if it is there. A config.json that merely lies in the application's folder is
    ours only if it holds a variable of ours: model folders are full of others.
    """
    named = Path(environ["AZUREML_CONFIG_FILE"]) if environ.get("AZUREML_CONFIG_FILE") else None
    entry_script = Path(environ.get("AZUREML_ENTRY_SCRIPT", ""))
    root = Path(environ["AML_APP_ROOT"])
    for path in (named, root / "config.json", root / entry_script.parent / "config.json"):
        if path is None:
            continue
        if not path.is_file() or not path.stat().st_size:
            if path is named:
                logger.warning("%s: there is no such file, or nothing in it. It is not used.", path)
            continue
        values = _read_file(path, strict=path is named)
        for key, value in values.items():
            if key in _FILE_KEYS and value is not None:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                environ.setdefault(key, text)
        return


def _read_file(path: Path, *, strict: bool) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if strict:
            raise ConfigurationError(f"Invalid config file!: {path} is not valid JSON: {error}.") from None
        return {}
    if not isinstance(document, dict):
        if strict:
            raise ConfigurationError(f"Invalid config file!: {path} holds no JSON object.")
        return {}
    unknown = sorted(set(document) - _FILE_KEYS)
    if strict and settings.EVIDENCE_KEY in document:
        logger.warning(
            "%s was made by `scoring-runtime tune`: its settings are not used here, and its evidence is not verified. "
            "Serve the model by `scoring-runtime serve MODEL --config-file %s`.",
            *(path, path),
        )
    elif unknown and (strict or len(unknown) < len(document)):
        logger.warning(
            "Found extra keys in the config file that are not supported by the server.\nExtra keys = %s", unknown
        )
    return document


def _report(environ: dict[str, str]) -> None:
    """What the incumbent prints before it serves."""
    if "AZUREML_MODEL_DIR" not in environ:
        print("The environment variable 'AZUREML_MODEL_DIR' has not been set.")
        print("Use the --model_dir command line argument to set it.")
    key = environ.get("AML_APP_INSIGHTS_KEY")
    wanted = environ.get("AML_APP_INSIGHTS_ENABLED") == "true" and key is not None
    if wanted and not _UUID.match(key or ""):
        print("Invalid Application Insights instrumentation key provided.")
        print("Application Insights has been disabled.")
        wanted = False
    elif wanted:
        print("Valid Application Insights instrumentation key provided.")
    environ["AML_APP_INSIGHTS_ENABLED"] = "true" if wanted else "false"
    environ.setdefault("WORKER_COUNT", "1")
    print(f"\nAzure ML Inferencing HTTP server v{SERVER_VERSION}\n\n")
    print("Server Settings\n---------------")
    for label, variable in _BANNER:
        value = environ.get(variable)
        if value is not None and variable == "AML_APP_INSIGHTS_KEY":
            value = "AppInsights key provided"
        elif value is not None and variable == "AML_CORS_ORIGINS":
            value = f"Enabling CORS for {value}"
        print(f"{label}: {value}")
    print("\n\nServer Routes\n---------------")
    print(f"Liveness Probe: GET   127.0.0.1:{environ['HEALTH_PORT']}/")
    print(f"Score:          POST  127.0.0.1:{environ['SERVER_PORT']}/score\n", flush=True)


def _flags(environ: Mapping[str, str]) -> dict[str, object]:
    """The settings that this command decides itself."""
    flags: dict[str, object] = {"host": "0.0.0.0", "port": int(environ["SERVER_PORT"])}
    if environ.get("SEPERATE_HEALTH_ENDPOINT") == "true":
        flags["health_port"] = int(environ["HEALTH_PORT"])
    return flags


def _target(environ: Mapping[str, str]) -> Target:
    """The entry script below the application's root; without one, the module `main` of the user's path."""
    script = environ.get("AZUREML_ENTRY_SCRIPT")
    root = Path(environ["AML_APP_ROOT"]).absolute()
    if not script:
        return Target("script", root / "main.py", "main", import_main=True)
    path = root / script
    return Target("script", path, path.stem)


# The names of these two stand in the messages about values that they refuse.


def validate_worker_count(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError(text)
    return number


def validate_port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise ValueError(text)
    return number


class _Parser(argparse.ArgumentParser):
    """Usage errors and help end with 1, and the options are listed on stdout."""

    def error(self, message: str) -> NoReturn:
        usage, _, listed = self.format_help().partition("\n\n")
        print(f"\n{listed}", flush=True)
        print(f"{usage}\n{self.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(1)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="azmlinfsrv", description=f"Azure ML Inferencing HTTP server v{SERVER_VERSION}")
    parser.add_argument("--entry_script", help="path of the scoring script")
    parser.add_argument("--model_dir", help="path of the model folder, AZUREML_MODEL_DIR to the script")
    parser.add_argument("--appinsights_instrumentation_key", help="key of the Application Insights resource for logs")
    parser.add_argument("--port", type=validate_port, help=f"port to serve on (default: {DEFAULT_PORT})")
    parser.add_argument(
        "--health_port", type=validate_port, help=f"port of the separate health endpoint ({DEFAULT_HEALTH_PORT})"
    )
    parser.add_argument(
        "--worker_count", type=validate_worker_count, help="number of processes that score (default: 1)"
    )
    parser.add_argument(
        "--access_control_allow_origins", help="origins that may call from browsers, separated by commas"
    )
    parser.add_argument("--config_file", help="path of a JSON file of settings")
    parser.add_argument("--rest", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
