"""Types of what is said of a run: its record in `runs/`, and `run.json`, are written from them.

Their JSON Schemas are the package's data, see `schemas`. Fields stand in the files as they stand
here, those of the last base class first.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sshr_deploy.runtime.results.findings import (
    Count,
    Document,
    Effort,
    FileText,
    Kind,
    Provenance,
    StageSeconds,
    Tiles,
)
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import Mpp


class RunEffort(Effort):
    """The same for a run."""

    readers: Annotated[int, Field(ge=1)]
    """Reading threads."""
    readers_chosen_by: str
    """The option, or what was measured."""


class Counts(Document):
    """Inputs by how they ended."""

    done: Count
    skipped: Count
    failed: Count


class Machine(Document):
    """Platform of a run; its device is the engine's."""

    platform: str
    python: str


class FailedInput(Document):
    """An input that could not be done."""

    path: FileText
    kind: Kind | None
    """Null for a folder that cannot be read."""
    status: Literal["failed"]
    reason: FileText
    """One line."""


class TableInput(Document):
    """A result in the folder, whichever run made it."""

    path: FileText
    kind: Kind
    status: Literal["done"]
    reason: Literal[""]
    folder: FileText
    """Of the result, relative to the results of the run."""
    mpp: Mpp | None
    seconds: StageSeconds


class DoneInput(Document):
    """An input that this run did, or found done."""

    path: FileText
    kind: Kind
    status: Literal["done", "skipped"]
    reason: Literal[""]
    folder: FileText
    """Of the result, relative to the results of the run."""
    mpp: Mpp | None
    tiles: Tiles | None
    seconds: StageSeconds


class EarlierFailure(Document):
    """An input that an earlier run could not do, and none has done since."""

    path: FileText
    kind: Kind | None
    reason: FileText
    failed_utc: str
    """End of that run."""


class _RunHead(Document):
    schema_version: Literal[1]
    source: FileText
    """The slide, image or folder that was given, or the one that holds all; absolute."""
    started_utc: str
    finished_utc: str
    interrupted: bool
    """By Ctrl-C or a signal to end."""
    stopped_by: FileText | None
    """The error that ended it before its last input."""
    counts: Counts
    left_out: dict[FileText, Count]
    """Files that are not read, by suffix."""


class _RunTail(Document):
    settings: InferSettings
    machine: Machine
    libraries: dict[str, str]
    """Versions by name."""
    effort: RunEffort | None
    """On slides; null where none was begun."""
    inputs: tuple[DoneInput | FailedInput, ...]
    """Those that it came to, in their order."""
    failed_earlier: tuple[EarlierFailure, ...]


class RunRecord(_RunTail, Provenance, _RunHead):
    """Record of one run, a file in `runs/`."""


class ResultsTable(Document):
    """Results of all runs that the folder holds, and failures that still stand."""

    done: Count
    failed: Count
    inputs: tuple[TableInput | FailedInput, ...]
    """By path."""


class RunDocument(RunRecord):
    """Content of `run.json`: the record of the latest run, and the table of the folder."""

    folder: ResultsTable
