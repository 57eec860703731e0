"""The table of settings: every row can be set in every way, and what is wrong is said by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scoring_runtime import cli, sealing
from scoring_runtime.errors import ConfigurationError
from scoring_runtime.settings import ROWS, Settings, flag, load, parse_flag

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}


CHOICES = ("cuda", "prefer", "basic", "off", "background")


def another(name: str) -> tuple[str, Any]:
    """A text that sets the row to something that is not its default, and what that is."""
    default, parse = DEFAULTS[name], ROWS[name].parse
    for text in ("7", "4711", "false", "true", "debug", "cuda.use_tf32=0", "some text", *CHOICES):
        try:
            value = parse(text)
        except ValueError:
            continue
        if value != default:
            return text, value
    raise AssertionError(f"no other value for {name}")


@pytest.fixture
def config_file(tmp_path):
    def write(document: Any) -> str:
        path = tmp_path / "settings.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(path)

    return write


# Every row


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_it_is(name):
    row = ROWS[name]
    assert flag(name).startswith("--")
    assert row.env
    assert set(row.launcher_env) <= set(row.env)
    assert row.metavar.isupper()
    assert len(row.help) > 5
    assert not row.help.endswith(".")


def test_no_variable_sets_two_rows():
    variables = [variable for row in ROWS.values() for variable in row.env]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("name", ROWS)
def test_every_default_would_pass_its_own_check(name):
    default = DEFAULTS[name]
    if default is not None and default != "":
        assert ROWS[name].parse(str(default)) == default


@pytest.mark.parametrize("name", ROWS)
def test_every_row_can_be_set_by_its_flag(name):
    text, value = another(name)
    assert getattr(load({name: parse_flag(name, text)}, {}, None), name) == value


@pytest.mark.parametrize(("name", "variable"), [(name, variable) for name, row in ROWS.items() for variable in row.env])
def test_every_row_can_be_set_by_each_of_its_variables(name, variable):
    text, value = another(name)
    assert load({}, {variable: text}, None) == dataclasses.replace(Settings(), **{name: value})


@pytest.mark.parametrize("name", ROWS)
def test_every_row_can_be_set_in_the_file_by_its_name_or_its_variables(name, config_file):
    text, value = another(name)
    for key in (name, *ROWS[name].env):
        assert load({}, {}, config_file({key: text})) == dataclasses.replace(Settings(), **{name: value})


@pytest.mark.parametrize("command", ["serve", "check"])
def test_the_command_line_knows_every_row(command, monkeypatch, capsys):
    monkeypatch.setattr(sealing, "restart_isolated", lambda _: None)
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, row in ROWS.items():
        assert f"{flag(name)} {row.metavar}" in text
        assert "".join(row.help.split()) in "".join(text.split())
        assert all(variable in text for variable in row.env)


# Precedence


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(config_file):
    path = config_file({"port": 1001, "scorers": 11, "max_batch_size": 111})
    environ = {"SCORING_PORT": "1002", "SCORING_SCORERS": "12"}
    chosen = load({"port": 1003}, environ, path)
    assert (chosen.port, chosen.scorers, chosen.max_batch_size, chosen.host) == (1003, 12, 111, "127.0.0.1")


def test_our_own_variable_wins_over_the_incumbents():
    assert load({}, {"WORKER_COUNT": "3", "SCORING_SCORERS": "4"}, None).scorers == 4
    assert load({}, {"WORKER_COUNT": "3"}, None).scorers == 3


def test_a_variable_that_is_empty_is_not_set():
    assert load({}, {"SCORING_SCORERS": "", "WORKER_COUNT": "3"}, None).scorers == 3
    assert load({}, {"SCORING_PORT": ""}, None).port == 5001


def test_a_wrong_value_that_a_better_one_stands_before_is_not_looked_at():
    assert load({}, {"SCORING_SCORERS": "4", "WORKER_COUNT": "many"}, None).scorers == 4


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


# What Kubernetes puts into the environment


def test_the_address_of_a_service_is_no_port():
    assert load({}, {"SCORING_PORT": "tcp://10.0.0.7:80"}, None).port == 5001


def test_what_only_looks_like_it_is_wrong():
    with pytest.raises(ConfigurationError, match=r"SCORING_PORT is 'udp://10.0.0.7:80'"):
        load({}, {"SCORING_PORT": "udp://10.0.0.7:80"}, None)
    with pytest.raises(ConfigurationError, match="SCORING_SCORERS"):
        load({}, {"SCORING_SCORERS": "tcp://10.0.0.7:80"}, None)


# Wrong values


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("SCORING_PORT", "0", "expected a whole number from 1 to 65535"),
        ("SCORING_PORT", "65536", "expected a whole number from 1 to 65535"),
        ("SCORING_PORT", "80.5", "expected a whole number from 1 to 65535"),
        ("SCORING_PORT", "http", "expected a whole number from 1 to 65535"),
        ("SCORING_MAX_BATCH_SIZE", "-1", "expected a whole number from 1 to 65536"),
        ("SCORING_HEAD_TIMEOUT_S", "soon", "expected a number of seconds from 0.1 to 86400"),
        ("SCORING_HEAD_TIMEOUT_S", "nan", "expected a number of seconds from 0.1 to 86400"),
        ("SCORING_HEAD_TIMEOUT_S", "inf", "expected a number of seconds from 0.1 to 86400"),
        ("SCORING_LOG_LEVEL", "loud", "expected one of debug, info, warning, error, critical"),
        ("SCORING_HOST", "  ", "expected some text, got none"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_holds_what_was_expected_and_what_to_do(variable, text, expected):
    (name,) = (name for name, row in ROWS.items() if variable in row.env)
    with pytest.raises(ConfigurationError) as caught:
        load({}, {variable: text}, None)
    assert caught.value.message == (
        f"environment variable {variable} is {text!r}: {expected}. Correct it, unset it, or use {flag(name)}."
    )


@pytest.mark.parametrize(
    ("variable", "exit_code"),
    [
        ("WORKER_COUNT", 1),
        ("WORKER_TIMEOUT", 1),
        ("SCORING_SCORERS", 3),
        ("SCORING_PORT", 3),
        ("SCORING_TIMEOUT_MS", 3),
    ],
)
def test_a_wrong_variable_ends_the_start_as_the_incumbent_does(variable, exit_code):
    with pytest.raises(ConfigurationError) as caught:
        load({}, {variable: "wrong"}, None)
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize(("text", "level"), [("INFO", "info"), ("Debug", "debug"), ("critical", "critical")])
def test_log_levels_may_be_written_in_any_case(text, level):
    assert load({}, {"SCORING_LOG_LEVEL": text}, None).log_level == level


def test_a_wrong_flag_is_named_and_exits_with_1(monkeypatch, capsys):
    monkeypatch.setattr(sealing, "restart_isolated", lambda _: None)
    for arguments, message in (
        (["--port", "http"], "--port http: expected a whole number from 1 to 65535."),
        (["--log-level", "loud"], "--log-level loud: expected one of debug, info, warning, error, critical."),
        (["--prot", "80"], "unrecognized arguments: --prot 80."),
        (["--por", "80"], "unrecognized arguments: --por 80."),
        (["--port"], "argument --port: expected one argument."),
    ):
        assert cli.main(["serve", "score.py", *arguments]) == 1
        assert capsys.readouterr().err.startswith(f"scoring-runtime: error: {message}")


# The file


def test_a_file_that_is_missing(tmp_path):
    path = str(tmp_path / "missing.json")
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration file: No such file or directory\.$"):
        load({}, {}, path)


def test_a_file_that_is_a_folder(tmp_path):
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load({}, {}, str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "{'port': 1}", "port = 1", "\ufeff{}", "[" * 100_000])
def test_a_file_that_is_no_json(config_file, text):
    path = config_file(text)
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, path)
    assert caught.value.message.startswith(f"{path}: the configuration file is not valid JSON")
    assert caught.value.exit_code == 3


def test_a_file_that_is_not_utf_8(tmp_path):
    path = tmp_path / "settings.json"
    path.write_bytes(b'{"host": "\xff"}')
    with pytest.raises(ConfigurationError, match="is not valid JSON"):
        load({}, {}, str(path))


@pytest.mark.parametrize("document", [[], "text", 5001, None])
def test_a_file_that_holds_no_object(config_file, document):
    with pytest.raises(ConfigurationError, match=r'holds no JSON object. Write \{"port": 5001\}'):
        load({}, {}, config_file(json.dumps(document)))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("prot", "port"), ("max-batch-size", "max_batch_size"), ("SCORING_PROT", "SCORING_PORT"), ("worker_count", None)],
)
def test_a_key_that_is_none_names_the_nearest(config_file, key, nearest):
    path = config_file({key: 1})
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, path)
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    assert caught.value.message == f"{path}: {key!r} is no setting.{hint}"


@pytest.mark.parametrize(
    ("value", "said"), [(True, "True"), (None, "None"), ([1], "[1]"), ({}, "{}"), ("many", "'many'"), (1.5, "1.5")]
)
def test_a_wrong_value_in_the_file_is_named_with_its_key(config_file, value, said):
    path = config_file({"scorers": value})
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, path)
    assert caught.value.message.startswith(f"{path}: 'scorers' is {said}: expected ")
    assert caught.value.exit_code == 3


def test_numbers_in_the_file_may_be_numbers_or_text(config_file):
    chosen = load({}, {}, config_file({"port": 8000, "scorers": "2", "head_timeout_s": 2.5}))
    assert (chosen.port, chosen.scorers, chosen.head_timeout_s) == (8000, 2, 2.5)


def test_a_switch_in_the_file_may_be_true_or_false(config_file):
    assert load({}, {}, config_file({"appinsights_log_response": False})).appinsights_log_response is False
    assert load({}, {}, config_file({"appinsights_log_response": "no"})).appinsights_log_response is False


@pytest.mark.parametrize(("text", "on"), [("true", True), ("TRUE", True), ("yes", False), ("1", False), ("no", False)])
def test_only_the_word_true_switches_preloading_on_by_the_incumbents_variable(config_file, text, on):
    assert load({}, {"WORKER_PRELOAD": text}, None).preload is on
    assert load({}, {}, config_file({"WORKER_PRELOAD": text})).preload is on
    assert load({}, {"WORKER_PRELOAD": "true", "SCORING_PRELOAD": "off"}, None).preload is False


def test_the_command_line_reads_the_file(config_file, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sealing, "restart_isolated", lambda _: None)
    monkeypatch.setattr(sealing, "seal_environment", dict)
    assert cli.main(["check", str(tmp_path), "--config-file", config_file({"prot": 1})]) == 3
    assert "'prot' is no setting. Did you mean 'port'?" in capsys.readouterr().err
    assert cli.main(["check", str(Path(tmp_path, "no.py")), "--config-file", config_file({})]) == 3
    assert "no.py: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 300),
        ({"provider": "tensorrt,cuda"}, 3600),
        ({"provider": "cuda,tensorrt"}, 3600),
        ({"provider": "tensorrt", "tensorrt_build": "background"}, 300),
        ({"provider": "tensorrt", "start_timeout_s": 20.0}, 20),
    ],
)
def test_a_start_that_may_build_engines_has_an_hour(values, seconds):
    assert Settings(**values).load_timeout_s == seconds
