"""What answers say of the server, as far as it was switched on."""

from typing import Any

import pytest

from scoring_runtime.scorer.frames import FLAG_MORE

SCRIPT = {"engine": "script"}
REQUEST = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\nx"
SECURITY = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
STRICT = "strict-transport-security"


def answers(front: Any) -> list[Any]:
    """Of the quick way, of the long one, of a stream, of a refusal, and of bytes that are no HTTP."""
    plain = front.ask(REQUEST).response()
    streamed = front.connect().send(REQUEST)
    (exchange,) = front.taken
    own = b"Cache-Control: public\nX-Own: yes"
    front.piece(exchange, b"piece", FLAG_MORE, head=own)
    front.piece(exchange, b"", 0)
    front.reply(exchange)
    long = front.connect().send(REQUEST)
    front.reply(front.taken[0], head=own)
    unknown = front.connect().send(b"GET /nowhere HTTP/1.1\r\n\r\n")
    broken = front.connect().send(b"nonsense\r\n\r\n")
    return [plain, streamed.response(), long.response(), unknown.response(), broken.response()]


@pytest.mark.parametrize("hello", [{}, SCRIPT])
def test_by_default_answers_are_those_of_the_incumbent(make_front, hello):
    for response in answers(make_front(hello=hello)):
        assert response.headers["server"] == "scoring-runtime"
        assert ("x-ms-server-version" in response.headers) == (hello == SCRIPT)
        assert not {*SECURITY, STRICT} & set(response.headers) - {"cache-control"}


@pytest.mark.parametrize("hello", [{}, SCRIPT])
def test_no_answer_names_the_server_when_it_must_not(make_front, hello):
    for response in answers(make_front(hello=hello, server_identity=False)):
        assert "server" not in response.headers
        assert "x-ms-server-version" not in response.headers
        assert not any("scoring-runtime" in value or "azmlinfsrv" in value for value in response.headers.values())


@pytest.mark.parametrize("hello", [{}, SCRIPT])
@pytest.mark.parametrize("tls", [None, "cert.pem"])
def test_every_answer_carries_the_security_headers_once(make_front, hello, tls):
    for response in answers(make_front(hello=hello, security_headers=True, tls_cert=tls)):  # fails on a name twice
        assert SECURITY.items() <= response.headers.items()
        assert (STRICT in response.headers) == (tls is not None)


def test_a_script_keeps_its_own_other_headers(make_front):
    assert [response.headers.get("x-own") for response in answers(make_front(security_headers=True))[:3]] == [
        None,
        "yes",
        "yes",
    ]
