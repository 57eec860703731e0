"""Scripts that cannot be served: what the front is told."""

import pytest

RUN = "def run(data): return data\n"
INIT = "def init(): pass\n"


def test_missing_functions(fails, tmp_path):
    for script, name in ((RUN, "init"), (INIT, "run")):
        message, traceback = fails(script)
        assert message.startswith(f"User script at {tmp_path}/score.py does not have a {name}() function defined. ")
        assert traceback == ""


def test_run_that_is_no_function(fails):
    message, _ = fails(INIT + "run = 5")
    assert "run is a int, not a function" in message


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ("def run(*data): pass", "run() cannot accept positional-only arguments, *args, or **kwargs."),
        ("def run(data, **more): pass", "run() cannot accept positional-only arguments, *args, or **kwargs."),
        ("run = lambda: 0", "run() needs to accept an argument for input data."),
        ("def run(request_headers): pass", 'run() needs to accept an argument other than "request_headers".'),
    ],
)
def test_signatures(fails, tmp_path, run, text):
    message, traceback = fails(INIT + run)

    assert message == f"{tmp_path}/score.py: {text}"
    assert traceback == ""


def test_a_script_that_is_not_there(fails, tmp_path):
    message, traceback = fails(None)

    assert message.startswith("No such file or directory.")
    assert f"{tmp_path}/score.py" in message
    assert traceback == ""


def test_no_script_at_all(fails, tmp_path):
    (tmp_path / "other.txt").touch()

    message, _ = fails(None, target=None)

    assert message.startswith(
        "No score script found. Expected score script main.py.\nExpected script to be found in PYTHONPATH: ["
    )
    assert "Current contents of AML_APP_ROOT: ['other.txt', 'scorer.log']" in message


def test_main_is_the_script_when_none_is_named(ready, tmp_path):
    (tmp_path / "main.py").write_text(INIT + RUN)

    assert ready(None, target=None).json(b"x") == "x"


IMPORT_FAILED = "Failed to import user script because it raised an unhandled exception\n"


def test_a_syntax_error(fails, tmp_path, bare_python, version):
    message, traceback = fails(INIT + "def run(: pass\n", python=bare_python)

    assert message.startswith(IMPORT_FAILED + f"{tmp_path}/score.py, line 2: SyntaxError: ")
    assert f"Python {version}." in message
    assert "--python" in message
    assert traceback.startswith(f'  File "{tmp_path}/score.py", line 2')
    assert traceback.rstrip().rpartition("\n")[2].startswith("SyntaxError: ")


def test_an_import_error(fails, tmp_path, bare_python):
    message, traceback = fails("import helper\n" + INIT + RUN, python=bare_python)

    assert "ModuleNotFoundError: No module named 'helper'" in message
    assert f"({bare_python})" in message
    assert "--python" in message
    assert traceback.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/score.py", line 1')


@pytest.mark.parametrize("raised", ["ValueError('boom')", "SystemExit(3)", "KeyboardInterrupt()"])
def test_a_script_that_raises(fails, tmp_path, raised):
    message, traceback = fails(f"raise {raised}\n")

    assert message.startswith(IMPORT_FAILED + f"{tmp_path}/score.py: {raised.partition('(')[0]}")
    assert traceback.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/score.py", line 1')


@pytest.mark.parametrize("raised", ["ValueError('boom')", "SystemExit(3)", "KeyboardInterrupt()"])
def test_an_init_that_raises(fails, tmp_path, raised):
    model = tmp_path / "model" / "1"
    model.mkdir(parents=True)
    for name in ("b.bin", "a.bin"):
        (model / name).touch()
    (model / "loop").symlink_to(model)

    message, traceback = fails(f"def init(): raise {raised}\n{RUN}", model_dir=str(tmp_path / "model"))

    first, *rest = message.splitlines()
    assert first == "User's init function failed"
    assert rest[0].startswith(f"{tmp_path}/score.py: init() raised {raised.partition('(')[0]}")
    assert rest[1:] == [
        "Model Directory Contents:",
        "model/",
        "    1/",
        "        a.bin",
        "        b.bin",
        "        loop/",
    ]
    assert traceback.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/score.py", line 1, in init')
    assert traceback.rstrip().rpartition("\n")[2].startswith(raised.partition("(")[0])


def test_a_large_model_folder_is_cut(fails, tmp_path):
    (tmp_path / "model").mkdir()
    for number in range(300):
        (tmp_path / "model" / f"{number:03}").touch()

    message, _ = fails("def init(): 1/0\n" + RUN, model_dir=str(tmp_path / "model"))

    tree = message.partition("Model Directory Contents:\n")[2].splitlines()
    assert tree[-2:] == ["    198", "Output Truncated. First 200 lines shown."]
    assert len(tree) == 201


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 7}'])
def test_a_logging_json_that_is_of_no_use(fails, tmp_path, text):
    (tmp_path / "logging.json").write_text(text)

    message, traceback = fails(INIT + RUN)

    assert message.startswith(f"{tmp_path}/logging.json: this logging configuration cannot be used: ")
    assert traceback.startswith("Traceback")
