"""One engine in a bundle's store: its folder, its record, and whether both can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from sshr_deploy.bundle import check_file, read_json, self_hash
from sshr_deploy.errors import BundleError, first_line
from sshr_deploy.manifest import FileEntry, Frozen, Qualification
from sshr_deploy.profiles import describe_validation
from sshr_deploy.runtime.engines.key import EngineKey

RECORD_NAME = "record.json"
PLAN_NAME = "engine.plan"
SCHEMA_VERSION: Literal[2] = 2

_KEY = TypeAdapter(EngineKey)


class Record(Frozen):
    """Record of one engine on one machine."""

    schema_version: Literal[2]
    key: dict[str, Any]
    created_utc: Annotated[str, Field(pattern=r"^[0-9T:+-]{10,40}$")]
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")], FileEntry]
    """In the record's folder."""
    build: dict[str, Any]
    """Report of the builder, or of trials of options; empty where neither was."""
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


def read_entry(path: Path, *, check_files: bool = True) -> Entry:
    """The entry in the folder `path`; damaged where anything about it is wrong.

    `check_files` compares every file with its hash.
    """
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


def own_files(path: Path) -> set[str]:
    """Names of the files in an entry's folder that are ours, of any schema and damaged ones too."""
    try:
        content = read_json(path / RECORD_NAME)
    except (OSError, ValueError, RecursionError):
        content = None
    files = content.get("files") if isinstance(content, dict) else None
    return {RECORD_NAME, PLAN_NAME, *(files if isinstance(files, dict) else ())}


def foreign_files(path: Path) -> list[str]:
    """Names of what is in an entry's folder and not ours.

    Raises:
        OSError: the folder cannot be read.
    """
    inside = {p.relative_to(path).as_posix() for p in path.rglob("*")}
    return sorted(inside - own_files(path))
