"""Engines that take minutes to build are built once and kept: who builds them, who waits, and what is done about damage.

    ROOT/KEY/       what the provider keeps there
    ROOT/KEY.json   what the key is made of; written last, so that it says that the build was finished
    ROOT/KEY.lock   held by the process that builds

Replicas share ROOT. Nothing but the key says for what an engine is good: another model, GPU, driver, version, profile or
option makes another key, and so another folder.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from scoring_runtime.scorer.loop import LoadError

from . import cache_folder

Opened = TypeVar("Opened")
Load = Callable[[Path | None], Opened]
"""Opens a model with the engines in a folder, and builds into it those that are not there. None: they are kept nowhere."""

PROGRESS_S = 5.0
WAITING_S = 10.0
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where the engines of one key lie."""

    root: Path
    key: str
    made_of: Mapping[str, Any]
    why_not_writable: str | None = None

    @property
    def folder(self) -> Path:
        """Of the engines."""
        return self.root / self.key

    @property
    def manifest(self) -> Path:
        """What they were built for."""
        return self.root / f"{self.key}.json"

    @property
    def lock_file(self) -> Path:
        """Who builds them."""
        return self.root / f"{self.key}.lock"

    def is_complete(self) -> bool:
        """A build into this folder was finished, and something of it is there."""
        return self.manifest.is_file() and self.folder.is_dir() and any(self.folder.iterdir())


def key_of(made_of: Mapping[str, Any]) -> str:
    """The name of the folder for what engines depend on."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


def find(cache_dir: Path | None, kind: str, made_of: Mapping[str, Any]) -> Place | None:
    """The place for engines that depend on `made_of`; None, and a warning, where nothing can be kept. kind: of engines."""
    cost = "engines are built at each start"
    if cache_dir is None:
        _log.warning("no cache folder is used: %s", cost)
        return None
    key, why_not_writable = key_of(made_of), None
    for path in (cache_dir, root := cache_dir / kind, root / key):
        found = cache_folder.usable(path)
        if isinstance(found, cache_folder.Unusable):
            _log.warning("the cache folder is not used: %s; until then %s", found.why, cost)
            return None
        why_not_writable = why_not_writable or found.why_not_writable
    place = Place(root, key, made_of, why_not_writable)
    if why_not_writable is not None and not place.is_complete():
        _log.warning("the cache folder is not used: %s; until then %s", why_not_writable, cost)
        return None
    return place


def open_kept(place: Place | None, load: Load[Opened], is_damage: Callable[[LoadError], bool], what: str) -> Opened:
    """Open with the engines that are kept, or build and keep them. One process builds, the others wait and then load.

    is_damage: whether an error means that what was kept cannot be read. what: "TensorRT engines for NAME".
    """
    if place is None:
        return _report(f"building {what}", lambda: load(None))
    if place.is_complete():
        try:
            return _load(place, load, what)
        except LoadError as error:
            if not is_damage(error):
                raise
            if place.why_not_writable is not None:
                _log.warning("%s are damaged, and cannot be replaced (%s): %s", what, place.why_not_writable, error)
                return _report(f"building {what}", lambda: load(None))
            _log.warning("%s are damaged: %s", what, error)
    with _turn(place, what):
        if place.is_complete():  # in the meantime, by another process, or they are the damaged ones
            try:
                return _load(place, load, what)
            except LoadError as error:
                if not is_damage(error):
                    raise
                _log.warning("%s are removed from %s and built again, once", what, place.folder)
        return _build(place, load, what)


def _load(place: Place, load: Load[Opened], what: str) -> Opened:
    return _report(f"loading {what}", lambda: load(place.folder), f" (cache: {place.folder})")


def _build(place: Place, load: Load[Opened], what: str) -> Opened:
    """Build into an empty folder: what a process that was killed left behind may be half of a file."""
    place.manifest.unlink(missing_ok=True)
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(mode=0o700, exist_ok=True)
    began = time.monotonic()
    opened = _report(f"building {what}", lambda: load(place.folder), f" (cache: {place.folder})")
    manifest = {"made_of": place.made_of, "built_s": round(time.monotonic() - began, 1)}
    unfinished = place.manifest.with_suffix(".new")
    try:
        unfinished.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        unfinished.replace(place.manifest)
    except OSError as error:  # a full disk: the engines may be halves, too
        _log.warning("%s are built again at the next start: %s: %s", what, place.manifest, error.strerror)
    return opened


@contextmanager
def _turn(place: Place, what: str) -> Iterator[None]:
    """Hold the lock of a place. While another process has it, say so every few seconds."""
    began = time.monotonic()
    while True:
        with cache_folder.lock(place.lock_file, WAITING_S) as held:
            if held:
                place.lock_file.write_text(f"pid {os.getpid()} on host {socket.gethostname()}", encoding="utf-8")
                yield
                return
        _log.info("waiting for %s to build %s: %.0f s so far", _holder(place), what, time.monotonic() - began)


def _holder(place: Place) -> str:
    try:
        return place.lock_file.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
    except OSError:
        return "another process"


def _report(doing: str, step: Callable[[], Opened], where: str = "") -> Opened:
    """Do a long step, and say every few seconds that it is going on, and at the end how long it took."""
    began = time.monotonic()
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_S):
            _log.info("%s: %.0f s so far%s", doing, time.monotonic() - began, where)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        opened = step()
    finally:
        done.set()
        teller.join()
    _log.info("%s took %.1f s%s", doing, time.monotonic() - began, where)
    return opened
