"""`scoring-runtime health`: whether the server on this machine answers, for the health check of a container."""

import http.client
import socket
import ssl

from .settings import Settings

TIMEOUT_S = 2.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def why_not(settings: Settings) -> str | None:
    """Why the server that has these settings does not answer `GET /livez`; None when it does.

    With certificates of clients required only the handshake can be tried: a server that asks for one is alive.
    """
    host = _ANYWHERE.get(settings.host, settings.host)
    port = settings.health_port or settings.port
    try:
        if settings.tls_client_ca is not None:
            with socket.create_connection((host, port), TIMEOUT_S):
                return None
        return _ask(host, port, tls=settings.tls_cert is not None)
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port} does not answer: {str(error) or type(error).__name__}"


def _ask(host: str, port: int, *, tls: bool) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # it is asked whether it lives, not who it is
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
        return None if status == 200 else f"{host}:{port} answers {status}"
    finally:
        connection.close()
