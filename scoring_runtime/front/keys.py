"""API keys: who may call. A file of hashed keys, read again when it changes.

Keys are long and random, so one round of SHA-256 hides them: there is nothing to guess. The server has a key itself only in
the heads that it reads, and in those that it knows again.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ConfigurationError, Unauthorized

logger = logging.getLogger("scoring_runtime.keys")

MAX_FILE_BYTES = 1 << 20
_LINE = re.compile(r"([A-Za-z0-9._@-]{1,100})\s+sha256:([0-9a-fA-F]{64})")
_SCHEME = b"bearer "

Headers = Sequence[tuple[bytes, bytes]]


def digest(key: bytes) -> bytes:
    """What stands in the file for a key."""
    return hashlib.sha256(key).digest()


def make(name: str) -> tuple[str, str]:
    """A new key, and its line for the file. ConfigurationError for a name that the file cannot hold."""
    key = secrets.token_urlsafe(32)
    line = f"{name} sha256:{digest(key.encode()).hex()}"
    if not _LINE.fullmatch(line):
        raise ConfigurationError(
            f"{name!r} is no name for a key. Use up to 100 letters, digits and . _ @ -", exit_code=1
        )
    return key, line


def parse(text: str, path: str) -> tuple[bytes, ...]:
    """The digests in the text of a key file; ConfigurationError that says which line of `path` is wrong.

    A file without a key is wrong as well: a half-written one must not lock everybody out.
    """
    digests: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()  # noqa: PLW2901 - the line without its margins
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:  # the line is not shown: somebody may have put a key there
            raise ConfigurationError(
                f"{path}, line {number}: expected `NAME sha256:` and 64 hexadecimal digits. "
                "`scoring-runtime new-key NAME` writes such a line."
            )
        if match[1] in digests:
            raise ConfigurationError(f"{path}, line {number}: there are two keys named {match[1]}. Rename one.")
        digests[match[1]] = bytes.fromhex(match[2])
    if not digests:
        raise ConfigurationError(f"{path} holds no key. `scoring-runtime new-key NAME` makes one.")
    return tuple(digests.values())


def admits(digests: Iterable[bytes], headers: Headers) -> bool:
    """Whether a head carries one of the keys. All are compared, so that time tells nothing."""
    given = [value for name, value in headers if len(name) == 13 and name.lower() == b"authorization"]
    if len(given) != 1 or given[0][: len(_SCHEME)].lower() != _SCHEME:
        return False
    shown = digest(given[0][len(_SCHEME) :].strip(b" \t"))
    found = False
    for known in digests:
        found |= hmac.compare_digest(shown, known)
    return found


def without_key(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers as everybody behind the check sees them: the log, telemetry, user code."""
    return [header for header in headers if len(header[0]) != 13 or header[0].lower() != b"authorization"]


def refusal() -> Unauthorized:
    """The same, whatever is missing or wrong. A new one each time: an exception keeps all that it was raised through."""
    return Unauthorized("This server needs an API key. Send a valid one: `Authorization: Bearer KEY`.")


class KeyFile:
    """The keys of a file as it last was when it was right. ConfigurationError when it is wrong at first."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._text = self._read()
        self._complaint = ""
        self.digests = parse(self._text, path)

    def look(self) -> bool:
        """Read the file again; whether the keys are others now. A file that is wrong changes nothing, and is told once."""
        try:
            text = self._read()
            if text == self._text:
                self._settled()
                return False
            digests = parse(text, str(self._path))
        except ConfigurationError as error:
            if error.message != self._complaint:
                self._complaint = error.message
                logger.error("The API keys stay as they were: %s", error.message)  # noqa: TRY400 - no traceback: the file is at fault
            return False
        self._text = text
        self._settled()
        changed = digests != self.digests
        self.digests = digests
        logger.warning("Read %s again: there are %d API keys.", self._path, len(digests))
        return changed

    def _settled(self) -> None:
        if self._complaint:
            self._complaint = ""
            logger.warning("%s is right again.", self._path)

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise ConfigurationError(f"{self._path} is larger than {MAX_FILE_BYTES} bytes: it is no file of keys.")
            return data.decode("utf-8")
        except OSError as error:
            raise ConfigurationError(f"{self._path}: cannot read the API keys: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{self._path}: the file of API keys is not UTF-8.") from None
