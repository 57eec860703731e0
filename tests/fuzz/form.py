"""scorer/script: any bytes as forms, content types and queries.

- Nothing raises, and everything that comes out is text that can be written.
- A query and an urlencoded body are what the standard library reads, except for bytes that are no UTF-8.
- What is in a multipart body was in it: no field holds more than the body.
"""

from urllib.parse import parse_qsl

from scoring_runtime.scorer.script.form import MultiDict, parse_content_type, parse_multipart, parse_urlencoded

from .draw import Draw

TOKENS = (
    *(
        b"--b\r\n",
        b"--b--\r\n",
        b"\r\n--b",
        b'Content-Disposition: form-data; name="f"; filename="x"\r\n\r\n',
        b"\r\n\r\n",
    ),
    *(
        b"multipart/form-data; boundary=b",
        b"name*=utf-8''%ff",
        b"name*0*=",
        b"name*1=",
        b"; charset",
        b'"',
        b"\\",
        b"%zz",
    ),
    *(b"&", b"=", b"+", b"%C3%A9", b"%00", b"%F0%9F", b";", b"*=", b"'", b"=?utf-8?q?=41?="),
)


def seed(content_type: bytes, body: bytes) -> bytes:
    """An input for `check`."""
    return bytes([len(content_type)]) + content_type + body


SEEDS = (
    seed(b"multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--\r\n'),
    seed(
        b'multipart/form-data; boundary="b"',
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\nContent-Type: a/b\r\n\r\nx\r\n--b--',
    ),
    seed(
        b"a/b; name*=utf-8''%41; x*0=1; x*1=2",
        b"--b\r\nContent-Disposition: form-data; name*=utf-8''%ff\r\n\r\n\r\n--b--",
    ),
    seed(
        b"multipart/form-data; x*=1; x*0=2",
        b"--b\r\nContent-Disposition: form-data; name=f; x*=1; x*0=2\r\n\r\n\r\n--b--",
    ),
    seed(b"application/x-www-form-urlencoded; charset=utf-8", b"a=1&b=%C3%A9&a=+2&c&=&%ff=%fe"),
)


def check(data: bytes) -> None:
    draw = Draw(data)
    content_type = draw.piece().decode("latin-1")
    body = draw.rest()
    kind, parameters = parse_content_type(content_type)
    writable(kind, *parameters, *parameters.values())
    check_urlencoded(body)
    for boundary in {parameters.get("boundary", ""), "b"} - {""}:
        fields, files = parse_multipart(body, boundary.encode("latin-1", "replace"))
        for name, text in fields:
            writable(name, text)
            assert len(text.encode()) <= 3 * len(body)
        for name, file in files:
            writable(name, file.filename, file.mimetype, file.content_type or "")
            assert file.read() in body
        MultiDict(fields).to_dict(flat=False)


def check_urlencoded(body: bytes) -> None:
    pairs = parse_urlencoded(body)
    for name, value in pairs:
        writable(name, value)
    try:
        expected = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:  # read in another way: as text that is still percent-encoded
        return
    assert pairs == expected


def writable(*texts: str) -> None:
    for text in texts:
        assert isinstance(text, str)
        text.encode("utf-8", "surrogateescape")
