"""How scorers are started: which interpreter, which environment, and what is said of how they ended."""

import os
import signal
import sys
from pathlib import Path

import pytest

from scoring_runtime.errors import ConfigurationError, ScorerStartError
from scoring_runtime.pool.back_off import FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S, back_off_s
from scoring_runtime.pool.launch import LaunchPlan, describe_exit, launch, plan, user_python
from scoring_runtime.settings import Settings
from scoring_runtime.target import Target


@pytest.fixture
def pythons(tmp_path):
    """Environments with something that can be executed in the place of python."""
    for name in ("flag", "azureml", "venv", "conda"):
        python = tmp_path / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
    return {
        "AZUREML_CONDA_ENVIRONMENT_PATH": str(tmp_path / "azureml"),
        "VIRTUAL_ENV": str(tmp_path / "venv"),
        "CONDA_PREFIX": str(tmp_path / "conda"),
    }


def chosen(environ: dict[str, str], python: str | None = None) -> str:
    """The name of the environment whose interpreter is taken, or the path of another one."""
    path = Path(user_python(Settings(python=python), environ))
    return path.parent.parent.name if path.parent.name == "bin" and path.stat().st_size < 100 else str(path)


def test_the_interpreter_that_is_named_comes_first(pythons, tmp_path):
    assert chosen(pythons, str(tmp_path / "flag/bin/python")) == "flag"


def test_then_the_environment_of_the_image_then_the_active_one_then_conda_then_ours(pythons):
    order = []
    while pythons:
        order.append(chosen(pythons))
        pythons.pop(next(iter(pythons)))
    assert [*order, chosen({})] == ["azureml", "venv", "conda", sys.executable]


def test_an_environment_without_an_interpreter_is_passed_over(pythons, tmp_path):
    pythons.pop("AZUREML_CONDA_ENVIRONMENT_PATH")
    (tmp_path / "venv/bin/python").unlink()
    assert chosen(pythons) == "conda"
    assert chosen({"VIRTUAL_ENV": ""}) == sys.executable


def test_a_named_environment_without_an_interpreter_is_refused(pythons, tmp_path):
    (tmp_path / "azureml/bin/python").chmod(0o644)
    with pytest.raises(
        ConfigurationError, match=r"AZUREML_CONDA_ENVIRONMENT_PATH is .*/azureml', where there is no python"
    ):
        chosen(pythons)


def test_an_image_may_name_an_interpreter_for_when_nothing_else_is(pythons, tmp_path):
    path = {"PATH": str(tmp_path / "venv/bin"), "SCORING_DEFAULT_PYTHON": "python"}
    assert chosen(path) == "venv"
    assert chosen({**pythons, **path}) == "azureml"
    assert chosen({"SCORING_DEFAULT_PYTHON": "python", "PATH": "/nowhere"}) == sys.executable


def test_a_name_is_looked_up_on_the_path_that_the_server_was_started_with(tmp_path, pythons, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "venv/bin"))
    assert chosen({"PATH": str(tmp_path / "flag/bin")}, "python") == "flag"


def test_an_interpreter_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--python nothing: no such executable.") as caught:
        user_python(Settings(python="nothing"), {"PATH": str(tmp_path)})
    assert caught.value.exit_code == 3


def test_a_script_runs_in_the_users_interpreter_with_the_users_environment(tmp_path):
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": "/mine", "GUNICORN_CMD_ARGS": "--mine"}
    made = plan(Target("script", tmp_path / "score.py", "score"), Settings(python=sys.executable), environ)
    assert made.arguments[0] == sys.executable
    assert Path(made.arguments[1]).parts[-2:] == ("scorer", "__main__.py")
    assert made.environ == environ


def test_a_model_runs_in_our_interpreter_isolated(tmp_path):
    made = plan(Target("onnx", tmp_path / "m.onnx", "m"), Settings(python="not-looked-at"), {})
    assert made.arguments == (sys.executable, "-I", "-m", "scoring_runtime.onnx")


def test_what_a_scorer_is_told(tmp_path):
    settings = Settings(
        python=sys.executable,
        scorers=3,
        max_batch_size=17,
        model_dir="/models",
        app_root=str(tmp_path),
        log_level="debug",
    )
    made = plan(
        Target("script", tmp_path / "score.py", "score"), settings, {"PATH": "", "AZUREML_SOURCE_DIRECTORY": "src"}
    )
    expected = {
        "engine": "script",
        "target": str(tmp_path / "score.py"),
        "name": "score",
        "scorers": 3,
        "max_batch_size": 17,
        "log_level": "debug",
        "scoring_timeout_ms": 3_600_000,
        "app_root": str(tmp_path),
        "source_dir": "src",
        "model_dir": "/models",
    }
    assert expected.items() <= made.hello.items()
    assert made.environ["AZUREML_MODEL_DIR"] == "/models"


@pytest.mark.parametrize(
    ("cache_dir", "environ", "expected"),
    [
        (None, {"XDG_CACHE_HOME": "/var/cache", "HOME": "/home/me"}, "/var/cache/scoring-runtime"),
        (None, {"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/scoring-runtime"),
        (None, {"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/scoring-runtime"),
        (None, {"HOME": "relative"}, None),
        (None, {}, None),
        ("/engines", {"XDG_CACHE_HOME": "/var/cache"}, "/engines"),
        ("engines", {}, str(Path.cwd() / "engines")),
        ("off", {"XDG_CACHE_HOME": "/var/cache"}, None),
        ("OFF", {}, None),
    ],
)
def test_where_what_was_built_is_kept(cache_dir, environ, expected, tmp_path):
    """By the environment that the server was started with, not by what is left of it in the scorer."""
    made = plan(Target("onnx", tmp_path / "m.onnx", "m"), Settings(cache_dir=cache_dir), environ)
    assert made.hello["cache_dir"] == expected
    assert made.hello["cache_dir_is_named"] is (cache_dir is not None)


def test_an_interpreter_that_cannot_be_started_says_why_and_leaks_nothing(tmp_path):
    script = tmp_path / "not-executable"
    script.write_text("")
    for name, why in ((str(tmp_path / "missing"), "No such file"), (str(script), "Permission denied")):
        for piped in (False, True):
            with pytest.raises(ScorerStartError, match=why):
                launch(LaunchPlan((name,), {}, {"target": "t"}), piped=piped)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGKILL, "was killed by signal 9 (out of memory?)"),
        (-signal.SIGSEGV, "was killed by signal 11"),
    ],
)
def test_how_a_process_ended_in_words(returncode, words):
    assert describe_exit(returncode) == words


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer_and_longer():
    waits = [back_off_s(failures) for failures in range(1, 12)]
    assert waits[:4] == [0.0, FIRST_BACK_OFF_S, 2 * FIRST_BACK_OFF_S, 4 * FIRST_BACK_OFF_S]
    assert waits == sorted(waits)
    assert waits[-1] == back_off_s(1000) == LONGEST_BACK_OFF_S
