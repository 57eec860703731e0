"""What a request looks like to user code: query values, headers, and the request object of raw mode.

The front sends the request target and, where run() needs them, the header lines; before those stand two lines of its own,
`:remote-addr:` and `:scheme:`, which user code never sees.
"""

import io
import json
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, TypeVar
from urllib.parse import unquote_to_bytes

from ..frames import Blob
from . import form
from .form import MultiDict

_Function = TypeVar("_Function", bound=Callable[..., Any])

raw_http = False
"""Whether anything was decorated with @rawhttp: then run() gets request objects (contract §4.5)."""


def rawhttp(function: _Function) -> _Function:
    """Decorator of user code: run() is to get the request itself. The function is returned as it is."""
    global raw_http
    raw_http = True
    return function


class BadRequestError(Exception):
    """The request object cannot give what user code asked for."""


class Headers:
    """Header lines in their order, to be looked up in any case. A name may come more than once."""

    def __init__(self, pairs: Any = ()) -> None:
        self._pairs: List[Tuple[str, str]] = []
        self.extend(pairs)

    def getlist(self, name: str) -> List[str]:
        name = name.lower()
        return [value for known, value in self._pairs if known.lower() == name]

    get_all = getlist

    def get(self, name: str, default: Any = None, type: Optional[Callable[[str], Any]] = None) -> Any:  # noqa: A002
        """The first value; `default` when there is none, or `type` refuses it."""
        values = self.getlist(name)
        if not values or type is None:
            return values[0] if values else default
        try:
            return type(values[0])
        except (ValueError, TypeError):
            return default

    def add(self, name: str, value: str) -> None:
        """One more line; ValueError when the value would be more than that."""
        if "\n" in value or "\r" in value:
            raise ValueError("the value of header %s must be text without line breaks, not %r" % (name, value))
        self._pairs.append((name, value))

    def extend(self, pairs: Any) -> None:
        for name, value in pairs.items() if hasattr(pairs, "items") else pairs:
            self.add(name, value)

    def set(self, name: str, value: str) -> None:
        """Put one value in the place of all that there are."""
        self.remove(name)
        self.add(name, value)

    def setdefault(self, name: str, value: str) -> str:
        if name not in self:
            self.add(name, value)
        return self[name]

    def pop(self, name: str, *default: Any) -> Any:
        """Take the first value out, and all others with it."""
        values = self.getlist(name)
        if not values and not default:
            raise KeyError(name)
        self.remove(name)
        return values[0] if values else default[0]

    def remove(self, name: str) -> None:
        name = name.lower()
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != name]

    def items(self) -> List[Tuple[str, str]]:
        return list(self._pairs)

    def keys(self) -> List[str]:
        return [name for name, _ in self._pairs]

    def values(self) -> List[str]:
        return [value for _, value in self._pairs]

    def __getitem__(self, name: str) -> str:
        values = self.getlist(name)
        if not values:
            raise KeyError(name)
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        self.remove(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.getlist(name))

    def __iter__(self) -> Iterator[Tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return "Headers(%r)" % self._pairs


_TRUSTED_PEERS = ("127.0.0.1", "::1")
_SECURE = {"x-forwarded-proto": "https", "x-forwarded-protocol": "ssl", "x-forwarded-ssl": "on"}


class Head:
    """The head of a request as the front sent it."""

    def __init__(self, head: bytes) -> None:
        self.target, _, lines = head.decode("latin-1").partition("\n")
        self.remote_addr = ""
        self._scheme = "http"
        self.lines: List[Tuple[str, str]] = []
        for line in lines.split("\n") if lines else ():
            if line.startswith(":remote-addr:"):
                self.remote_addr = line[13:].strip()
            elif line.startswith(":scheme:"):
                self._scheme = line[8:].strip()
            else:
                name, _, value = line.partition(":")
                self.lines.append((name, value.strip()))

    @property
    def scheme(self) -> str:
        """HTTP or HTTPS, in lower case; a proxy on this machine is believed (contract §11 on §4.5)."""
        if self.remote_addr in _TRUSTED_PEERS:
            for name, value in self.lines:
                if _SECURE.get(name.lower()) == value.lower():
                    return "https"
        return self._scheme

    @property
    def path_and_query(self) -> Tuple[str, str]:
        """Both as they were sent; without the authority of a target in absolute form, and without a fragment."""
        target = self.target.partition("#")[0]
        if not target.startswith("/") and "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        return path, query

    def get(self, name: str) -> str:
        """The last value of a header, else an empty text. `name` is in lower case."""
        for known, value in reversed(self.lines):
            if known.lower() == name:
                return value
        return ""

    def header_items(self) -> Dict[str, str]:
        """The headers as run() gets them: title-cased, repeated ones joined, those with "_" dropped (contract §4.2)."""
        headers: Dict[str, str] = {}
        for name, value in self.lines:
            title = name.title()
            if "_" in name or (title in ("Content-Type", "Content-Length") and not value):
                continue
            single = title in ("Content-Type", "Content-Length")
            headers[title] = headers[title] + "," + value if title in headers and not single else value
        return headers


def query_values(head: Head) -> Dict[str, Any]:
    """The query as values: each is JSON if it can be, else text; a name that comes twice has a list (contract §2.2)."""
    lists: Dict[str, List[Any]] = {}
    for name, text in form.parse_urlencoded(head.path_and_query[1].encode("latin-1")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        lists.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in lists.items()}


def is_json(mimetype: str) -> bool:
    """Whether a content type, in lower case and without parameters, says JSON."""
    return mimetype == "application/json" or (mimetype.startswith("application/") and mimetype.endswith("+json"))


def wsgi_environ(method: str, head: Head, body: Blob) -> Dict[str, Any]:
    """The request as WSGI says it, for Flask's request class."""
    path, query = head.path_and_query
    host, _, port = head.get("host").rpartition(":")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": head.target,
        "REQUEST_URI": head.target,
        "SERVER_NAME": host or head.get("host") or "localhost",
        "SERVER_PORT": port if port.isdigit() else "443" if head.scheme == "https" else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": head.remote_addr,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": head.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,  # it ends where the body ends, a Content-Length or not
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }  # type: Dict[str, Any]
    for title, value in head.header_items().items():
        name = title.upper().replace("-", "_")
        environ[name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + name] = value
    return environ


class Request:
    """The request that run() gets in raw mode where the user's environment has no Flask: the same names, plain values."""

    def __init__(self, method: str, head: Head, body: Blob) -> None:
        self.method = method
        self.headers = Headers(head.header_items())
        self.remote_addr = head.remote_addr
        self.scheme = head.scheme
        raw_path, query = head.path_and_query
        self.path = "/" + unquote_to_bytes(raw_path).decode("utf-8", "replace").lstrip("/")
        self.query_string = query.encode("latin-1")
        self.args = MultiDict(form.parse_urlencoded(self.query_string))
        self.content_type = self.headers.get("content-type")
        self.mimetype, self.mimetype_params = form.parse_content_type(self.content_type or "")
        self.content_length = self.headers.get("content-length", type=int)
        self._body = bytes(body)
        self.stream = io.BytesIO(self._body)  # shares its memory
        self._parsed: Optional[Tuple[MultiDict, MultiDict]] = None

    @property
    def data(self) -> bytes:
        """The body; empty when it is a form, whose fields are in `form` and `files`."""
        return b"" if self.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data") else self._body

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """The body, whatever it is."""
        data = self.data if parse_form_data else self._body
        return data.decode("utf-8", "replace") if as_text else data

    @property
    def is_json(self) -> bool:
        return is_json(self.mimetype)

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body as JSON. When it is none, or its content type does not say so: BadRequestError, or None if silent."""
        try:
            if not (force or self.is_json):
                raise BadRequestError("the content type is %r, not application/json" % (self.content_type or ""))
            return json.loads(self._body.decode(json.detect_encoding(self._body), "surrogatepass"))
        except (ValueError, BadRequestError) as error:
            if silent:
                return None
            raise BadRequestError("the body is not JSON: %s" % error) from error

    @property
    def form(self) -> MultiDict:
        return self._parse_form()[0]

    @property
    def files(self) -> MultiDict:
        return self._parse_form()[1]

    @property
    def values(self) -> MultiDict:
        return MultiDict(pair for part in (self.args, self.form) for key in part for pair in _pairs(key, part))

    @property
    def cookies(self) -> Dict[str, str]:
        pairs = (part.partition("=") for part in reversed(self.headers.get("cookie", "").split(";")))  # the first wins
        return {name.strip(): value.strip().strip('"') for name, _, value in pairs if name.strip()}

    @property
    def host(self) -> str:
        return str(self.headers.get("host", ""))

    @property
    def host_url(self) -> str:
        return "%s://%s/" % (self.scheme, self.host)

    url_root = host_url

    @property
    def base_url(self) -> str:
        return self.host_url + self.path.lstrip("/")

    @property
    def full_path(self) -> str:
        return self.path + "?" + self.query_string.decode("utf-8", "replace")

    @property
    def url(self) -> str:
        return self.base_url + ("?" + self.query_string.decode("utf-8", "replace") if self.query_string else "")

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    def _parse_form(self) -> Tuple[MultiDict, MultiDict]:
        if self._parsed is None:
            fields = []  # type: form.Pairs
            files: List[Tuple[str, form.FileStorage]] = []
            if self.mimetype == "application/x-www-form-urlencoded":
                fields = form.parse_urlencoded(self._body) if _is_utf8(self._body) else []
            elif self.mimetype == "multipart/form-data" and self.mimetype_params.get("boundary"):
                boundary = self.mimetype_params["boundary"].encode("latin-1", "replace")
                fields, files = form.parse_multipart(self._body, boundary)
            self._parsed = MultiDict(fields), MultiDict(files)
        return self._parsed


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _pairs(key: str, values: MultiDict) -> List[Tuple[str, Any]]:
    return [(key, value) for value in values.getlist(key)]
