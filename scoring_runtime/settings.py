"""Every setting is one row of one table: flag, environment variable, file key, check, default and documentation.

Precedence: flag > environment > file > default. The incumbent's variable names are aliases in the rows.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import checks, providers
from .errors import ConfigurationError

EVIDENCE_KEY = "tuned"
"""In a file of settings: not a setting, but what `tune` found them by."""

_ROW = "setting"
_UNLIMITED_MS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Row:
    """What the table says of one setting beside its name, type and default."""

    parse: Callable[[str], Any]
    metavar: str
    help: str
    env: tuple[str, ...]
    launcher_env: tuple[str, ...] = ()
    """Those of `env` whose wrong values the incumbent's launcher answers with exit code 1, not 3."""
    lenient: Mapping[str, Callable[[str], Any]] = dataclasses.field(default_factory=dict)
    """How those of `env` are read that the incumbent reads in its own way."""
    separator: str = ""
    """Between the parts of a list: its flag may come again, and in a file it may be a JSON list. Empty for a single value."""

    def parse_as(self, name: str, text: str) -> Any:
        """The value of `text` under one of its names; ValueError whose text says what was expected."""
        return self.lenient.get(name, self.parse)(text)


def _row(
    default: Any,
    parse: Callable[[str], Any],
    metavar: str,
    text: str,
    *env: str,
    launcher_env: tuple[str, ...] = (),
    lenient: Mapping[str, Callable[[str], Any]] | None = None,
    separator: str = "",
) -> Any:
    row = Row(parse, metavar, text, (*env, *launcher_env), launcher_env, lenient or {}, separator)
    return dataclasses.field(default=default, metadata={_ROW: row})


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one server, checked."""

    # What is served
    entry_script: str | None = _row(
        None,
        checks.text,
        "PATH",
        "what to serve when no TARGET is given",
        "SCORING_ENTRY_SCRIPT",
        "AZUREML_ENTRY_SCRIPT",
    )
    model_dir: str | None = _row(
        None,
        checks.text,
        "DIR",
        "folder of model files, AZUREML_MODEL_DIR to user code",
        "SCORING_MODEL_DIR",
        "AZUREML_MODEL_DIR",
    )
    model_name: str | None = _row(
        None,
        checks.model_name,
        "NAME",
        "name of an ONNX model under /v2 (default: of its file or folder)",
        "SCORING_MODEL_NAME",
    )
    python: str | None = _row(
        None,
        checks.text,
        "EXE",
        "interpreter that runs score.py (default: of the active environment, else this server's own)",
        "SCORING_PYTHON",
    )
    app_root: str | None = _row(
        None, checks.text, "DIR", "folder on the user's sys.path (default: the working directory)", "AML_APP_ROOT"
    )

    # Where it listens
    host: str = _row("127.0.0.1", checks.text, "HOST", "address to listen on", "SCORING_HOST")
    port: int = _row(5001, checks.whole_number(1, 65535), "PORT", "port to listen on", "SCORING_PORT")

    health_port: int | None = _row(
        None, checks.whole_number(1, 65535), "PORT", "a second port to listen on, for probes", "SCORING_HEALTH_PORT"
    )

    # Scorers and batches
    scorers: int = _row(
        0,
        checks.whole_number(0, 1024),
        "N",
        "scorer processes; 0 for one for each GPU that the server uses, and one where it uses none",
        "SCORING_SCORERS",
        launcher_env=("WORKER_COUNT",),
        lenient={"WORKER_COUNT": checks.whole_number(1, 1024)},
    )
    preload: bool = _row(
        False,
        checks.switch,
        "SWITCH",
        "call init() of a script once, in a process that every scorer is a fork of, so that they share its memory",
        "SCORING_PRELOAD",
        "WORKER_PRELOAD",
        lenient={"WORKER_PRELOAD": lambda text: text.lower() == "true"},
    )
    max_batch_size: int = _row(
        128, checks.whole_number(1, checks.MAX_BATCH), "N", "most requests that run together", "SCORING_MAX_BATCH_SIZE"
    )
    max_batch_bytes: int = _row(
        8 << 20,
        checks.whole_number(1, 1 << 30),
        "BYTES",
        "most bytes of bodies that travel together",
        "SCORING_MAX_BATCH_BYTES",
    )
    batch_target_ms: int = _row(
        25, checks.whole_number(1, 3_600_000), "MS", "longest predicted time of a batch", "SCORING_BATCH_TARGET_MS"
    )
    start_timeout_s: float | None = _row(
        None,
        checks.seconds(0.1, 86400),
        "S",
        "longest time a scorer may take to load (default: 300, or 3600 where TensorRT engines are built before it is ready)",
        "SCORING_START_TIMEOUT_S",
        launcher_env=("WORKER_TIMEOUT",),
    )
    scoring_timeout_ms: int = _row(
        3_600_000,
        checks.whole_number(0, _UNLIMITED_MS),
        "MS",
        "longest time of one run(); 0 for no limit",
        "SCORING_TIMEOUT_MS",
    )

    max_scorer_memory_mb: int = _row(
        0,
        checks.whole_number(0, 1 << 30),
        "MIB",
        "most memory that a scorer, or a process that it started, may hold, or it is restarted; 0 for no limit",
        "SCORING_MAX_SCORER_MEMORY_MB",
    )

    # Where an ONNX model runs
    provider: str = _row(
        providers.AUTO,
        checks.provider_list,
        "LIST",
        "execution providers, best first; auto: the best that this machine has a device for",
        "SCORING_PROVIDER",
        separator=",",
    )
    provider_policy: str = _row(
        "require",
        checks.choice("require", "prefer"),
        "POLICY",
        "a model that cannot run on the first of the providers: require refuses to serve it, prefer serves it on the next "
        "one and says that the service is degraded",
        "SCORING_PROVIDER_POLICY",
    )
    provider_option: str = _row(
        "",
        checks.provider_options,
        "OPTIONS",
        "options of providers, as in cuda.use_tf32=0; may be given more than once, or separated by semicolons",
        "SCORING_PROVIDER_OPTION",
        separator=";",
    )
    threads: int = _row(
        0,
        checks.whole_number(0, 4096),
        "N",
        "threads of a run in each scorer; 0 for an even share of the CPUs that affinity and control group grant",
        "SCORING_THREADS",
    )
    graph_optimization: str = _row(
        "all",
        checks.choice("off", "basic", "extended", "layout", "all"),
        "LEVEL",
        "how far ONNX Runtime rewrites the model's graph",
        "SCORING_GRAPH_OPTIMIZATION",
    )
    cache_dir: str | None = _row(
        None,
        checks.text,
        "DIR",
        "folder that keeps optimised models and built engines for the next start, or off "
        "(default: scoring-runtime in the user's cache folder)",
        "SCORING_CACHE_DIR",
    )
    gpus: str | None = _row(
        None,
        checks.names,
        "LIST",
        "GPUs to use, by UUID or number, or all; scorers are shared out among them (default: all for a model that runs on "
        "GPUs; a script sees what the server sees)",
        "SCORING_GPUS",
        separator=",",
    )
    gpu_memory_mb: int = _row(
        0,
        checks.whole_number(0, 1 << 30),
        "MIB",
        "most GPU memory of a scorer's arena; 0 for no limit",
        "SCORING_GPU_MEMORY_MB",
    )
    batch_buckets: str = _row(
        "auto",
        checks.buckets,
        "LIST",
        "sizes that batches are padded to, for execution with fixed shapes; auto: powers of two on a GPU, off on a CPU",
        "SCORING_BATCH_BUCKETS",
        separator=",",
    )
    cuda_graphs: str = _row(
        "auto",
        checks.choice("auto", "on", "off"),
        "SWITCH",
        "capture a CUDA graph for each bucket; auto: where the model allows it",
        "SCORING_CUDA_GRAPHS",
    )
    tensorrt_build: str = _row(
        "wait",
        checks.choice("wait", "background"),
        "WHEN",
        "TensorRT engines are built before the server is ready, or in the background while CUDA serves",
        "SCORING_TENSORRT_BUILD",
    )
    ragged: str = _row(
        "auto",
        checks.choice("auto", "off"),
        "SWITCH",
        "requests of different lengths share a run by padding, where the model has a mask or lengths and it was proved",
        "SCORING_RAGGED",
    )
    mask_inputs: str = _row(
        "",
        checks.names,
        "LIST",
        "inputs that say which cells are padding (default: found by their names)",
        "SCORING_MASK_INPUTS",
        separator=",",
    )
    length_inputs: str = _row(
        "",
        checks.names,
        "LIST",
        "inputs that say how long each row is (default: found by their names)",
        "SCORING_LENGTH_INPUTS",
        separator=",",
    )
    max_batch_tokens: int = _row(
        16384,
        checks.whole_number(1, 1 << 30),
        "N",
        "most cells along the padded axis, over all rows, of a run whose requests were padded",
        "SCORING_MAX_BATCH_TOKENS",
    )

    # The waiting line
    max_queued_requests: int = _row(
        2048,
        checks.whole_number(1, 1_000_000),
        "N",
        "most requests that wait for a scorer",
        "SCORING_MAX_QUEUED_REQUESTS",
    )
    max_queued_bytes: int = _row(
        1 << 30,
        checks.whole_number(1, 1 << 40),
        "BYTES",
        "most bytes that wait for a scorer",
        "SCORING_MAX_QUEUED_BYTES",
    )
    max_queue_wait_ms: int = _row(
        300_000,
        checks.whole_number(1, _UNLIMITED_MS),
        "MS",
        "longest time a request waits for a scorer; one that is predicted to wait longer is refused at once",
        "SCORING_MAX_QUEUE_WAIT_MS",
    )
    max_concurrent_requests: int = _row(
        0,
        checks.whole_number(0, 1_000_000),
        "N",
        "most requests that scorers have at a time, for code that can take no more; the others wait. 0 for no limit",
        "SCORING_MAX_CONCURRENT_REQUESTS",
    )
    deadline_header: str = _row(
        "x-request-timeout-ms",
        checks.header_name,
        "NAME",
        "header by which a request says how long its client waits, in whole milliseconds; "
        "behind Envoy or Istio: x-envoy-expected-rq-timeout-ms",
        "SCORING_DEADLINE_HEADER",
    )

    # HTTP limits
    max_body_bytes: int = _row(
        100 << 20, checks.whole_number(0, 2_000_000_000), "BYTES", "largest request body", "SCORING_MAX_BODY_BYTES"
    )
    max_target_bytes: int = _row(
        8190, checks.whole_number(16, 1 << 20), "BYTES", "longest request target", "SCORING_MAX_TARGET_BYTES"
    )
    max_head_bytes: int = _row(
        65536, checks.whole_number(256, 1 << 24), "BYTES", "most bytes of header fields", "SCORING_MAX_HEAD_BYTES"
    )
    max_head_fields: int = _row(
        100, checks.whole_number(1, 10_000), "N", "most header fields", "SCORING_MAX_HEAD_FIELDS"
    )
    max_connections: int = _row(
        10_000, checks.whole_number(1, 1_000_000), "N", "most open connections", "SCORING_MAX_CONNECTIONS"
    )
    head_timeout_s: float = _row(
        15.0, checks.seconds(0.1, 86400), "S", "longest time for a request's head to arrive", "SCORING_HEAD_TIMEOUT_S"
    )
    body_timeout_s: float = _row(
        30.0,
        checks.seconds(0.1, 86400),
        "S",
        "grace for a body that arrives, or an answer that is read, too slowly",
        "SCORING_BODY_TIMEOUT_S",
    )
    keepalive_timeout_s: float = _row(
        75.0,
        checks.seconds(0.1, 86400),
        "S",
        "longest time a connection stays open unused",
        "SCORING_KEEPALIVE_TIMEOUT_S",
    )

    # Who may call
    api_keys_file: str | None = _row(
        None,
        checks.text,
        "FILE",
        "file of hashed API keys, one of which every request but probes must carry; `scoring-runtime new-key` makes them",
        "SCORING_API_KEYS_FILE",
    )

    tls_cert: str | None = _row(
        None,
        checks.text,
        "FILE",
        "PEM file of the server's certificate and its chain: serves HTTPS",
        "SCORING_TLS_CERT",
    )
    tls_key: str | None = _row(
        None,
        checks.text,
        "FILE",
        "PEM file of the certificate's key (default: it is in the same file)",
        "SCORING_TLS_KEY",
    )
    tls_client_ca: str | None = _row(
        None,
        checks.text,
        "FILE",
        "PEM file of authorities: clients must show a certificate of one of them",
        "SCORING_TLS_CLIENT_CA",
    )

    # What answers say of the server
    security_headers: bool = _row(
        False,
        checks.switch,
        "SWITCH",
        "answers tell clients to keep and to guess nothing, and with TLS never to come without it",
        "SCORING_SECURITY_HEADERS",
    )
    server_identity: bool = _row(
        True, checks.switch, "SWITCH", "answers name the server and its versions", "SCORING_SERVER_IDENTITY"
    )

    # The service, as its clients see it
    service_name: str = _row("ML service", checks.text, "NAME", "name of the service in /swagger.json", "SERVICE_NAME")
    service_version: str = _row(
        "1.0", checks.text, "VERSION", "version of the service in /swagger.json", "SERVICE_VERSION"
    )
    service_path_prefix: str = _row(
        "", str, "PATH", "prefix of the paths in /swagger.json; routes do not change", "SERVICE_PATH_PREFIX"
    )
    cors_origins: str = _row(
        "", str, "LIST", "origins that browsers may call from, separated by commas", "AML_CORS_ORIGINS"
    )

    # Application Insights
    appinsights_connection_string: str | None = _row(
        None,
        checks.text,
        "TEXT",
        "Application Insights resource that requests and prints are told to; needs the extra `appinsights`",
        "SCORING_APPINSIGHTS_CONNECTION_STRING",
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
    )
    appinsights_log_response: bool = _row(
        True,
        checks.switch,
        "SWITCH",
        "tell Application Insights the responses, too",
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
    )
    appinsights_log_model_data: bool = _row(
        False,
        checks.switch,
        "SWITCH",
        "tell Application Insights what run() was given and what it returned",
        "AML_MDC_STORAGE_ENABLED",
    )
    workspace_name: str = _row("", str, "NAME", "name of the workspace, for Application Insights", "WORKSPACE_NAME")

    # The end
    drain_grace_s: float = _row(
        1.0,
        checks.seconds(0, 3600),
        "S",
        "time between SIGTERM and closing the port, while /readyz says no",
        "SCORING_DRAIN_GRACE_S",
    )
    drain_timeout_s: float = _row(
        30.0,
        checks.seconds(0, 86400),
        "S",
        "longest time that requests in flight may take to finish",
        "SCORING_DRAIN_TIMEOUT_S",
    )

    debug_port: int | None = _row(
        None,
        checks.whole_number(1, 65535),
        "PORT",
        "port of a debugger that scorers of a script connect to, and wait for, before they load it",
        "AZUREML_DEBUG_PORT",
    )
    log_level: str = _row(
        "info",
        checks.log_level,
        "LEVEL",
        "one of " + ", ".join(checks.LOG_LEVELS),
        "SCORING_LOG_LEVEL",
        "AZUREML_LOG_LEVEL",
    )

    @property
    def load_timeout_s(self) -> float:
        """Longest time a scorer may take to load, whether it was given or not."""
        if self.start_timeout_s is not None:
            return self.start_timeout_s
        return 3600.0 if "tensorrt" in self.provider.split(",") and self.tensorrt_build == "wait" else 300.0

    @property
    def scheme(self) -> str:
        """Of the server's URLs."""
        return "https" if self.tls_cert else "http"

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port to listen on."""
        return (self.port,) if self.health_port in (None, self.port) else (self.port, self.health_port)


ROWS: dict[str, Row] = {field.name: field.metadata[_ROW] for field in dataclasses.fields(Settings)}


def flag(name: str) -> str:
    """The command-line flag of the setting `name`."""
    return "--" + name.replace("_", "-")


def parse_flag(name: str, text: str) -> Any:
    """The value of a flag; ValueError whose text says what was expected."""
    return ROWS[name].parse(text)


def load(flags: Mapping[str, Any], environ: Mapping[str, str], config_file: str | None) -> Settings:
    """The settings that hold: flags (already parsed) over `environ` over the JSON file over the defaults.

    Raises ConfigurationError that names the variable or the key, what it holds and what was expected.
    """
    return Settings(**given(flags, environ, config_file))


def given(flags: Mapping[str, Any], environ: Mapping[str, str], config_file: str | None) -> dict[str, Any]:
    """Those settings of `load` that are no defaults, by name."""
    values: dict[str, Any] = {}
    if config_file is not None:
        values.update(_from_file(config_file))
    values.update(_from_environ(environ))
    values.update(flags)
    return values


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for name, row in ROWS.items():
        for variable in row.env:  # the first that is set wins: our own name stands before the aliases
            text = environ.get(variable)
            if text is None or text == "" or _is_service_link(variable, text):
                continue
            try:
                values[name] = row.parse_as(variable, text)
            except ValueError as error:
                raise ConfigurationError(
                    f"environment variable {variable} is {text!r}: {error}. Correct it, unset it, or use {flag(name)}.",
                    exit_code=1 if variable in row.launcher_env else 3,
                ) from None
            break
    return values


def _is_service_link(variable: str, text: str) -> bool:
    """Kubernetes gives every container of a namespace with a Service named `scoring` SCORING_PORT=tcp://10.0.0.7:80."""
    return variable.endswith("_PORT") and text.startswith("tcp://")


def _from_file(path: str) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read the configuration file: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: the configuration file is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f'{path}: the configuration file holds no JSON object. Write {{"port": 5001}}.')
    names = {key: name for name, row in ROWS.items() for key in (name, *row.env)}
    values: dict[str, Any] = {}
    document.pop(EVIDENCE_KEY, None)
    for key, value in document.items():
        name = names.get(key)
        if name is None:
            nearest = difflib.get_close_matches(key, names, 1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise ConfigurationError(f"{path}: {key!r} is no setting.{hint}")
        try:
            if ROWS[name].parse is checks.switch and isinstance(value, bool):
                value = str(value)  # noqa: PLW2901 - as a variable would hold it
            if ROWS[name].separator and isinstance(value, list):
                value = ROWS[name].separator.join(map(str, value))  # noqa: PLW2901
            if isinstance(value, (dict, list, bool)) or value is None:
                raise ValueError("expected text or a number")
            values[name] = ROWS[name].parse_as(key, str(value))
        except ValueError as error:
            raise ConfigurationError(f"{path}: {key!r} is {value!r}: {error}.") from None
    return values
