"""Form bodies: urlencoded and multipart, as names with values. Pure.

Names keep their order and may come more than once. What cannot be read as a form is an empty form.
"""

import codecs
import io
import shutil
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any, BinaryIO, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union
from urllib.parse import unquote_to_bytes

Pairs = List[Tuple[str, str]]


class MultiDict(Dict[str, Any]):
    """A dict of the first value of each name, which knows the others too."""

    def __init__(self, pairs: Iterable[Tuple[str, Any]] = ()) -> None:
        super().__init__()
        self._lists: Dict[str, List[Any]] = {}
        for name, value in pairs:
            self.setdefault(name, value)
            self._lists.setdefault(name, []).append(value)

    def get(self, key: str, default: Any = None, type: Optional[Callable[[Any], Any]] = None) -> Any:  # noqa: A002
        """The first value; `default` when there is none, or `type` refuses it."""
        value = super().get(key, default)
        if type is None or key not in self:
            return value
        try:
            return type(value)
        except (ValueError, TypeError):
            return default

    def getlist(self, key: str) -> List[Any]:
        return list(self._lists.get(key, ()))

    def lists(self) -> Iterator[Tuple[str, List[Any]]]:
        for key in self:
            yield key, self.getlist(key)

    def to_dict(self, flat: bool = True) -> Dict[str, Any]:
        return dict(self) if flat else dict(self.lists())


class FileStorage:
    """An uploaded file."""

    def __init__(self, content: bytes, name: str, filename: str, content_type: Optional[str]) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.mimetype = (content_type or "").partition(";")[0].strip().lower()
        self.stream = io.BytesIO(content)
        self.read = self.stream.read
        self.readline = self.stream.readline
        self.seek = self.stream.seek
        self.tell = self.stream.tell

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stream)

    def save(self, dst: Union[str, BinaryIO], buffer_size: int = 16384) -> None:
        """Copy what was not read yet into a file or to a path."""
        if hasattr(dst, "write"):
            shutil.copyfileobj(self.stream, dst, buffer_size)
            return
        with open(dst, "wb") as file:
            shutil.copyfileobj(self.stream, file, buffer_size)


def _percent_again(error: UnicodeError) -> Tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join("%%%02X" % byte for byte in error.object[error.start : error.end]), error.end


# Bytes that are no UTF-8 come out percent-encoded, as they went in (contract §11 on §2.2).
codecs.register_error("_scoring_runtime.percent", _percent_again)


def parse_urlencoded(data: bytes) -> Pairs:
    """The fields of a query or of an urlencoded body; a name without value has an empty one."""
    return [
        (_unquote(name), _unquote(value))
        for name, _, value in (field.partition(b"=") for field in data.split(b"&") if field)
    ]


def _unquote(data: bytes) -> str:
    return unquote_to_bytes(data.replace(b"+", b" ")).decode("utf-8", "_scoring_runtime.percent")


def parse_multipart(body: bytes, boundary: bytes) -> Tuple[Pairs, List[Tuple[str, FileStorage]]]:
    """The text fields and the files of a multipart/form-data body; none of them when its end is missing."""
    fields: Pairs = []
    files: List[Tuple[str, FileStorage]] = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        if part.startswith(b"--"):
            return fields, files
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            continue
        message = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip():
                message[name.strip()] = value.strip()
        field = _parameter(message, "name")
        filename = _parameter(message, "filename")
        if field is None:
            continue
        if filename is None:
            fields.append((field, content.decode("utf-8", "replace")))
        else:
            files.append((field, FileStorage(content, field, filename, message.get("content-type"))))
    return [], []


def parse_content_type(value: str) -> Tuple[str, Dict[str, str]]:
    """The type in lower case, and its parameters."""
    kind, _, rest = value.partition(";")
    if not rest:
        return kind.strip().lower(), {}
    message = Message()
    message["content-type"] = value
    try:
        parameters = message.get_params([])
        return kind.strip().lower(), {str(name).lower(): collapse_rfc2231_value(text) for name, text in parameters[1:]}
    except _UNREADABLE:
        return kind.strip().lower(), {}


def _parameter(message: Message, name: str) -> Optional[str]:
    try:
        value = message.get_param(name, None, "content-disposition")
        return None if value is None else collapse_rfc2231_value(value)
    except _UNREADABLE:
        return None


_UNREADABLE = (TypeError, ValueError, LookupError)
"""What email raises for parameters that contradict each other (`x*=1; x*0=2`), or name no character set."""
