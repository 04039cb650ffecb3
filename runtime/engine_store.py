"""The engines that machines built from a bundle, and how each was qualified there.

    BUNDLE/engines/
      tensorrt-rtx-fp16-1f3a.../record.json    key, hashes of the files below, qualification
      tensorrt-rtx-fp16-1f3a.../engine.plan
      onnx-cpu-int8-77c0.../record.json        ONNX Runtime reads the bundle's own graph

These are by-products: all can be made again, none is listed in the bundle's manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from sshr_deploy.atomic import partial_name, remove_abandoned
from sshr_deploy.bundle import (
    ENGINES_NAME,
    check_file,
    file_entry,
    read_json,
    sealed_json,
    self_hash,
)
from sshr_deploy.errors import BundleError, first_line
from sshr_deploy.manifest import FileEntry, Frozen, Qualification
from sshr_deploy.profiles import describe_validation
from sshr_deploy.runtime.engine_key import EngineKey

RECORD_NAME = "record.json"
SCHEMA_VERSION: Literal[1] = 1

_KEY = TypeAdapter(EngineKey)


class Record(Frozen):
    """What is known of one engine on one machine."""

    schema_version: Literal[1]
    key: dict[str, Any]
    created_utc: str
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")], FileEntry]
    """In the record's folder."""
    build: dict[str, Any]
    """What the builder reported; empty where nothing was built."""
    qualification: Qualification
    misses: tuple[str, ...]
    """Figures outside the tolerance; an engine with any is not used."""


@dataclass(frozen=True)
class Entry:
    """One folder of the store."""

    path: Path
    record: Record | None
    key: EngineKey | None
    damage: str | None
    """Why it cannot be used, whatever the machine."""

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.path / name


class EngineStore:
    """The folder `engines` of a bundle."""

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
        return [_read(path, check_files=check_files) for path in folders if path.is_dir()]

    def find(self, key: EngineKey) -> Entry | None:
        """The entry of exactly this key, damaged or not."""
        path = self.folder / key.slot
        return _read(path, check_files=True) if path.is_dir() else None

    def nearest(self, key: EngineKey) -> Entry | None:
        """The sound entry of the same engine and precision that differs from `key` least."""
        same = [
            entry
            for entry in self.entries(check_files=False)
            if entry.key and (entry.key.engine, entry.key.precision) == (key.engine, key.precision)
        ]
        return min(same, key=lambda e: len(e.key.differences(key)) if e.key else 0, default=None)

    def write(
        self, key: EngineKey, make: Callable[[Path], Callable[[dict[str, FileEntry]], Record]]
    ) -> tuple[Entry, Record]:
        """Make the entry of `key`; it appears whole or not at all, and replaces an earlier one.

        `make` writes the files into the folder it is given and returns what makes the record of
        their hashes.

        Raises:
            OSError: the store cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        remove_abandoned(self.folder)
        work, path = self.folder / partial_name(key.slot), self.folder / key.slot
        work.mkdir()
        try:
            describe = make(work)
            record = describe(
                {p.name: file_entry(p) for p in sorted(work.iterdir()) if p.is_file()}
            )
            text = sealed_json(record.model_dump(mode="json"))
            (work / RECORD_NAME).write_text(text, "utf-8")
            if path.exists():
                shutil.rmtree(path)
            work.replace(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Entry(path, record, key, None), record

    def names(self) -> set[str]:
        """Everything below the bundle's folder that is the store's, as POSIX paths."""
        names = {ENGINES_NAME}
        for entry in self.entries(check_files=False):
            if entry.record is not None:
                files = (RECORD_NAME, *entry.record.files)
                slot = f"{ENGINES_NAME}/{entry.path.name}"
                names |= {slot, *(f"{slot}/{file}" for file in files)}
        caches = self.folder.glob(".timing-*.cache")
        return names | {f"{ENGINES_NAME}/{cache.name}" for cache in caches}

    def timing_cache(self, key: EngineKey) -> Path:
        """Where the builder of this engine keeps what it measured, for the next build."""
        return self.folder / f".timing-{key.engine}.cache"

    def remove(self, entry: Entry) -> int:
        """Remove an entry; returns the bytes that were freed.

        Raises:
            BundleError: it holds something that is not ours, or cannot be removed.
        """
        if not (entry.path / RECORD_NAME).is_file():
            raise BundleError(f"{entry.path} is no engine of ours; move it away")
        try:
            inside = {p.relative_to(entry.path).as_posix(): p for p in entry.path.rglob("*")}
            ours = {RECORD_NAME, *(entry.record.files if entry.record else inside)}
            if foreign := sorted(set(inside) - ours):
                raise BundleError(f"{entry.path} holds {foreign[0]}; move it away")
            freed = sum(p.stat().st_size for p in inside.values() if p.is_file())
            shutil.rmtree(entry.path)
        except OSError as error:
            raise BundleError(f"{entry.path} cannot be removed: {error.strerror}") from error
        return freed

    def remove_caches(self) -> int:
        """Remove the builders' timing caches; returns the bytes that were freed.

        Raises:
            BundleError: one cannot be removed.
        """
        freed = 0
        for cache in self.folder.glob(".timing-*.cache"):
            try:
                freed += cache.stat().st_size
                cache.unlink()
            except OSError as error:
                raise BundleError(f"{cache} cannot be removed: {error.strerror}") from error
        return freed


def _read(path: Path, *, check_files: bool) -> Entry:
    record: Record | None = None
    try:
        content = read_json(path / RECORD_NAME)
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            raise ValueError("it has a schema that this release does not know")
        if content.pop("self_sha256", None) != self_hash(content):
            raise ValueError("it was changed after it was written")
        record = Record.model_validate(content)
        key = _KEY.validate_python(record.key)
        if key.slot != path.name:
            raise ValueError("it belongs to another folder")
        if check_files:
            for name, entry in record.files.items():
                check_file(path, name, entry, fix="it is built again")
    except BundleError as error:
        return Entry(path, record, None, str(error))
    except ValidationError as error:
        return Entry(path, None, None, f"{path / RECORD_NAME}: {describe_validation(error)}")
    except (OSError, ValueError, RecursionError) as error:
        return Entry(path, record, None, f"{path / RECORD_NAME}: {first_line(error)}")
    return Entry(path, record, key, None)
