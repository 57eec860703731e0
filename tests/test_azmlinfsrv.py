"""`azmlinfsrv`: options, variables, banner, exit codes and ports are those that users of that command know.

What is expected was read off the real one, in version 1.5.1.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from scoring_runtime import azmlinfsrv

WAIT_S = 60.0
KEY = "01234567-89ab-cdef-0123-456789abcdef"
USAGE = re.compile(r"usage: azmlinfsrv \[-h\] \[--entry_script ENTRY_SCRIPT\]")

_INSTALLED = Path(sys.executable).with_name("azmlinfsrv")
COMMAND = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-I", "-m", "scoring_runtime.azmlinfsrv"]

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")

SCRIPT = """
import json, os

def init():
    print("environment", json.dumps(dict(os.environ)))

def run(data):
    return data
"""


def pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Command:
    """A started `azmlinfsrv`, in a folder with a score.py."""

    def __init__(self, folder: Path, arguments: Sequence[str], environ: dict[str, str]) -> None:
        (folder / "score.py").write_text(SCRIPT)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ}
                | {"SCORING_DRAIN_GRACE_S": "0"}
                | environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8")

    def wait_ready(self) -> "Command":
        deadline = time.monotonic() + WAIT_S
        while "ready for serving traffic" not in self.out:
            assert self.process.poll() is None, self.out + self.err
            assert time.monotonic() < deadline, self.out + self.err
            time.sleep(0.01)
        return self

    def end(self) -> int:
        return self.process.wait(WAIT_S)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0, self.out + self.err

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """What the script saw."""
        match = re.search(r"azmlinfsrv.print - environment (.*)", self.out)
        assert match, self.out
        seen: dict[str, str] = json.loads(match[1])
        return seen


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Command] = []

    def start_one(*arguments: str, **environ: str) -> Command:
        started.append(Command(tmp_path, arguments, environ))
        return started[-1]

    yield start_one
    for command in started:
        command.kill()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


# Usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--entry_script", "score.py", "--port", "70000"], "argument --port: invalid validate_port value: '70000'"),
        (["--entry_script", "score.py", "--port", "x"], "argument --port: invalid validate_port value: 'x'"),
        (["--health_port", "0"], "argument --health_port: invalid validate_port value: '0'"),
        (["--worker_count", "0"], "argument --worker_count: invalid validate_worker_count value: '0'"),
        (["--entry_script"], "argument --entry_script: expected one argument"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--p", "1"], None),
    ],
)
def test_wrong_usage(start: Start, arguments: list[str], message: str | None):
    command = start(*arguments)

    assert command.end() == 1
    if message is not None:
        assert re.match(r"\nAzure ML Inferencing HTTP server v1\.5\.1\n\noptions:\n", command.out)
        assert "usage:" not in command.out
        assert USAGE.match(command.err)
        assert command.err.endswith(f"\nazmlinfsrv: error: {message}\n")


def test_help(start: Start):
    command = start("--help")

    assert command.end() == 1
    assert USAGE.match(command.out)
    assert command.err == ""


@pytest.mark.parametrize("arguments", [[], ["--entry_script", ""], ["--port", "5001"]])
def test_a_script_or_a_file_must_be_named(start: Start, arguments: list[str]):
    command = start(*arguments, AZUREML_ENTRY_SCRIPT="score.py")

    assert command.end() == 1
    lines = [line.partition("] ")[2] for line in command.out.splitlines()]
    cure = "an entry_script using --entry_script or provide a path to the configuration file using --config_file"
    assert lines == ["azmlinfsrv - Error!", f"azmlinfsrv - Either provide {cure}"]


# Banner and exports


def test_banner_and_what_the_script_sees(start: Start, tmp_path: Path):
    port = pick_port()
    command = start("--entry_script", "score.py", "--port", str(port), SERVER_PORT="1234", HEALTH_PORT="999")
    command.wait_ready()

    banner, _, log = command.out.partition("Initializing logger\n")
    assert banner == (
        "The environment variable 'AZUREML_MODEL_DIR' has not been set.\n"
        "Use the --model_dir command line argument to set it.\n\n"
        "Azure ML Inferencing HTTP server v1.5.1\n\n\n"
        "Server Settings\n---------------\n"
        f"Entry Script Name: {tmp_path}/score.py\n"
        "Model Directory: None\nConfig File: None\nWorker Count: 1\nWorker Timeout (seconds): None\n"
        f"Server Port: {port}\nHealth Port: {port}\n"
        "Application Insights Enabled: false\nApplication Insights Key: None\n"
        "Inferencing HTTP server version: azmlinfsrv/1.5.1\n"
        "CORS for the specified origins: None\nCreate dedicated endpoint for health: None\n\n\n"
        "Server Routes\n---------------\n"
        f"Liveness Probe: GET   127.0.0.1:{port}/\nScore:          POST  127.0.0.1:{port}/score\n\n"
    )
    texts = [line.partition("] ")[2] for line in log.splitlines()]
    own = [text for text in texts if text.startswith("azmlinfsrv")]
    assert own[0] == "azmlinfsrv - Starting up app insights client"
    assert own[-2] == "azmlinfsrv - Scoring timeout is set to 3600000"
    exported = {
        "AML_APP_ROOT": str(tmp_path),
        "AZUREML_ENTRY_SCRIPT": f"{tmp_path}/score.py",
        "WORKER_COUNT": "1",
        "SERVER_PORT": str(port),
        "HEALTH_PORT": str(port),
        "AML_APP_INSIGHTS_ENABLED": "false",
        "HTTP_X_MS_SERVER_VERSION": "azmlinfsrv/1.5.1",
        "TRANSPORT_PROTOCOL": "grpc",
    }
    seen = command.environment
    assert {name: seen.get(name) for name in exported} == exported
    assert not {"AZUREML_MODEL_DIR", "AZUREML_CONFIG_FILE", "WORKER_TIMEOUT", "AML_CORS_ORIGINS"} & set(seen)

    assert ask(port, "GET", "/").body == b"Healthy"
    answer = ask(port, "POST", "/score", b"x")
    assert (answer.status, answer.body) == (200, b'"x"')
    assert answer.headers["x-ms-server-version"] == "azmlinfsrv/1.5.1"
    command.stop()


def test_options_are_exported(start: Start):
    port = pick_port()
    command = start(
        "--entry", "score.py", "--model_dir", "./my/dir", "--worker", "2", "--rest", "--port", str(port),
        "--appinsights_instrumentation_key", "nope", "--access_control_allow_origins", "a.com, b.com",
        WORKER_COUNT="7", WORKER_PRELOAD="TRUE", WORKER_TIMEOUT="77", AML_DBG_MODEL_INFO="",
        SERVER_VERSION_LOG_RESPONSE_ENABLED="no", HTTP_X_MS_SERVER_VERSION="mine",
    ).wait_ready()  # fmt: skip

    exported = {
        "AZUREML_MODEL_DIR": "./my/dir",
        "WORKER_COUNT": "2",
        "AML_APP_INSIGHTS_ENABLED": "false",
        "AML_APP_INSIGHTS_KEY": "nope",
        "AML_CORS_ORIGINS": "a.com, b.com",
        "HTTP_X_MS_SERVER_VERSION": "mine",
        "TRANSPORT_PROTOCOL": "rest",
    }
    seen = command.environment
    assert {name: seen.get(name) for name in exported} == exported
    for line in (
        "Invalid Application Insights instrumentation key provided.",
        "Application Insights has been disabled.",
        "Model Directory: ./my/dir",
        "Worker Count: 2",
        "Worker Timeout (seconds): 77",
        "Application Insights Key: AppInsights key provided",
        "Inferencing HTTP server version: mine",
        "CORS for the specified origins: Enabling CORS for a.com, b.com",
    ):
        assert f"{line}\n" in command.out
    assert "I [" in command.out
    assert "azmlinfsrv - Enabling CORS for the following origins: a.com, b.com\n" in command.out
    assert "azmlinfsrv - The debuggability features have been removed." in command.out
    assert ask(port, "GET", "/").headers["x-ms-server-version"] == "mine"
    command.stop()


def test_a_health_port_of_its_own(start: Start):
    port, health_port = pick_port(), pick_port()
    command = start(
        "--entry_script", "score.py", "--port", str(port), "--health_port", str(health_port),
        SEPERATE_HEALTH_ENDPOINT="true", HEALTH_PORT="999",
    ).wait_ready()  # fmt: skip

    assert command.environment["HEALTH_PORT"] == str(health_port)
    assert f"Liveness Probe: GET   127.0.0.1:{health_port}/\n" in command.out
    assert f"Score:          POST  127.0.0.1:{port}/score\n" in command.out
    for open_port in (port, health_port):
        assert ask(open_port, "GET", "/").body == b"Healthy"
        assert ask(open_port, "POST", "/score", b"x").body == b'"x"'
    command.stop()


@pytest.mark.parametrize(
    ("arguments", "environ", "printed"),
    [
        (["--port", "5099"], {"HEALTH_PORT": "777"}, ("5099", "5099")),
        (["--port", "5099", "--health_port", "5098"], {}, ("5099", "5099")),
        (["--port", "5099", "--health_port", "5098"], {"SEPERATE_HEALTH_ENDPOINT": "True"}, ("5099", "5099")),
        ([], {"HEALTH_PORT": "777", "SERVER_PORT": "1234"}, ("5001", "777")),
        ([], {}, ("5001", "5001")),
        ([], {"SEPERATE_HEALTH_ENDPOINT": "true", "HEALTH_PORT": "777"}, ("5001", "5000")),
    ],
)
def test_ports_in_the_banner(start: Start, arguments: list[str], environ: dict[str, str], printed: tuple[str, str]):
    command = start("--entry_script", "score.py", *arguments, SCORING_TIMEOUT_MS="stops it here", **environ)

    assert command.end() == 3
    assert f"Server Port: {printed[0]}\nHealth Port: {printed[1]}\n" in command.out


@pytest.mark.parametrize(
    ("environ", "enabled", "said"),
    [
        ({"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY.upper()}, "true", "Valid"),
        ({"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY + "0"}, "false", "Invalid"),
        ({"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": ""}, "false", "Invalid"),
        ({"AML_APP_INSIGHTS_ENABLED": "True", "AML_APP_INSIGHTS_KEY": KEY}, "false", None),
        ({"AML_APP_INSIGHTS_ENABLED": "true"}, "false", None),
        ({"AML_APP_INSIGHTS_KEY": KEY}, "false", None),
    ],
)
def test_application_insights_in_the_banner(start: Start, environ: dict[str, str], enabled: str, said: str | None):
    command = start("--entry_script", "score.py", SCORING_TIMEOUT_MS="stops it here", **environ)

    assert command.end() == 3
    assert f"Application Insights Enabled: {enabled}\n" in command.out
    assert ("instrumentation key provided." in command.out) == (said is not None)
    assert f"\n{said} Application Insights instrumentation key provided.\n" in command.out or said is None
    assert KEY not in command.out.lower()


# The configuration file


def test_a_file_of_settings(start: Start, tmp_path: Path):
    port = pick_port()
    (tmp_path / "conf.json").write_text(
        json.dumps(
            {
                "AZUREML_ENTRY_SCRIPT": str(tmp_path / "score.py"),
                "SCORING_TIMEOUT_MS": 1234,
                "SERVICE_NAME": "from the file",
                "SERVICE_VERSION": "from the file",
                "NOPE": 1,
            }
        )
    )
    command = start("--config_file", "conf.json", "--port", str(port), SERVICE_VERSION="from the environment")
    command.wait_ready()

    assert f"Config File: {tmp_path}/conf.json\n" in command.out
    assert "azmlinfsrv - Found extra keys in the config file that are not supported by the server.\n" in command.out
    assert "Extra keys = ['NOPE']\n" in command.out
    assert "azmlinfsrv - Scoring timeout is set to 1234\n" in command.out
    info = json.loads(ask(port, "GET", "/swagger.json").body)["info"]
    assert (info["title"], info["version"]) == ("from the file", "from the environment")
    command.stop()


def test_a_tuned_file_is_not_used_and_not_verified_and_it_says_so(start: Start, tmp_path: Path):
    (tmp_path / "tuned.json").write_text(json.dumps({"threads": 2, "tuned": {"circumstances": {}}}))
    command = start("--config_file", "tuned.json", "--entry_script", "score.py", "--port", str(pick_port()))
    command.wait_ready()
    assert "was made by `scoring-runtime tune`: its settings are not used here, and its evidence is not verified" in (
        command.out
    )
    assert "Extra keys" not in command.out
    command.stop()


@pytest.mark.parametrize("content", [None, ""])
def test_a_file_that_is_missing_or_empty_is_not_used(start: Start, tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "conf.json").write_text(content)
    command = start("--config_file", "conf.json", SCORING_TIMEOUT_MS="stops it here")

    assert command.end() == 3
    assert "conf.json: there is no such file, or nothing in it. It is not used." in command.out
    assert "environment variable SCORING_TIMEOUT_MS is 'stops it here'" in command.out


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_file_that_is_wrong(start: Start, tmp_path: Path, content: str):
    (tmp_path / "conf.json").write_text(content, "latin-1")
    command = start("--config_file", "conf.json", "--entry_script", "score.py")

    assert command.end() == 3
    assert "Server Routes" in command.out
    assert re.search(r"C \[\d+\] azmlinfsrv - \n=+Configuration Error=+\nInvalid config file!: ", command.out)


def test_a_config_json_of_somebody_else_is_left_alone(start: Start, tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "layers": [1]}')
    command = start("--entry_script", "score.py", "--port", str(pick_port())).wait_ready()

    assert "extra keys" not in command.out
    command.stop()


# Starts that fail


@pytest.mark.parametrize("variable", ["SCORING_TIMEOUT_MS", "AZUREML_DEBUG_PORT", "APP_INSIGHTS_LOG_RESPONSE_ENABLED"])
def test_a_variable_that_is_wrong(start: Start, variable: str):
    command = start("--entry_script", "score.py", **{variable: "x"})

    assert command.end() == 3
    assert re.search(
        r"C \[\d+\] azmlinfsrv - \n={15}Configuration Error={17}\n"
        rf"environment variable {variable} is 'x': expected .*\n={{51}}\n\Z",
        command.out,
    )


@pytest.mark.parametrize("count", ["many", "-1"])
def test_a_worker_count_that_is_wrong(start: Start, count: str):
    command = start("--entry_script", "score.py", WORKER_COUNT=count)

    assert command.end() == 1
    assert f"environment variable WORKER_COUNT is '{count}'" in command.err


def test_a_script_that_is_missing(start: Start):
    command = start("--entry_script", "nope.py", "--port", str(pick_port()))

    assert command.end() == 3
    assert "No such file or directory." in command.err


def test_no_script_anywhere(start: Start, tmp_path: Path):
    (tmp_path / "conf.json").write_text('{"SERVICE_NAME": "x"}')
    command = start("--config_file", "conf.json", "--port", str(pick_port()))

    assert command.end() == 3
    assert "No score script found. Expected score script main.py." in command.err


def test_a_port_that_is_taken(start: Start):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        command = start("--entry_script", "score.py", "--port", str(taken.getsockname()[1]))
        assert command.end() == 1
    assert "Address already in use" in command.err


def test_a_debugger_that_is_missing_ends_the_start_at_once(start: Start):
    command = start("--entry_script", "score.py", "--port", str(pick_port()), AZUREML_DEBUG_PORT="5678")

    assert command.end() == 3
    assert command.out.count("!! Starting the inference server in DEBUGGING mode") == 1
    assert "** Cannot connect to a debugger because debugpy is not installed." in command.err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scoring_timeout_ms": "5"}, "5"),
        ({"AML_SCORING_TIMEOUT": "6"}, "6"),
        ({"aml_scoring_timeout": "7"}, "7"),
        ({"SCORING_TIMEOUT_MS": "8", "AML_SCORING_TIMEOUT": "6"}, "8"),
        ({"Scoring_Timeout_Ms": "9", "AML_SCORING_TIMEOUT": "6"}, "9"),
    ],
)
def test_the_workers_variables_have_synonyms_in_any_case(given: dict[str, str], expected: str) -> None:
    environ = dict(given)
    azmlinfsrv.spell_out(environ)
    assert environ["SCORING_TIMEOUT_MS"] == expected
