"""The gunicorn application. Its configuration comes from our settings alone: no file, no variable, no argument of its own."""

import os
import socket
import tempfile
from pathlib import Path
from typing import NoReturn

from gunicorn.app.base import BaseApplication

from ..errors import AddressError, ConfigurationError
from ..openapi import Document, read_user_documents
from ..pool import orphans
from ..pool.launch import LaunchPlan
from ..settings import Settings
from ..telemetry import insights, sink
from ..telemetry.log import ArbiterLogger
from . import tls
from .keys import KeyFile
from .tls import Certificates

HEARTBEAT_TIMEOUT_S = 30
"""A front whose loop has not turned for this long is killed and started anew."""


class BootReport:
    """Why the first start failed: written by the worker, printed by the master when all else has been said."""

    def __init__(self) -> None:
        # Inherited by the worker. In memory where that can be: /tmp may be full, or read-only.
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("scoring-runtime-report")
        else:
            descriptor, path = tempfile.mkstemp()
            Path(path).unlink()
        self._file = os.fdopen(descriptor, "w+", encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> None:
        """From the worker."""
        self._file.write(text)
        self._file.flush()

    def print(self) -> None:
        """In the master, at its very end."""
        self._file.seek(0)
        text = self._file.read()
        sink.drain(sink.LAST_WORDS_S)
        if text:
            sink.STDERR.write((text + "\n").encode("utf-8", "backslashreplace"))
            sink.drain(sink.LAST_WORDS_S)


class FrontApplication(BaseApplication):  # type: ignore[misc]
    """What gunicorn's arbiter runs: one worker of our class."""

    def __init__(
        self,
        settings: Settings,
        plan: LaunchPlan,
        own_documents: dict[str, Document],
        key_file: KeyFile | None,
        certificates: Certificates | None,
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.own_documents = own_documents
        self.key_file = key_file
        self.certificates = certificates
        self.boot_report = BootReport()
        self.heartbeat_folder = heartbeat_folder()
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        for name, value in {
            "bind": [f"{host}:{port}" for port in settings.ports],
            "workers": 1,
            "worker_class": "scoring_runtime.front.worker.FrontWorker",
            "logger_class": ArbiterLogger,
            "loglevel": settings.log_level,
            "timeout": HEARTBEAT_TIMEOUT_S,
            "graceful_timeout": int(settings.drain_grace_s + settings.drain_timeout_s + insights.FLUSH_S) + 5,
            "control_socket_disable": True,
            "proc_name": "scoring-runtime",
            "worker_tmp_dir": self.heartbeat_folder,
            "on_exit": lambda _arbiter: self.end(),
        }.items():
            self.cfg.set(name, value)

    def end(self) -> None:
        """In the master, at its very end."""
        orphans.end()
        self.boot_report.print()

    def load(self) -> None:
        """No WSGI application: the worker class is all there is."""


def run(settings: Settings, plan: LaunchPlan) -> NoReturn:
    """Serve until told to end; exits the process. StartError when it cannot begin."""
    own_documents = read_user_documents(Path(settings.app_root or "."))
    key_file = KeyFile(settings.api_keys_file) if settings.api_keys_file else None
    certificates = tls.load(settings)
    for port in settings.ports:
        check_address(settings.host, port)
    orphans.adopt()
    FrontApplication(settings, plan, own_documents, key_file, certificates).run()
    raise SystemExit(0)


def heartbeat_folder() -> str:
    """Where gunicorn makes its file of heartbeats, which holds nothing; ConfigurationError where there is no place for it.

    Memory first: a container may have a full /tmp, or none that can be written.
    """
    folders = ("/dev/shm", os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - gunicorn makes the file safely
    for folder in folders:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ConfigurationError(
        f"neither {folders[0]} nor {folders[1]} can be written: the server needs one of them for an empty file. "
        f"In a container mount memory there: --tmpfs {folders[1]}."
    )


def check_address(host: str, port: int) -> None:
    """Bind and let go: gunicorn would try for five seconds and then say less."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise AddressError(
            f"--host {host}: no such address: {error.strerror}. Use 127.0.0.1, or 0.0.0.0 for all."
        ) from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise AddressError(
                f"cannot listen on {host} port {port}: {error.strerror}. "
                "Stop what is using it, or choose another one with --port."
            ) from None
