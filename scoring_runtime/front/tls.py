"""TLS: the server's certificate, and the authorities whose clients may connect. Read again when the files change."""

import logging
import ssl
import time
from pathlib import Path

from ..errors import ConfigurationError
from ..settings import Settings, flag

logger = logging.getLogger("scoring_runtime.tls")

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secret and authenticated. Those of TLS 1.3 all are."""


class Certificates:
    """The contexts of connections. ConfigurationError when the files cannot be used at first.

    context: the one to listen with; it hands each new connection the present one.
    """

    def __init__(self, settings: Settings) -> None:
        self._paths = {
            name: path for name in ("tls_cert", "tls_key", "tls_client_ca") if (path := getattr(settings, name))
        }
        self._texts = self._read()
        self._complaint = ""
        self._present = self.context = build(self._paths, self._texts)
        self.context.sni_callback = self._choose

    def look(self) -> None:
        """Read the files again. Files that are wrong change nothing, and are told once."""
        try:
            texts = self._read()
            if texts == self._texts:
                self._complaint = ""
                return
            self._present = build(self._paths, texts)
        except ConfigurationError as error:
            if error.message != self._complaint:
                self._complaint = error.message
                logger.error("The certificates stay as they were: %s", error.message)  # noqa: TRY400 - the files are at fault
            return
        self._texts = texts
        self._complaint = ""
        logger.warning("Read the certificates again: new connections get %s.", self._paths["tls_cert"])

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called at each handshake, also where the client names no server."""
        connection.context = self._present

    def _read(self) -> dict[str, bytes]:
        texts = {}
        for name, path in self._paths.items():
            try:
                texts[name] = Path(path).read_bytes()
            except OSError as error:
                raise ConfigurationError(f"{flag(name)} {path}: cannot read it: {error.strerror}.") from None
        return texts


def load(settings: Settings) -> Certificates | None:
    """None when TLS is not asked for."""
    if settings.tls_cert:
        return Certificates(settings)
    for name in ("tls_key", "tls_client_ca"):
        if getattr(settings, name):
            raise ConfigurationError(f"{flag(name)} says nothing without a certificate. Give --tls-cert FILE, too.")
    return None


def build(paths: dict[str, str], texts: dict[str, bytes]) -> ssl.SSLContext:
    """A context of the files that were read; ConfigurationError that names the one at fault, and the cure."""
    key_name = "tls_key" if "tls_key" in paths else "tls_cert"
    _check_pem("tls_cert", b"CERTIFICATE-----", "a certificate", paths, texts)
    _check_pem(key_name, b"PRIVATE KEY-----", "a private key", paths, texts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    cert, key = paths["tls_cert"], paths[key_name]
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _EncryptedKey:
        raise ConfigurationError(
            f"{flag(key_name)} {key}: the private key is encrypted. Give one without a password: openssl pkey -in {key}"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"--tls-cert {cert} and {flag(key_name)} {key} do not belong together. "
                "The server's own certificate must come first in its file, and the key must be its key."
            ) from None
        raise ConfigurationError(
            f"--tls-cert {cert}, {flag(key_name)} {key}: not usable: {error.reason or error}. Are both whole PEM files?"
        ) from None
    except OSError as error:  # replaced this very moment
        raise ConfigurationError(
            f"--tls-cert {cert}, {flag(key_name)} {key}: cannot be read: {error.strerror}."
        ) from None
    if "tls_client_ca" in paths:
        _require_clients(context, paths, texts)
    return context


def _require_clients(context: ssl.SSLContext, paths: dict[str, str], texts: dict[str, bytes]) -> None:
    _check_pem("tls_client_ca", b"CERTIFICATE-----", "a certificate", paths, texts)
    place = f"--tls-client-ca {paths['tls_client_ca']}"
    try:
        # Comments beside the certificates may be in any language; PEM itself is ASCII.
        context.load_verify_locations(cadata=texts["tls_client_ca"].decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigurationError(f"{place}: not usable: {reason}. Is it a whole PEM file?") from None
    ends = [ssl.cert_time_to_seconds(str(authority["notAfter"])) for authority in context.get_ca_certs()]
    if ends and max(ends) < time.time():
        raise ConfigurationError(f"{place}: all its certificates have expired: no client could connect. Renew them.")
    context.verify_mode = ssl.CERT_REQUIRED
    # A session that is resumed is not checked again: it would outlive an authority that was taken away.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


class _EncryptedKey(Exception):
    """OpenSSL would ask the terminal."""


def _refuse_password() -> str:
    raise _EncryptedKey


def _check_pem(name: str, mark: bytes, what: str, paths: dict[str, str], texts: dict[str, bytes]) -> None:
    if mark not in texts[name]:
        cure = " Give it with --tls-key." if name == "tls_cert" and mark.startswith(b"PRIVATE") else ""
        raise ConfigurationError(f"{flag(name)} {paths[name]}: there is not {what} in it, in PEM form.{cure}")
