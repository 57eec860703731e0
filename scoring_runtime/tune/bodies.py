"""The requests to measure with: bodies from files of the user's."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import UsageError

MOST = 1000
MOST_BYTES = 256 << 20


def read(paths: Iterable[str]) -> list[bytes]:
    """The bodies of these files and folders, the first MOST of them; UsageError that says which cannot be read, and why.

    A file holds one body, or one on each line. In a folder each file is one body, in the order of their names; those that
    begin with a dot are left out.
    """
    found: list[bytes] = []
    size_bytes = 0
    for path in map(Path, paths):
        before = len(found)
        try:
            for body in _in_folder(path) if path.is_dir() else _in_file(path):
                size_bytes += len(body)
                if len(found) == MOST or (found and size_bytes > MOST_BYTES):
                    return found
                found.append(body)
        except OSError as error:
            raise UsageError(f"--samples {path}: cannot be read: {error.strerror}.") from None
        if len(found) == before:
            raise UsageError(
                f"--samples {path}: holds no request. Write one JSON body on each line, or a file for each."
            )
    return found


def _in_folder(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            yield path.read_bytes()


def _in_file(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    if _is_json(content):
        yield content
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if not _is_json(line):
            raise UsageError(
                f"--samples {path}: line {number} is no JSON. A file holds one JSON body, or one on each line."
            )
        yield line


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
