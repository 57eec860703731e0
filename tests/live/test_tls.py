"""HTTPS as clients see it, with certificates made here."""

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from .certificates import Authority
from .conftest import Server, until

SCHEME = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp

def init(): pass

@rawhttp
def run(request):
    return request.url + " " + "x" * len(request.data)
"""


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def trusting(authority: Authority, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context(cafile=str(authority.pem))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def ask(server: Server, context: ssl.SSLContext, target: str = "/livez") -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=context)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def subject(server: Server, context: ssl.SSLContext) -> str:
    """The name in the certificate that the server shows; empty where there is no handshake."""
    try:
        with (
            socket.create_connection(("127.0.0.1", server.port), 60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            found: Any = secured.getpeercert()
            secured.sendall(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = secured.recv(100)  # TLS 1.3: only now is the client's checked
            assert not answer or answer.startswith(b"HTTP/1.1 200 ")
            return str(found["subject"][0][0][1]) if answer else ""
    except (ssl.SSLError, ConnectionError):
        return ""


@contextmanager
def serving(serve: Any, target: Any, certificate: tuple[Path, Path], context: ssl.SSLContext, *flags: str) -> Any:
    """A server of HTTPS that is ready for a client of this context."""
    files = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with serve(target, *files, *flags, ready=False) as server:

        def ready() -> bool:
            assert server.process.poll() is None, server.log
            with suppress(ConnectionError):
                return ask(server, context, "/readyz")[0] == 200
            return False

        until(ready, "/readyz over TLS")
        yield server


def test_requests_and_large_bodies_over_tls(serve, script, authority):
    context = trusting(authority)
    with serving(serve, script(SCHEME), authority.sign("server"), context) as server:
        url = f"https://127.0.0.1:{server.port}/score"
        with httpx.Client(verify=context, timeout=60) as client:
            for size in (1, 5, 3_000_000, 2):
                response = client.post(url, content=b"x" * size)
                assert response.status_code == 200, response.text
                assert response.json() == f"{url} " + "x" * size  # the scheme that user code sees
        assert f"Ready on https://127.0.0.1:{server.port}/score" in server.log


def test_curl_and_its_view_of_the_protocol(serve, script, authority):
    if shutil.which("curl") is None:
        raise AssertionError("curl is missing: make apt")
    with serving(serve, script(SCHEME), authority.sign("server"), trusting(authority)) as server:
        told = subprocess.run(
            ["curl", "-sS", "-v", "--cacert", authority.pem, "-H", "Content-Type: text/plain", "-d", "abc", f"https://127.0.0.1:{server.port}/score"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(told.stdout).endswith(" xxx")
        assert "TLSv1.3" in told.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_must_show_a_certificate_of_the_authority(serve, script, authority, tmp_path, version):
    stranger = Authority(tmp_path, "stranger")
    good, bad = authority.sign("client"), stranger.sign("impostor")
    contexts = [trusting(authority, certificate) for certificate in (good, None, bad)]
    for context in contexts:
        context.maximum_version = version
    clients = tmp_path / "clients.pem"
    clients.write_bytes("# Autorit\u00e9\n".encode() + authority.pem.read_bytes())  # a comment in any language
    with serving(
        serve, script(SCHEME), authority.sign("server"), contexts[0], "--tls-client-ca", str(clients)
    ) as server:
        assert [subject(server, context) for context in contexts] == ["server", "", ""]


def test_changed_files_hold_for_new_connections_and_wrong_ones_for_none(serve, script, authority, tmp_path):
    other = Authority(tmp_path, "other")
    certificate, trusted = authority.sign("server"), tmp_path / "trusted.pem"
    shutil.copy(authority.pem, trusted)
    old_client, new_client = (trusting(authority, by.sign(f"client-of-{by.pem.stem}")) for by in (authority, other))
    with serving(serve, script(SCHEME), certificate, old_client, "--tls-client-ca", str(trusted)) as server:
        kept = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=old_client)
        kept.request("GET", "/livez")
        assert kept.getresponse().read() == b"Healthy"

        shutil.copy(other.pem, trusted)
        until(lambda: subject(server, new_client) == "server", "the new authority")
        assert subject(server, old_client) == ""
        kept.request("GET", "/livez")
        assert kept.getresponse().read() == b"Healthy"
        kept.close()

        renewed = authority.sign("renewed")
        certificate[0].write_bytes(renewed[0].read_bytes())  # for a while it is not of the key
        until(lambda: "do not belong together" in server.log, "the complaint")
        assert subject(server, new_client) == "server"
        certificate[1].write_bytes(renewed[1].read_bytes())
        until(lambda: subject(server, new_client) == "renewed", "the renewed certificate")


def test_what_is_no_tls_and_what_is_old_is_turned_away(serve, script, authority):
    context = trusting(authority)
    with serving(serve, script(SCHEME), authority.sign("server"), context) as server:
        with socket.create_connection(("127.0.0.1", server.port), 60) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert b"HTTP" not in receive_all(plain)
        old = trusting(authority)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        assert subject(server, old) == ""
        weak = trusting(authority)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-SHA:AES256-SHA")
        assert subject(server, weak) == ""
        assert ask(server, context)[1] == b"Healthy"


def test_a_handshake_that_stalls_is_ended_and_harms_nobody(serve, script, authority):
    context = trusting(authority)
    flags = ("--head-timeout-s", "1")
    with serving(serve, script(SCHEME), authority.sign("server"), context, *flags) as server:
        stalled = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(50)]
        for index, connection in enumerate(stalled):
            connection.sendall(b"\x16\x03\x01\x02\x00"[: index % 6])
        assert ask(server, context)[1] == b"Healthy"
        began = time.monotonic()
        for connection in stalled:
            receive_all(connection)
            connection.close()
        assert time.monotonic() - began < 30
        assert ask(server, context)[1] == b"Healthy"


@pytest.mark.parametrize("line", ["", "Connection: close\r\n"], ids=["keep-alive", "close"])
def test_an_answer_that_is_read_slowly_comes_whole(serve, script, authority, line):
    size = 16_000_000
    target = script(f"def init(): pass\ndef run(data): return 'x' * {size}")
    context = trusting(authority)
    flags = ("--body-timeout-s", "1", "--keepalive-timeout-s", "1")
    with (
        serving(serve, target, authority.sign("server"), context, *flags) as server,
        socket.socket() as plain,
    ):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        plain.settimeout(60)
        plain.connect(("127.0.0.1", server.port))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(f"GET /score HTTP/1.1\r\nHost: here\r\n{line}\r\n".encode())
            began, received = time.monotonic(), 0
            while received < size and (piece := client.recv(1 << 14)):
                received += len(piece)
                time.sleep(max(0.0, began + received / 4e6 - time.monotonic()))  # 4 s: longer than each of the timeouts
            assert received >= size
            assert "not read" not in server.log


def receive_all(connection: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


# Files that cannot be used


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("no file", "--tls-cert .*No such file"),
        ("no key", "--tls-cert .*not a private key.*--tls-key"),
        ("another key", "do not belong together"),
        ("a locked key", "--tls-key .*encrypted"),
        ("no PEM", "--tls-cert .*not a certificate"),
        ("half a file", "not usable"),
        ("no authority", "--tls-client-ca .*not a certificate"),
        ("an old authority", "--tls-client-ca .*expired"),
        ("only an authority", "--tls-client-ca says nothing without"),
        ("only a key", "--tls-key says nothing without"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_by_name(command, script, authority, tmp_path, wrong, complaint):
    cert, key = authority.sign("server")
    text = tmp_path / "text"
    text.write_text("nothing of use")
    half = tmp_path / "half"
    half.write_bytes(cert.read_bytes()[:200])
    old = [Authority(tmp_path, "old", days=-1).pem]
    flags = {
        "no file": ["--tls-cert", tmp_path / "missing"],
        "no key": ["--tls-cert", cert],
        "another key": ["--tls-cert", cert, "--tls-key", authority.sign("other")[1]],
        "a locked key": ["--tls-cert", cert, "--tls-key", authority.sign("locked", b"secret")[1]],
        "no PEM": ["--tls-cert", text, "--tls-key", key],
        "half a file": ["--tls-cert", half, "--tls-key", key],
        "no authority": ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", text],
        "an old authority": ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", *old],
        "only an authority": ["--tls-client-ca", authority.pem],
        "only a key": ["--tls-key", key],
    }[wrong]
    ended = command("serve", script(SCHEME), *flags)
    assert ended.code == 3
    assert re.search(complaint, ended.last_line), ended.output
