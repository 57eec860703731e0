"""Request ids, version and CORS lines, as the contract's tables say."""

import re
import uuid

import pytest

from scoring_runtime.front.contract import MAX_ID_CHARS, Contract, Cors, Identity, Ids, version_line

X, M, C = "x-request-id", "x-ms-request-id", "x-ms-client-request-id"


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in values.items()]


def answered(*pairs: tuple[str, str]) -> dict[str, str]:
    """The id headers of an answer to a request with these headers; a generated id reads GEN."""
    contract = Contract({"SERVER_VERSION_LOG_RESPONSE_ENABLED": "false"}, "")
    given = [(name.encode(), value.encode()) for name, value in pairs]
    lines = contract.complete(b"", contract.identify(given), b"POST", given, found=True).decode()
    sent = {value for _, value in pairs} | {",".join(value for _, value in pairs)}
    found = dict(line.split(": ", 1) for line in lines.split("\r\n") if line)
    return {name: value if value in sent else "GEN" for name, value in found.items()}


@pytest.mark.parametrize(
    ("request_pairs", "expected"),
    [
        ([], {X: "GEN", M: "GEN"}),
        ([(X, "A")], {X: "A", M: "A"}),
        ([(M, "B")], {X: "GEN", M: "B", C: "B"}),
        ([(C, "C")], {X: "GEN", M: "C", C: "C"}),
        ([(X, "A"), (M, "B")], {X: "A", M: "B", C: "B"}),
        ([(X, "A"), (C, "C")], {X: "A", M: "C", C: "C"}),
        ([(M, "B"), (C, "C")], {X: "GEN", M: "B", C: "C"}),
        ([(X, "A"), (M, "B"), (C, "C")], {X: "A", M: "B", C: "C"}),
        ([(X, "A-1"), (X, "A-2")], {X: "A-1,A-2", M: "A-1,A-2"}),
        ([(X, "")], {}),
        ([("X-Request-ID", "A")], {X: "A", M: "A"}),
        ([("traceid", "t")], {X: "GEN", M: "GEN", "TraceId": "t"}),
    ],
)
def test_the_matrix_of_ids(request_pairs: list[tuple[str, str]], expected: dict[str, str]) -> None:
    assert answered(*request_pairs) == expected


def test_a_long_request_id_is_refused_and_not_repeated() -> None:
    long = "a" * (MAX_ID_CHARS + 1)
    assert "x-request-id must not exceed 100 characters" in Identity(headers(x_request_id=long)).refusal
    assert answered((X, long), (C, "C")) == {}


@pytest.mark.parametrize("name", [M, C])
def test_other_long_ids_are_refused_and_only_the_request_id_is_answered(name: str) -> None:
    long = "a" * (MAX_ID_CHARS + 1)
    assert "must not exceed 100 characters" in Identity([(name.encode(), long.encode())]).refusal
    assert answered((name, long), (X, "A")) == {X: "A"}


def test_the_longest_allowed_ids_pass() -> None:
    longest = "a" * MAX_ID_CHARS
    assert answered((X, longest)) == {X: longest, M: longest}


def test_generated_ids_are_random_uuids_and_never_repeat() -> None:
    ids = Ids()
    taken = [ids.next().decode() for _ in range(5000)]
    assert len(set(taken)) == len(taken)
    assert {uuid.UUID(text).version for text in taken} == {4}
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) for text in taken)
    assert Ids().next() != Ids().next()


def test_the_stem_of_ids_is_renewed() -> None:
    ids = Ids()
    ids.RENEW_AFTER = 10
    taken = [ids.next() for _ in range(25)]
    assert len({text[:23] for text in taken}) == 3


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({}, b"x-ms-server-version: azmlinfsrv/1.5.1\r\n"),
        ({"SERVER_VERSION_LOG_RESPONSE_ENABLED": "TRUE"}, b"x-ms-server-version: azmlinfsrv/1.5.1\r\n"),
        ({"SERVER_VERSION_LOG_RESPONSE_ENABLED": "false"}, b""),
        ({"SERVER_VERSION_LOG_RESPONSE_ENABLED": "notgood"}, b""),
        (
            {"SERVER_VERSION_LOG_RESPONSE_ENABLED": "false", "HTTP_X_MS_SERVER_VERSION": "mine/1"},
            b"x-ms-server-version: mine/1\r\n",
        ),
    ],
)
def test_the_version_line_is_as_the_environment_wishes(environ: dict[str, str], line: bytes) -> None:
    assert version_line(environ) == line


def cors(origins: str, method: str = "POST", **sent: str) -> dict[str, str]:
    lines = Cors(origins).lines(method.encode(), headers(**sent)).decode()
    return dict(line.split(": ", 1) for line in lines.split("\r\n") if line)


ALLOW = "Access-Control-Allow-Origin"


@pytest.mark.parametrize(
    ("origins", "origin", "expected"),
    [
        ("www.microsoft.com", "www.microsoft.com", {ALLOW: "www.microsoft.com"}),
        ("www.microsoft.com", "WWW.microsoft.com", {ALLOW: "WWW.microsoft.com"}),
        ("www.microsoft.com", "www.bing.com", {}),
        ("a.com, b.com", "b.com", {ALLOW: "b.com", "Vary": "Origin"}),
        ("*", "www.bing.com", {ALLOW: "www.bing.com", "Vary": "Origin"}),
        (r"http://.*\.com", "http://x.com", {ALLOW: "http://x.com", "Vary": "Origin"}),
        (r"http://.*\.com", "http://x.org", {}),
    ],
)
def test_an_origin_is_echoed_when_it_is_listed(origins: str, origin: str, expected: dict[str, str]) -> None:
    assert cors(origins, origin=origin) == expected


@pytest.mark.parametrize(
    ("origins", "expected"),
    [("*", {ALLOW: "*"}), ("b.com, a.com", {ALLOW: "a.com", "Vary": "Origin"}), (r"http://.*\.com", {})],
)
def test_without_an_origin_the_first_listed_one_is_named(origins: str, expected: dict[str, str]) -> None:
    assert cors(origins) == expected


def test_a_preflight_is_told_methods_and_headers() -> None:
    answer = cors(
        "a.com",
        "OPTIONS",
        origin="a.com",
        access_control_request_method="POST",
        access_control_request_headers="content-type, x-a",
    )
    assert answer["Access-Control-Allow-Methods"] == "GET, POST"
    assert answer["Access-Control-Allow-Headers"] == "content-type, x-a"
    assert "Access-Control-Allow-Methods" not in cors(
        "a.com", "OPTIONS", origin="a.com", access_control_request_method="PUT"
    )
