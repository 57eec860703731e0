"""The streams of tests/front/smuggling.py, at a server behind a real socket."""

import http.client
import io
import json
import socket
from typing import Any

import pytest

from ..front.smuggling import NEXT, REFUSED, TAKEN

SCRIPT = """
def init(): pass
def run(data):
    with open("ran", "a") as ran:
        ran.write(data + "\\n")
    return data
"""


@pytest.fixture(scope="module")
def server(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smuggling")
    (folder / "score.py").write_text(SCRIPT)
    with serve(folder / "score.py", folder=folder) as server:
        yield server


def converse(server: Any, *pieces: bytes) -> list[tuple[int, bytes]]:
    """Send, say that this was all, and read to the end."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    stream = io.BytesIO(data)
    responses = []
    while stream.tell() < len(data):
        response = http.client.HTTPResponse(_Readable(stream), method="POST")  # type: ignore[arg-type]
        response.begin()
        responses.append((response.status, response.read(response.length)))
    return responses


class _Readable:
    """As much of a socket as http.client reads from."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Unclosed(self._stream), 1)


class _Unclosed(io.RawIOBase):
    """One response ends, its stream goes on."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_behind_it_runs(server, name):
    data, status = REFUSED[name]
    ran = server.folder / "ran"
    before = ran.read_text() if ran.exists() else ""
    ((told, body),) = converse(server, data + NEXT)
    assert told == status
    assert set(json.loads(body)) == {"message"}
    assert (ran.read_text() if ran.exists() else "") == before


LAST = NEXT.replace(b"Host: here", b"Host: here\r\nConnection: close")


@pytest.mark.parametrize("name", TAKEN)
def test_what_means_one_thing_runs_once_however_it_comes(server, name):
    data, body = TAKEN[name]
    stream = data + LAST
    for pieces in ([stream], [data, LAST], [stream[at : at + 1] for at in range(len(stream))]):
        answers = converse(server, *pieces)
        assert [(status, json.loads(answer)) for status, answer in answers] == [(200, body.decode()), (200, "next")]
