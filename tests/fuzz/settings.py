"""settings.py and openapi.py: any text in variables, any bytes in the files.

- What comes out is Settings whose every value would pass its own check, or ConfigurationError that can be printed.
- A user's own document is read, or refused with ConfigurationError that names the file.
"""

import json
import tempfile
from pathlib import Path

from scoring_runtime import openapi, settings
from scoring_runtime.errors import ConfigurationError

from .draw import Draw

NAMES = sorted(settings.ROWS)
VARIABLES = [variable for row in settings.ROWS.values() for variable in row.env]

TOKENS = (
    *(
        b'{"port": ',
        b'"scorers"',
        b"true",
        b"null",
        b"1e999",
        b"NaN",
        b"-1",
        b"5001",
        b"[",
        b'"\\ud800"',
        b"tcp://10.0.0.7:80",
    ),
    *(b"1_000", b" 7 ", b"0x10", b"1" * 20, b"\xff", b"\xef\xbb\xbf", *(name.encode() for name in NAMES[:20])),
)


def seed(document: bytes, *variables: tuple[int, bytes]) -> bytes:
    """An input for `check`."""
    pairs = b"".join(bytes([which, len(value)]) + value for which, value in variables)
    return bytes([len(variables)]) + pairs + document


SEEDS = (
    seed(b'{"port": 5002, "log_level": "debug", "head_timeout_s": 0.5}', (5, b"5001"), (8, b"2")),
    seed(b'{"port": "x"}', (0, b"score.py"), (20, b"-1")),
    seed(b'{"prot": 1}', (6, b"tcp://10.0.0.7:80")),
    seed(b'{"drain_grace_s": 1e999, "appinsights_log_response": true}', (30, b"nan")),
    seed(b'{"SCORING_PORT": 1, "scorers": null}'),
    seed(b"[" * 2000),
    seed(b'{"\\ud800": 1}'),
    seed(b'{"port": ' + b"1" * 300 + b"}"),
)


def check(data: bytes) -> None:
    draw = Draw(data)
    environ = {VARIABLES[draw.below(len(VARIABLES))]: draw.text() for _ in range(draw.below(5))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "swagger.json")
        path.write_bytes(draw.rest())
        check_files(environ, path)


def check_files(environ: dict[str, str], path: Path) -> None:
    for variables, file in ((environ, None), (environ, str(path)), ({}, str(path))):
        try:
            loaded = settings.load({}, variables, file)
        except ConfigurationError as error:
            str(error).encode()
            continue
        for name, row in settings.ROWS.items():
            value = getattr(loaded, name)
            if value not in (None, ""):
                assert row.parse(str(value)) == value
    try:
        own = openapi.read_user_documents(path.parent)
    except ConfigurationError as error:
        text = str(error)
    else:
        service = openapi.Service("name", "1", environ.get("SERVICE_PATH_PREFIX", ""))
        json.dumps(openapi.select(openapi.documents(service, {}, own), "2"))
        return
    assert str(path) in text
    text.encode()
