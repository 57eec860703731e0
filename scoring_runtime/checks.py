"""What the text of a setting may be: each check returns its value, or raises ValueError that says what was expected."""

import re
from collections.abc import Callable

from . import providers

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_BATCH = 65536


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """A whole number within bounds, both included."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise ValueError(f"expected a whole number from {lowest} to {highest}")
        return number

    return parse


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """A number of seconds within bounds, both included."""
    return number(lowest, highest, " of seconds")


def number(lowest: float, highest: float, what: str = "") -> Callable[[str], float]:
    """A number within bounds, both included."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not lowest <= number <= highest:
            raise ValueError(f"expected a number{what} from {lowest:g} to {highest:g}")
        return number

    return parse


def text(text: str) -> str:
    """Anything but nothing."""
    if not text.strip():
        raise ValueError("expected some text, got none")
    return text


def model_name(text: str) -> str:
    """A name that fits between two slashes of a path."""
    if not text.strip() or "/" in text:
        raise ValueError("expected a name without slashes")
    return text


def header_name(text: str) -> str:
    """The name of a header field, in lower case."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
        raise ValueError("expected the name of a header")
    return text.lower()


def log_level(text: str) -> str:
    """One of LOG_LEVELS, in lower case."""
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}")
    return text.lower()


def choice(*values: str) -> Callable[[str], str]:
    """One of `values`, in lower case."""

    def parse(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return text.lower()

    return parse


def provider_list(text: str) -> str:
    """Execution providers, best first."""
    return ",".join(providers.parse_list(text))


def provider_options(text: str) -> str:
    """Options of execution providers."""
    options = providers.parse_options(text)
    return ";".join(f"{name}.{key}={value}" for name, each in options.items() for key, value in each.items())


def buckets(text: str) -> str:
    """Sizes of batches, rising; or auto, or off."""
    try:
        sizes = sorted({int(part) for part in text.split(",")} if text.strip().lower() not in ("auto", "off") else ())
    except ValueError:
        sizes = [0]
    if sizes and not 1 <= sizes[0] <= sizes[-1] <= MAX_BATCH:
        raise ValueError(f"expected auto, off, or whole numbers from 1 to {MAX_BATCH} separated by commas")
    return ",".join(map(str, sizes)) or text.strip().lower()


def names(text: str) -> str:
    """Names, separated by commas."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ValueError("expected names separated by commas")
    return ",".join(names)


def switch(text: str) -> bool:
    """True or false, in any of the usual words."""
    if text.lower() in ("true", "1", "yes", "on", "t", "y"):
        return True
    if text.lower() in ("false", "0", "no", "off", "f", "n"):
        return False
    raise ValueError("expected true or false")
