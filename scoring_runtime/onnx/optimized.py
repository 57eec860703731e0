"""Optimised models, kept for the next start.

ONNX Runtime rewrites a model's graph each time it loads it. What came out is kept as

    KEY.onnx    the optimised model
    KEY.json    of what it was made, its checksum, and what it brought; or why nothing was kept

where KEY is a hash of the model's bytes and of all that the rewriting depends on. To hash a file takes as long as to
optimise many a model, so a file that is as it was when it was hashed (inode, size, times) is not hashed again. There is
one writer at a time, a file appears under its name when it is whole, and what does not fit its checksum is removed.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from . import cache_folder

FORMAT = "1"
"""Of this folder's files: what an older server has kept is not read."""

MIN_LOAD_MS = 25.0
"""A model that loads faster is not looked at: nothing would come of it."""
MIN_SAVED_MS = 15.0
MIN_SAVED_PART = 0.25
"""What is kept must have saved both, when it was loaded right after it was written."""
MAX_MODEL_BYTES = 128 << 20
"""In larger ones it is the weights that take the time: 346 MB in 431 ms, optimised in 471."""
MAX_GROWTH = 2.0
"""Folded constants can make a file four times as large, which from a disk takes longer to read than is saved."""
MAX_FOLDER_BYTES = 1 << 30
MAX_RECORDS = 64
"""Of all entries, and of all records; those that were used last stay."""

_RECENT_NS = 2_000_000_000
_NAME_LENGTH = 40
_log = logging.getLogger(__name__)


class Loaded(Protocol):
    """What `load` returns."""

    @property
    def self_contained(self) -> bool:
        """The model's file holds all of it."""


LoadedT_co = TypeVar("LoadedT_co", bound=Loaded, covariant=True)


class Load(Protocol[LoadedT_co]):
    """Loads a model; raises what it likes when it cannot."""

    def __call__(self, path: Path, *, optimize: bool = True, write_to: Path | None = None) -> LoadedT_co: ...


@dataclass(frozen=True)
class Place:
    """Where entries are kept, and for whom."""

    folder: Path
    is_named: bool
    """Somebody asked for this folder, and is told when it cannot be used."""
    conditions: Mapping[str, str]
    """All but the model's bytes that the optimised model depends on."""


def load_through(place: Place, model: Path, load: "Load[LoadedT_co]") -> tuple[LoadedT_co, str]:
    """Load `model`, from the cache where it is there, and keep it there where that pays.

    Also says which: "hit", "stored", or "off: REASON". Raises what `load` raises of the model itself.
    """
    if _size_bytes(model) > MAX_MODEL_BYTES:
        return load(model), f"off: the model is larger than {MAX_MODEL_BYTES >> 20} MiB"
    folder = cache_folder.usable(place.folder)
    if isinstance(folder, cache_folder.Unusable):
        if folder.is_unsafe or place.is_named:
            _log.warning("no optimised models are kept: %s", folder.why)
        else:
            _log.debug("no optimised models are kept: %s", folder.why)
        return load(model), f"off: {folder.why}"
    shelf = _Shelf(folder.path, place.conditions)
    record = shelf.find(model)
    if record is not None and record.entry is not None:
        try:
            loaded = load(shelf.entry(record.key), optimize=False)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the model itself is there
            shelf.discard(record.key, f"it does not load: {error}")
        else:
            shelf.touch(record.key)
            return loaded, "hit"
    elif record is not None:
        return load(model), f"off: {record.why_not_kept}"

    began = time.perf_counter()
    loaded = load(model)
    load_ms = (time.perf_counter() - began) * 1000
    why = None
    if not loaded.self_contained:
        why = "the model keeps weights in other files"
    elif load_ms < MIN_LOAD_MS:
        why = f"the model loads in less than {MIN_LOAD_MS:.0f} ms"
    elif folder.why_not_writable is not None:
        why = folder.why_not_writable
        (_log.warning if place.is_named else _log.debug)("the optimised model is not kept: %s", why)
    if why is not None:
        return loaded, f"off: {why}"
    try:
        with cache_folder.lock(folder.path / "lock", 0.0) as held:
            if not held or shelf.find(model) is not None:
                return loaded, "off: another process keeps it now"
            del loaded  # never two of them in memory
            return _load_and_keep(shelf, model, load, load_ms)
    except OSError as error:
        _log.warning("the optimised model is not kept in %s: %s", folder.path, error.strerror)
        return load(model), f"off: {folder.path}: {error.strerror}"


def _load_and_keep(shelf: "_Shelf", model: Path, load: "Load[LoadedT_co]", load_ms: float) -> tuple[LoadedT_co, str]:
    """With the lock held: write the optimised model, load it, and keep it if that was faster."""
    shelf.tidy()
    identity = _identity(model.stat())
    key, seen = shelf.identify(model)
    draft = shelf.folder / f"{key}.onnx.tmp"
    try:
        load(model, write_to=draft)
        began = time.perf_counter()
        loaded = load(draft, optimize=False)
        cached_ms = (time.perf_counter() - began) * 1000
    except Exception as error:  # noqa: BLE001 - a full disk, a graph that cannot be written: the model is there
        draft.unlink(missing_ok=True)
        _log.warning("the optimised model cannot be kept: %s", error)
        return load(model), f"off: it cannot be kept: {error}"
    why = why_not_kept(model.stat().st_size, draft.stat().st_size, load_ms, cached_ms)
    if _identity(model.stat()) != identity:
        draft.unlink()
        return load(model), "off: the model's file changed while it was loaded"
    if why is not None:
        draft.unlink()
        shelf.add(Record(key, str(model), shelf.conditions, seen, None, why))
        del loaded
        return load(model), f"off: {why}"
    shelf.add(Record(key, str(model), shelf.conditions, seen, shelf.keep(draft, key)))
    _log.info("kept the optimised model: it loads in %.0f ms in place of %.0f", cached_ms, load_ms)
    return loaded, "stored"


def why_not_kept(model_bytes: int, entry_bytes: int, load_ms: float, cached_ms: float) -> str | None:
    """Why an optimised model is not worth its place; None when it is. Pure."""
    if entry_bytes > MAX_GROWTH * model_bytes:
        return f"optimised, it is {entry_bytes / model_bytes:.1f} times as large"
    saved_ms = load_ms - cached_ms
    if saved_ms < max(MIN_SAVED_MS, MIN_SAVED_PART * load_ms):
        return f"optimised, it loads in {cached_ms:.0f} ms in place of {load_ms:.0f}"
    return None


# What is on the shelf


class Seen(NamedTuple):
    """A file whose bytes were hashed, and how it was known then."""

    sha256: str
    size_bytes: int
    identity: list[int] | None
    """As `_identity` says; None when it had changed so lately that one more change would not show."""


@dataclass(frozen=True)
class Record:
    """What KEY.json says."""

    key: str
    model: str
    """Where it lay."""
    conditions: Mapping[str, str]
    source: Seen
    entry: Seen | None
    why_not_kept: str | None = None


class _Shelf:
    """The folder's files, as far as they were written under the same conditions."""

    def __init__(self, folder: Path, conditions: Mapping[str, str]) -> None:
        self.folder = folder
        self.conditions = {"format": FORMAT, "cpu": _cpu(), **conditions}

    def entry(self, key: str) -> Path:
        return self.folder / f"{key}.onnx"

    def identify(self, model: Path) -> tuple[str, Seen]:
        """The key of a model under our conditions. OSError when it cannot be read."""
        seen = _look(model)
        text = json.dumps([seen.sha256, self.conditions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_NAME_LENGTH], seen

    def find(self, model: Path) -> Record | None:
        """What is known of a model; its entry, where it has one, is whole."""
        try:
            identity = _identity(model.stat())
            candidates = [each for each in self._records() if each.source.size_bytes == _size_bytes(model)]
            record = next((each for each in candidates if each.source.identity == identity), None)
            if record is None and candidates:
                key, seen = self.identify(model)
                record = self._read(self.folder / f"{key}.json")
                if record is not None:
                    record = Record(key, str(model), self.conditions, seen, record.entry, record.why_not_kept)
                    self._renew(record)
            return record if record is None or record.entry is None else self._checked(record, record.entry)
        except (
            OSError
        ):  # of the model: who loads it has the words for that. Of an entry: another process has removed it
            return None

    def _records(self) -> Iterable[Record]:
        """All that were written under our conditions."""
        for path in self.folder.glob("*.json"):
            record = self._read(path)
            if record is not None and record.conditions == self.conditions:
                yield record

    def _read(self, path: Path) -> Record | None:
        try:
            with path.open("rb") as file:
                if cache_folder.why_unsafe(os.fstat(file.fileno()), os.geteuid()) is not None:
                    return None
                return read_record(path.stem, file.read())
        except FileNotFoundError:
            return None

    def _checked(self, record: Record, known: Seen) -> Record | None:
        path = self.entry(record.key)
        status = path.stat()
        why = cache_folder.why_unsafe(status, os.geteuid())
        if why is None and _identity(status) != known.identity:
            seen = _look(path)
            if seen.sha256 != known.sha256:
                why = "it is damaged: its checksum is wrong"
            else:
                self._renew(Record(record.key, record.model, record.conditions, record.source, seen))
        if why is None:
            return record
        self.discard(record.key, why)
        return None

    def _renew(self, record: Record) -> None:
        """Say how its files are known now, so that they need not be hashed again. Where that cannot be written, they are."""
        with suppress(OSError):
            self.write(record)

    def write(self, record: Record) -> None:
        draft = self.folder / f"{record.key}.{os.getpid()}.json.tmp"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        draft.replace(self.folder / f"{record.key}.json")

    def keep(self, draft: Path, key: str) -> Seen:
        """Give the draft its name, and say how it is known there."""
        draft.chmod(0o600)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(self.entry(key))
        return _look(self.entry(key), is_settled=True)

    def add(self, record: Record) -> None:
        """With the lock held: write a new record, and make room for it."""
        for each in self._records():
            if each.model == record.model and each.key != record.key:  # the file there was another one
                self._remove(each.key)
        self.write(record)
        records = {}
        for path in self.folder.glob("*.json"):
            entry = self.entry(path.stem)
            records[path.stem] = (path.stat().st_mtime, entry.stat().st_size if entry.exists() else 0)
        for key in surplus(records):
            self._remove(key)

    def touch(self, key: str) -> None:
        """Note that it was used: the record's time, as the entry's own is part of how it is known."""
        with suppress(OSError):
            os.utime(self.folder / f"{key}.json")

    def discard(self, key: str, why: str) -> None:
        _log.warning("removed an optimised model from the cache, %s: %s", self.entry(key), why)
        with suppress(OSError):
            self._remove(key)

    def _remove(self, key: str) -> None:
        (self.folder / f"{key}.json").unlink(missing_ok=True)
        self.entry(key).unlink(missing_ok=True)

    def tidy(self) -> None:
        """With the lock held: what a writer that was killed has left."""
        for path in (*self.folder.glob("*.tmp"), *self.folder.glob("*.onnx")):
            if path.suffix == ".tmp" or not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)


def read_record(key: str, text: bytes) -> Record | None:
    """A record from the text of its file; None when it is none of ours, or damaged. Pure."""
    try:
        fields: dict[str, Any] = json.loads(text)
        entry = None if fields["entry"] is None else Seen(*fields["entry"])
        record = Record(**{**fields, "source": Seen(*fields["source"]), "entry": entry})
    except (ValueError, TypeError, KeyError):
        return None
    return record if record.key == key else None


def surplus(records: Mapping[str, tuple[float, int]]) -> list[str]:
    """The keys that must go so that the bounds of the folder hold. records: when each was used last, and its bytes. Pure."""
    total_bytes, gone = 0, []
    for place, key in enumerate(sorted(records, key=lambda key: records[key], reverse=True)):
        total_bytes += records[key][1]
        if place >= MAX_RECORDS or (total_bytes > MAX_FOLDER_BYTES and place > 0):
            gone.append(key)
    return gone


def _look(path: Path, *, is_settled: bool = False) -> Seen:
    """Hash a file. is_settled: nobody but us writes it."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    is_recent = time.time_ns() - status.st_ctime_ns < _RECENT_NS
    return Seen(sha256, status.st_size, None if is_recent and not is_settled else _identity(status))


def _size_bytes(path: Path) -> int:
    """0 where there is no such file: who loads it has the words for that."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(status: os.stat_result) -> list[int]:
    """What changes whenever somebody writes to a file, or puts another in its place."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _cpu(root: Path = Path("/")) -> str:
    """What decides which kernels ONNX Runtime chooses: the architecture, and the CPU's flags where the system tells them."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    flags = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join([platform.machine(), *sorted(flags.split())])
