"""What is to be served: found, or refused with what to do."""

import os
from pathlib import Path

import pytest

from scoring_runtime.errors import TargetError, UsageError
from scoring_runtime.target import Target, find, in_app_root


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


@pytest.mark.parametrize(
    ("name", "engine", "stem"),
    [("score.py", "script", "score"), ("my.model.onnx", "onnx", "my.model"), ("UPPER.ONNX", "onnx", "UPPER")],
)
def test_a_file_is_named_by_its_stem(folder, name, engine, stem):
    path = make(folder / name)
    assert find(name) == find(str(path)) == Target(engine, path, stem)


def test_a_folder_with_a_score_py_is_served_by_it_and_named_by_the_folder(folder):
    script = make(folder / "service" / "score.py")
    make(folder / "service" / "model.onnx")
    assert find("service") == find("service/") == Target("script", script, "service")


def test_a_folder_with_one_model_somewhere_is_served_by_it(folder):
    model = make(folder / "digits" / "1" / "deep" / "model.onnx")
    make(folder / "digits" / "1" / "labels.txt")
    assert find("digits") == Target("onnx", model, "digits")


def test_the_working_directory_is_named_by_its_own_name(folder):
    script = make(folder / "score.py")
    assert find(".") == Target("script", script, folder.name)


def test_a_link_is_served_as_what_it_is_called(folder):
    make(folder / "real.py")
    (folder / "score.py").symlink_to("real.py")
    assert find("score.py").name == "score"


def test_nothing_is_a_wrong_use(folder):
    with pytest.raises(UsageError, match=r"name a score.py, an .onnx file or a folder") as caught:
        find(None)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ([], "score.py", "score.py: no such file or folder. The path is taken from "),
        (["model.pkl"], "model.pkl", "model.pkl: neither a Python file (.py) nor an ONNX model (.onnx). Serve other"),
        (["SCORE.PY"], "SCORE.PY", "SCORE.PY: neither a Python file"),
        (["empty/x.txt"], "empty", "empty: holds neither a score.py nor an .onnx file. Add one, or name the file"),
        (
            ["two/b.onnx", "two/a.onnx"],
            "two",
            "two: holds 2 ONNX models and no score.py (a.onnx, b.onnx). Name the one",
        ),
        (["up/score.py/x.onnx", "up/y.onnx"], "up", "up: holds 2 ONNX models and no score.py"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_to_do(folder, files, given, message):
    for file in files:
        make(folder / file)
    with pytest.raises(TargetError) as caught:
        find(given)
    assert caught.value.message.removeprefix(f"{folder}/").startswith(message)
    assert caught.value.exit_code == 3


def test_many_models_are_not_all_listed(folder):
    for number in range(50):
        make(folder / f"{number:02}.onnx")
    with pytest.raises(TargetError, match=r"\(00.onnx, 01.onnx, 02.onnx, 03.onnx, 04.onnx\)"):
        find(".")


def test_neither_a_file_nor_a_folder(folder):
    os.mkfifo("score.py")
    with pytest.raises(TargetError, match=r"score.py: neither a file nor a folder\."):
        find("score.py")


@pytest.fixture
def closed(folder):
    path = make(folder / "closed" / "score.py").parent
    path.chmod(0)
    yield path
    path.chmod(0o755)


@pytest.fixture
def nobody(closed):
    """Root may read everything: be somebody else."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    yield
    if was_root:
        os.seteuid(0)


def test_what_may_not_be_read_is_said(closed, nobody):
    with pytest.raises(TargetError, match=r"permission denied\. Make it readable for this user"):
        find(str(closed / "score.py"))


def test_a_model_that_is_found_in_the_app_root_has_its_own_name(tmp_path):
    folder = tmp_path / "models" / "1"
    folder.mkdir(parents=True)
    (folder / "digits.onnx").write_bytes(b"x")
    assert in_app_root(str(tmp_path)) == Target("onnx", folder / "digits.onnx", "digits")
