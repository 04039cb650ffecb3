"""The engines that machines built from a bundle, and how each was qualified there.

    BUNDLE/engines/
      tensorrt-rtx-fp16-1f3a.../record.json    key, hashes of the files below, qualification
      tensorrt-rtx-fp16-1f3a.../engine.plan
      .runtime-tensorrt-rtx-fp16-1f3a....cache what the library compiled of that plan
      onnx-cpu-int8-77c0.../record.json        ONNX Runtime reads the bundle's own graph

These are by-products: all can be made again, none is listed in the bundle's manifest.

An engine is code that runs here, and its record is hashed, not signed: whoever can write one can
write the other. Remove `engines/` of a bundle from elsewhere before use, unless you trust its
sender as you would trust a program from there; what is needed is built again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock

from sshr_deploy.atomic import (
    is_partial_name,
    partial_folder,
    remove_abandoned,
    remove_path,
    replace_folder,
)
from sshr_deploy.bundle import ENGINES_NAME, file_entry, sealed_json
from sshr_deploy.errors import BundleError
from sshr_deploy.manifest import FileEntry, Qualification
from sshr_deploy.runtime.engines.entry import (
    RECORD_NAME,
    SCHEMA_VERSION,
    Entry,
    Record,
    foreign_files,
    own_files,
    read_entry,
)
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.machine.clock import now_utc

_CACHES = (".timing-*.cache", ".runtime-*.cache")
_LOCK_NAME = ".renames.lock"
_LOCK_TIMEOUT_S = 60.0
"""Held while an entry's files are hashed and two folders renamed: seconds on a slow share."""


class EngineStore:
    """The folder `engines` of a bundle.

    Any number of processes may use it at once. An entry appears whole, and a sound one keeps its
    place until somebody removes it. Whoever renames entries holds the store's lock; readers do
    not, and may miss an entry in the moment in which a damaged one is replaced.
    """

    def __init__(self, bundle: Path) -> None:
        self.folder = bundle / ENGINES_NAME

    def entries(self, *, check_files: bool = True) -> list[Entry]:
        """Every folder in the store by name, damaged ones too.

        Raises:
            BundleError: the store cannot be read.
        """
        try:
            if not self.folder.is_dir():
                return []
            folders = sorted(p for p in self.folder.iterdir() if not p.name.startswith("."))
        except OSError as error:
            raise BundleError(
                f"{self.folder} cannot be read: {error.strerror}; check your rights to it"
            ) from error
        return [read_entry(path, check_files=check_files) for path in folders if path.is_dir()]

    def find(self, key: EngineKey) -> Entry | None:
        """The entry of exactly this key, damaged or not."""
        path = self.folder / key.slot
        return read_entry(path) if path.is_dir() else None

    def nearest(self, key: EngineKey) -> Entry | None:
        """The sound entry that differs from `key` least.

        It is of the same engine and precision, and like this for patches or for fields.
        """
        same = [
            entry
            for entry in self.entries(check_files=False)
            if entry.key
            and (entry.key.engine, entry.key.precision) == (key.engine, key.precision)
            and entry.key.for_patches is key.for_patches
        ]
        return min(same, key=lambda e: len(e.key.differences(key)) if e.key else 0, default=None)

    @contextmanager
    def draft(self, key: EngineKey) -> Iterator[Draft]:
        """A folder to build the entry of `key` in; it is gone afterwards unless it was committed.

        Raises:
            OSError: the store cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        remove_abandoned(self.folder)  # of other keys, too
        with partial_folder(self.folder / key.slot) as folder:
            yield Draft(self, key, folder)

    @contextmanager
    def renaming(self) -> Iterator[None]:
        """Keep all other processes from renaming entries.

        Raises:
            OSError: the lock cannot be had, or another process has held it for a minute.
        """
        lock = filelock.FileLock(self.folder / _LOCK_NAME, poll_interval=0.01)
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except filelock.Timeout as error:
            held = f"another process has held {_LOCK_NAME} for {_LOCK_TIMEOUT_S:.0f} s"
            raise OSError(errno.EBUSY, held) from error
        try:
            yield
        finally:
            lock.release()

    def names(self) -> set[str]:
        """Everything below the bundle's folder that is the store's, as POSIX paths.

        What killed builds left and damaged entries are; what a user put beside them is not.

        Raises:
            OSError: the store cannot be read.
        """
        names = {ENGINES_NAME}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            inside: set[str] = set()
            if is_partial_name(path.name):
                with suppress(FileNotFoundError):  # another process has just finished it
                    inside = {p.relative_to(path).as_posix() for p in path.rglob("*")}
            elif (path / RECORD_NAME).is_file():
                inside = own_files(path)
            elif path.name != _LOCK_NAME and not any(path.match(name) for name in _CACHES):
                continue
            place = f"{ENGINES_NAME}/{path.name}"
            names |= {place, *(f"{place}/{name}" for name in inside)}
        return names

    def timing_cache(self, key: EngineKey) -> Path:
        """Where the builder of this engine keeps what it measured, for the next build."""
        return self.folder / f".timing-{key.engine}.cache"

    def runtime_cache(self, key: EngineKey) -> Path:
        """Where the library keeps what it compiles of this engine; no part of the entry's record.

        It grows while the engine runs. Its hash is in itself.
        """
        return self.folder / _runtime_cache_name(key.slot)

    def remove(self, entry: Entry) -> int:
        """Remove an entry; returns the bytes that were freed, 0 where another took its place.

        Raises:
            BundleError: it holds something that is not ours, or cannot be removed.
        """
        if not (entry.path / RECORD_NAME).is_file():
            raise BundleError(f"{entry.path} is no engine of ours; move it away")
        try:
            with self.renaming():
                now = read_entry(entry.path, check_files=entry.damage is not None)
                if (now.key, now.damage) != (entry.key, entry.damage):
                    return 0
                if foreign := foreign_files(entry.path):
                    raise BundleError(f"{entry.path} holds {foreign[0]}; move it away")
                freed = remove_path(entry.path)
                cache = self.folder / _runtime_cache_name(entry.path.name)
                return freed + (remove_path(cache) if cache.is_file() else 0)
        except OSError as error:
            raise BundleError(
                f"{entry.path} cannot be removed: {error.strerror or error}"
            ) from error

    def remove_abandoned(self) -> int:
        """Remove what killed builds left; returns the bytes that were freed.

        Raises:
            BundleError: something cannot be removed.
        """
        try:
            return remove_abandoned(self.folder)
        except OSError as error:
            raise BundleError(f"{self.folder} cannot be cleaned: {error.strerror}") from error

    def remove_caches(self) -> int:
        """Remove the caches of builders and libraries; returns the bytes that were freed.

        Raises:
            BundleError: one cannot be removed.
        """
        freed = 0
        for cache in (path for pattern in _CACHES for path in self.folder.glob(pattern)):
            try:
                freed += cache.stat().st_size
                cache.unlink()
            except OSError as error:
                raise BundleError(
                    f"{cache} cannot be removed: {error.strerror or error}"
                ) from error
        return freed


class Draft:
    """An entry that is being made: write its files into `folder`, then commit it."""

    def __init__(self, store: EngineStore, key: EngineKey, folder: Path) -> None:
        self.folder = folder
        self._store, self._key = store, key

    def commit(self, build: dict[str, Any], qualification: Qualification) -> tuple[Entry, Record]:
        """Give the entry its place, and return it; a damaged one that is there goes.

        Where another process was first, its sound entry stays and is returned.

        Raises:
            OSError: the store cannot be written, or the damaged one holds what is not ours.
        """
        files = {p.name: file_entry(p) for p in sorted(self.folder.iterdir()) if p.is_file()}
        record = new_record(self._key, build, qualification, files)
        text = sealed_json(record.model_dump(mode="json"))
        (self.folder / RECORD_NAME).write_text(text, "utf-8")
        path = self._store.folder / self._key.slot
        with self._store.renaming():
            there = self._store.find(self._key)
            if there is None:
                self.folder.replace(path)
            elif there.damage is None and there.record is not None:
                return there, there.record
            elif foreign := foreign_files(path):
                raise OSError(errno.ENOTEMPTY, f"{path.name} holds {foreign[0]}")
            else:
                replace_folder(self.folder, path)
        return Entry(path, record, self._key, None), record


def _runtime_cache_name(slot: str) -> str:
    return f".runtime-{slot}.cache"


def new_record(
    key: EngineKey,
    build: dict[str, Any],
    qualification: Qualification,
    files: dict[str, FileEntry] | None = None,
) -> Record:
    """A record of this moment; `files` by their names in the entry's folder."""
    return Record(
        schema_version=SCHEMA_VERSION,
        key=asdict(key),
        created_utc=now_utc(),
        files=files or {},
        build=build,
        qualification=qualification,
    )
