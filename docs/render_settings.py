"""Writes settings.md, beside this file, from the settings table: `make docs`."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from scoring_runtime.settings import ROWS, Row, Settings, flag

PAGE = Path(__file__).resolve().with_name("settings.md")

INTRODUCTION = """\
# Settings

<!-- Written by `make docs` from scoring_runtime/settings.py. Change the table there. -->

Every setting can be given in three ways. The first that is given wins:

1. as a flag of `scoring-runtime serve` and `check`: `--max-batch-size 32`
2. as an environment variable: `SCORING_MAX_BATCH_SIZE=32`. Where a setting has several, the first of the row that is set
   wins; one that is set to nothing counts as not set.
3. as a key of a JSON file, named with `--config-file F`: `{"max_batch_size": 32}`. A key is the flag without its
   leading dashes and with `_` in place of `-`, or one of the environment variables' names.

A value that does not fit ends the program with one message that names what holds it. The exit code is 1 for a flag, 3 for
an environment variable or a file"""

OTHERS = """\
## Other variables

`scoring-runtime` also reads, without a flag of their own:

| variable | what |
|---|---|
| `AZUREML_CONDA_ENVIRONMENT_PATH`, `VIRTUAL_ENV`, `CONDA_PREFIX` | without `--python`: the first of these folders with a `bin/python` gives the interpreter that runs score.py; if none does, it is the server's own |
| `AML_APP_INSIGHTS_ENABLED`, `AML_APP_INSIGHTS_KEY` | `true`, and the key of an Application Insights resource: the same as the connection string `InstrumentationKey=` with that key |
| `AZUREML_SOURCE_DIRECTORY` | a folder below the app root, put on score.py's `sys.path` too |
| `HOSTNAME` | the name of this container for Application Insights |
| `SERVER_VERSION_LOG_RESPONSE_ENABLED` | anything but `true`: a script's answers carry no `x-ms-server-version`, or the one that `HTTP_X_MS_SERVER_VERSION` holds |

`azmlinfsrv` has options of its own, which `azmlinfsrv --help` lists, and reads the same variables.
"""


def render() -> str:
    """The whole page."""
    exceptions = [variable for row in ROWS.values() for variable in row.launcher_env]
    exit_codes = f", and 1 for {' and '.join(f'`{variable}`' for variable in exceptions)}." if exceptions else "."
    lines = ["| flag | environment | default | values | what |", "|---|---|---|---|---|"]
    for field in dataclasses.fields(Settings):
        row = ROWS[field.name]
        cells = (
            f"`{flag(field.name)} {row.metavar}`",
            ", ".join(f"`{variable}`" for variable in row.env),
            _default(field.name, field.default),
            _values(row),
            row.help,
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return f"{INTRODUCTION}{exit_codes}\n\n" + "\n".join(lines) + f"\n\n{OTHERS}"


def _default(name: str, value: Any) -> str:
    if value is None or value == "":
        return "none"
    if name.endswith("_bytes"):
        return f"{value}{_in_binary_units(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_binary_units(size_bytes: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= scale and size_bytes % scale == 0:
            return f" ({size_bytes // scale} {unit})"
    return ""


def _values(row: Row) -> str:
    """What the setting's own check says that it expects."""
    try:
        row.parse("")
    except ValueError as error:
        return re.sub(r"^expected (.*?)(, got none)?$", r"\1", str(error))
    return "any text"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
