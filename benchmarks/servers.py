"""The table of servers, and how each is started.

In a command `{port}`, `{port2}` and `{port3}` stand for free ports, `{model}` for the file that is served, `{bin}` for the
programs of the environment that make set up for the server, `{python}` for the interpreter of user scripts, `{scorers}`
for the number of scorer processes of the scenario.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.processes import free_ports

HERE = Path(__file__).resolve().parent
PEERS = ROOT / ".venv-bench"


@dataclasses.dataclass(frozen=True)
class Spec:
    """One server. Where it has no command for a kind of target it cannot serve that."""

    title: str
    commands: Mapping[str, Sequence[str]]
    """Kind of target (onnx, ragged: a model whose inputs differ in shape, script) -> command."""

    dialects: Mapping[str, str]
    """Kind of target, or `binary` -> dialect."""

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    peer: str | None = None
    """The folder of peers/ that it comes from, and its environment's name."""

    settle_s: float = 0.3
    """How long it is left alone after the first answer."""

    model_name: str | None = "model"
    """What paths call the model; None: its file's stem."""

    keeps_connections: bool = True
    """Whether a connection may wait for its next request without keeping the others from being served."""

    def bin(self) -> Path:
        return Path(sys.prefix) / "bin" if self.peer is None else PEERS / self.peer / "bin"

    def prefix(self) -> str:
        return str(self.bin().parent)

    def installed(self) -> bool:
        return self.peer is None or (PEERS / self.peer / "installed").is_file()

    def calls_it(self, model: Path) -> str:
        """What the model is called in paths."""
        return self.model_name or model.stem

    def command(self, kind: str, model: Path, scorers: int) -> tuple[list[str], dict[str, str], int]:
        """The words to start it with, what to add to the environment, and the port that it will listen on."""
        ports = free_ports(3)
        places = {
            "model": str(model),
            "bin": str(self.bin()),
            "python": str(PEERS / "azmlinfsrv" / "bin" / "python"),
            "scorers": str(scorers),
            "here": str(HERE),
        }
        places |= dict(zip(("port", "port2", "port3"), map(str, ports), strict=True))
        words = [_filled(word, places) for word in self.commands[kind]]
        environment = {name: _filled(value, places) for name, value in self.environment.items()}
        return words, environment, ports[0]


def _filled(text: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def _ours(title: str, *flags: str) -> Spec:
    serve = ("{bin}/scoring-runtime", "serve", "{model}", "--port", "{port}", "--scorers", "{scorers}", *flags)
    return Spec(
        title,
        {"onnx": serve, "ragged": serve, "script": (*serve, "--python", "{python}")},
        {"onnx": "plain", "ragged": "plain", "script": "script", "binary": "v2-binary"},
        model_name=None,
    )


def _peer(
    name: str,
    title: str,
    command: Sequence[str],
    dialect: str,
    *,
    ragged: Sequence[str] | None = None,
    more_dialects: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    settle_s: float = Spec.settle_s,
) -> Spec:
    """A Python server that serves the model itself; its code is in peers/NAME."""
    return Spec(
        title,
        {"onnx": command} | ({} if ragged is None else {"ragged": ragged}),
        {"onnx": dialect, "ragged": dialect, **(more_dialects or {})},
        {"BENCHMARK_MODEL": "{model}", "PYTHONPATH": str(ROOT), **(environment or {})},
        name,
        settle_s,
    )


def _own_program(name: str) -> Sequence[str]:
    return ("{bin}/python", "-P", "-m", f"benchmarks.peers.{name}.server", "--port", "{port}")


_AZMLINFSRV = ("{bin}/azmlinfsrv", "--port", "{port}", "--entry_script")
_NULL = ("{bin}/python", "-P", "{here}/null_server.py", "--port", "{port}")
_NGINX = ("{bin}/python", "-P", "{here}/null_nginx.py", "--port", "{port}")
_TRITON = ("{bin}/python", "-P", "-m", "benchmarks.peers.pytriton.server", "--ports", "[{port}, {port2}, {port3}]")
_BENTO = (
    "{bin}/bentoml",
    "serve",
    "benchmarks.peers.bentoml.service:Scoring",
    "--host",
    "127.0.0.1",
    "--port",
    "{port}",
)

SERVERS: dict[str, Spec] = {
    "ours": _ours("scoring-runtime"),
    # Larger frames, which a busy line fills; the price is a longer wait behind a frame.
    "ours-tuned": _ours(
        "scoring-runtime, tuned", "--max-batch-size", "512", "--batch-target-ms", "100", "--log-level", "warning"
    ),
    "azmlinfsrv": Spec(
        "azureml-inference-server-http",
        {
            "onnx": (*_AZMLINFSRV, "{here}/peers/azmlinfsrv/score.py"),
            "ragged": (*_AZMLINFSRV, "{here}/peers/azmlinfsrv/score.py"),
            "script": (*_AZMLINFSRV, "{model}"),
        },
        {"onnx": "plain", "ragged": "plain", "script": "script"},
        {"BENCHMARK_MODEL": "{model}", "PYTHONPATH": str(ROOT)},
        "azmlinfsrv",
        keeps_connections=False,
    ),
    "fastapi": _peer(
        "fastapi", "FastAPI and uvicorn", _own_program("fastapi"), "plain", ragged=_own_program("fastapi")
    ),
    "litserve": _peer("litserve", "LitServe", _own_program("litserve"), "plain", ragged=_own_program("litserve")),
    "mlserver": _peer(
        "mlserver",
        "MLServer",
        ("{bin}/mlserver", "start", "{here}/peers/mlserver/batched"),
        "v2",
        ragged=("{bin}/mlserver", "start", "{here}/peers/mlserver/unbatched"),
        environment={"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{port2}"},
    ),
    "bentoml": _peer("bentoml", "BentoML", _BENTO, "rows", environment={"BENTOML_DO_NOT_TRACK": "true"}),
    "kserve": _peer("kserve", "KServe SDK", _own_program("kserve"), "v1", ragged=_own_program("kserve")),
    "ray": _peer(
        "ray",
        "Ray Serve",
        _own_program("ray"),
        "plain",
        ragged=_own_program("ray"),
        environment={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        settle_s=6,  # some of its processes are still starting when it answers, on the core that it is measured on
    ),
    "pytriton": _peer("pytriton", "PyTriton", _TRITON, "v2", ragged=_TRITON, more_dialects={"binary": "v2-binary"}),
    "null": Spec(
        "null uvloop and httptools",
        {"onnx": _NULL, "ragged": _NULL, "script": _NULL},
        {"onnx": "fixed", "ragged": "fixed", "script": "fixed", "binary": "fixed-binary"},
    ),
    "nginx": Spec(
        "null nginx",
        {"onnx": _NGINX, "ragged": _NGINX, "script": _NGINX},
        {"onnx": "fixed", "ragged": "fixed", "script": "fixed", "binary": "fixed-binary"},
    ),
}

LOOPS: dict[str, str] = {
    "raw": "onnxruntime in a loop",
    "raw-two": "onnxruntime in a loop, two processes",
    "simdjson": "simdjson's parse of the body",
    "decode": "our decoding of the body",
    "copies": "the body through a socket pair of one process",
    "tcp": "the body through a TCP connection of one process",
}
"""Floors without HTTP (loops.py): what a request's work costs when nobody asks for it."""

START_AND_STOP_S = {
    "null": 0.1,
    "nginx": 0.1,
    "ours": 1.7,  # to stop it takes 1.3 s: it still accepts for a second
    "ours-tuned": 1.7,
    "azmlinfsrv": 1.0,
    "fastapi": 0.7,
    "litserve": 1.0,
    "mlserver": 1.5,
    "bentoml": 2.1,
    "kserve": 1.3,
    "ray": 11.0,
    "pytriton": 3.2,
    **dict.fromkeys(LOOPS, 1.0),
}
"""What each took from its command to its first answer, and to stop, on two cores: what a plan counts with."""

MORE_SCORERS_S = 0.3
"""What each scorer after the first adds to that."""

PACKAGES = {
    "ours": "gunicorn",
    "azmlinfsrv": "azureml-inference-server-http",
    "fastapi": "fastapi",
    "litserve": "litserve",
    "mlserver": "mlserver",
    "bentoml": "bentoml",
    "kserve": "kserve",
    "ray": "ray",
    "pytriton": "nvidia-pytriton",
}
"""The package whose version says which server it was."""

WHY_NOT = {
    "torchserve": "its repository is archived, and it needs Java and PyTorch: PyTriton is measured in its place",
}
"""Servers that were left out altogether."""


def title(name: str) -> str:
    return SERVERS[name].title if name in SERVERS else LOOPS[name]
