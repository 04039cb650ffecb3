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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from sshr_deploy.atomic import (
    is_partial_name,
    partial_folder,
    remove_abandoned,
    remove_path,
    replace_folder,
)
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
PLAN_NAME = "engine.plan"
SCHEMA_VERSION: Literal[1] = 1

_KEY = TypeAdapter(EngineKey)
_CACHES = (".timing-*.cache", ".runtime-*.cache")


class Record(Frozen):
    """What is known of one engine on one machine."""

    schema_version: Literal[1]
    key: dict[str, Any]
    created_utc: Annotated[str, Field(pattern=r"^[0-9T:+-]{10,40}$")]
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")], FileEntry]
    """In the record's folder."""
    build: dict[str, Any]
    """What the builder reported, or what trials of options found; empty where neither was."""
    qualification: Qualification


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
        """Make the entry of `key`; it appears whole or not at all, and replaces a damaged one.

        `make` writes the files into the folder it is given and returns what makes the record of
        their hashes. Where another process was first, its sound entry is kept and returned.

        Raises:
            OSError: the store cannot be written.
        """
        path = self.folder / key.slot
        self.folder.mkdir(exist_ok=True)
        remove_abandoned(self.folder)  # of other keys, too
        with partial_folder(path) as work:
            describe = make(work)
            record = describe(
                {p.name: file_entry(p) for p in sorted(work.iterdir()) if p.is_file()}
            )
            text = sealed_json(record.model_dump(mode="json"))
            (work / RECORD_NAME).write_text(text, "utf-8")
            there = self._put(work, key)
        if there is not None and there.record is not None:
            return there, there.record
        return Entry(path, record, key, None), record

    def _put(self, work: Path, key: EngineKey) -> Entry | None:
        """Give `work` its name, or leave it and return the sound entry that is there already."""
        path = self.folder / key.slot
        there = self.find(key)
        try:
            if there is None:
                work.replace(path)  # fails where another process has just put its own there
            elif there.damage is not None:
                if foreign := _foreign(path):
                    raise OSError(errno.ENOTEMPTY, f"{key.slot} holds {foreign[0]}")
                replace_folder(work, path)
            else:
                return there
        except OSError:
            there = self.find(key)
            if there is None or there.damage is not None:
                raise
            return there
        return None

    def names(self) -> set[str]:
        """Everything below the bundle's folder that is the store's, as POSIX paths.

        What killed builds left and damaged entries are; what a user put beside them is not.

        Raises:
            OSError: the store cannot be read.
        """
        names = {ENGINES_NAME}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if is_partial_name(path.name):
                inside = {p.relative_to(path).as_posix() for p in path.rglob("*")}
            elif (path / RECORD_NAME).is_file():
                inside = _own_files(path)
            elif any(path.match(pattern) for pattern in _CACHES):
                inside = set()
            else:
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
        """Remove an entry; returns the bytes that were freed.

        Raises:
            BundleError: it holds something that is not ours, or cannot be removed.
        """
        if not (entry.path / RECORD_NAME).is_file():
            raise BundleError(f"{entry.path} is no engine of ours; move it away")
        try:
            if foreign := _foreign(entry.path):
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


def _runtime_cache_name(slot: str) -> str:
    return f".runtime-{slot}.cache"


def _foreign(path: Path) -> list[str]:
    """What is in an entry's folder and not ours."""
    inside = {p.relative_to(path).as_posix() for p in path.rglob("*")}
    return sorted(inside - _own_files(path))


def _own_files(path: Path) -> set[str]:
    """Names of the files in an entry's folder that are ours, of any schema and damaged ones too."""
    try:
        content = read_json(path / RECORD_NAME)
    except (ValueError, RecursionError):
        content = None
    files = content.get("files") if isinstance(content, dict) else None
    return {RECORD_NAME, PLAN_NAME, *(files if isinstance(files, dict) else ())}


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
        reason = getattr(error, "strerror", None) or first_line(error)
        return Entry(path, record, None, f"{path / RECORD_NAME}: {reason}")
    return Entry(path, record, key, None)
