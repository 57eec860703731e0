"""What is to be served: a score.py, an ONNX file, or a folder that holds one of them."""

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from .errors import TargetError, UsageError


@dataclass(frozen=True)
class Target:
    """One thing to serve. `path` is absolute; `name` is the file's stem, or its folder's name."""

    engine: Literal["script", "onnx"]
    path: Path
    name: str
    import_main: bool = False
    """Not a file that was named: the module `main`, from wherever the user's path finds it."""


def find(given: str | None) -> Target:
    """The target that `given` names; TargetError or UsageError that say what is wrong and what to do."""
    if given is None:
        raise UsageError(
            "nothing to serve: name a score.py, an .onnx file or a folder, as in `scoring-runtime serve score.py`, "
            "or set SCORING_ENTRY_SCRIPT."
        )
    path = Path(given).absolute()
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            raise TargetError(f"{given}: no such file or folder. The path is taken from {Path.cwd()}.")
        if not path.is_file():
            raise TargetError(f"{given}: neither a file nor a folder.")
        return _from_file(path, path.stem, given)
    except PermissionError as error:
        raise TargetError(f"{error.filename}: permission denied. Make it readable for this user.") from None


def in_app_root(folder: str) -> Target:
    """What is served where nothing is named: the app root's score.py, or the only model below it, under its own name."""
    found = find(folder)
    return dataclasses.replace(found, name=found.path.stem)


def _from_file(path: Path, name: str, given: str) -> Target:
    if path.suffix == ".py":
        return Target("script", path, name)
    if path.suffix.lower() == ".onnx":
        return Target("onnx", path, name)
    raise TargetError(
        f"{given}: neither a Python file (.py) nor an ONNX model (.onnx). "
        "Serve other formats through a score.py that loads them in init()."
    )


def _in_folder(folder: Path) -> Target:
    script = folder / "score.py"
    name = folder.resolve().name
    if script.is_file():
        return Target("script", script, name)
    # A registered model lies in <name>/<version>/: look below, too.
    models = sorted(path for path in _files_below(folder) if path.suffix.lower() == ".onnx")
    if len(models) == 1:
        return _from_file(models[0], name, str(models[0]))
    if not models:
        raise TargetError(f"{folder}: holds neither a score.py nor an .onnx file. Add one, or name the file itself.")
    found = ", ".join(str(path.relative_to(folder)) for path in models[:5])
    raise TargetError(f"{folder}: holds {len(models)} ONNX models and no score.py ({found}). Name the one to serve.")


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below the folder; PermissionError for a folder in it that is closed to this user."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (path for name in names if (path := Path(parent, name)).is_file())
