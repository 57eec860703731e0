from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring_runtime.scorer.script.form import MultiDict, parse_content_type, parse_multipart, parse_urlencoded

NO_SURROGATES = st.text(st.characters(exclude_categories=["Cs"]))
FIELD_NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\\u2028\u2029\x85'), min_size=1
)


@given(st.lists(st.tuples(NO_SURROGATES, NO_SURROGATES)))
def test_urlencoded_fields_come_back(pairs: list[tuple[str, str]]) -> None:
    assert parse_urlencoded(urlencode(pairs).encode()) == pairs


@given(st.text("ab=&+%2;é ", max_size=20))
def test_any_query_is_read_as_the_standard_library_reads_it(query: str) -> None:
    expected = parse_qsl(query, keep_blank_values=True)

    # What is no UTF-8 is read in another way: as percent-encoded text instead of replacement characters.
    if not any("\ufffd" in name + value for name, value in expected):
        assert parse_urlencoded(query.encode()) == expected


def test_bytes_that_are_not_utf8_stay_percent_encoded() -> None:
    assert parse_urlencoded(b"a=%ff%fe&%80=x%C3%A9") == [("a", "%FF%FE"), ("%80", "xé")]


@given(st.binary())
def test_any_bytes_are_a_query(query: bytes) -> None:
    for name, value in parse_urlencoded(query):
        (name + value).encode("utf-8")


def multipart(parts: list[tuple[str, str | None, bytes]], boundary: str) -> bytes:
    body = b""
    for name, filename, content in parts:
        disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
        body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n".encode()
        body += (b"" if filename is None else b"Content-Type: image/png\r\n") + b"\r\n" + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


@given(st.lists(st.tuples(FIELD_NAMES, st.none() | FIELD_NAMES, st.binary())))
def test_multipart_parts_come_back(parts: list[tuple[str, str | None, bytes]]) -> None:
    boundary = "=-=boundary-that-no-content-holds=-="
    stripped = [(name.strip(), filename and filename.strip(), content) for name, filename, content in parts]
    parts = [part for part in stripped if part[0] and part[1] != ""]

    fields, files = parse_multipart(multipart(parts, boundary), boundary.encode())

    assert fields == [(name, text.decode("utf-8", "replace")) for name, filename, text in parts if filename is None]
    assert [(name, file.filename, file.content_type, file.read()) for name, file in files] == [
        (name, filename, "image/png", content) for name, filename, content in parts if filename is not None
    ]


@given(st.binary(), st.binary(min_size=1, max_size=3))
def test_any_bytes_are_a_multipart_body(body: bytes, boundary: bytes) -> None:
    fields, files = parse_multipart(body, boundary)

    assert isinstance(fields, list)
    assert isinstance(files, list)


def test_a_file_can_be_saved_and_read_by_lines(tmp_path) -> None:
    body = multipart([("f", "a.txt", b"one\ntwo")], "b")
    ((_, file),) = parse_multipart(body, b"b")[1]

    file.save(str(tmp_path / "copy"))
    file.seek(0)

    assert (tmp_path / "copy").read_bytes() == b"one\ntwo"
    assert list(file) == [b"one\n", b"two"]
    assert file.mimetype == "image/png"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ("", {})),
        ("Application/JSON", ("application/json", {})),
        ("text/plain; Charset=utf-8", ("text/plain", {"charset": "utf-8"})),
        ('multipart/form-data; boundary="a b"', ("multipart/form-data", {"boundary": "a b"})),
        ("a/b;", ("a/b", {})),
    ],
)
def test_content_types(value: str, expected: tuple[str, dict[str, str]]) -> None:
    assert parse_content_type(value) == expected


@pytest.mark.parametrize("parameters", ["x*=1; x*0=2", "x*0*=a\0b'en'%41", "x*" + "1" * 5000 + "=2; x*0=1"])
def test_parameters_that_email_cannot_read_are_none(parameters: str) -> None:
    assert parse_content_type("multipart/form-data; " + parameters) == ("multipart/form-data", {})
    body = f"--b\r\nContent-Disposition: form-data; name=f; {parameters}\r\n\r\nx\r\n--b--".encode()
    assert parse_multipart(body, b"b") in (([], []), ([("f", "x")], []))


def test_multidict_knows_first_and_all_values() -> None:
    values = MultiDict([("a", "1"), ("b", "x"), ("a", "2")])

    assert values == {"a": "1", "b": "x"}
    assert values.getlist("a") == ["1", "2"]
    assert values.getlist("missing") == []
    assert values.get("a", type=int) == 1
    assert values.get("b", 7, int) == 7
    assert values.get("missing", 7, int) == 7
    assert values.to_dict(flat=False) == {"a": ["1", "2"], "b": ["x"]}
