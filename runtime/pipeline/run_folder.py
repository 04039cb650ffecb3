"""What a results folder says of all its runs: `summary.csv`, `run.json`, and a record of each.

The table covers what the folder holds: every input with a `summary.json` below it, whichever run
made it, and every input that failed and was not done since. `runs/` keeps the record of each run;
the newest one also lists the failures of earlier runs that still stand, so that it alone need be
read. `run.json` is the record of the latest run with one field more: `folder`, which is the table.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from sshr_deploy.atomic import write_csv, write_json
from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.pipeline.discovery import Found
from sshr_deploy.runtime.pipeline.documents import csv_rows, input_entry
from sshr_deploy.runtime.pipeline.file_names import (
    RECORD_NAME,
    RECORDS_NAME,
    RUN_NAME,
    SUMMARY_NAME,
    TABLE_NAME,
)
from sshr_deploy.runtime.pipeline.result_folders import FileText, read_summary
from sshr_deploy.runtime.progress import InputResult, Kind, Status

_TABLE_FIELDS = ("classes", "tissue_area_mm2", "seconds", "mpp", "profile")  # of a summary


class Failure(BaseModel):
    """An input that a run could not do."""

    path: FileText
    kind: Kind | None
    reason: FileText
    failed_utc: str


class _Ended(BaseModel):
    path: FileText
    kind: Kind | None
    status: Status
    reason: FileText


class _Record(BaseModel):
    """What is read of a run's record."""

    finished_utc: str
    inputs: list[_Ended]
    failed_earlier: list[Failure]


@dataclass(frozen=True)
class WrittenRun:
    """What came of writing a run's files."""

    document: dict[str, Any]
    """Content of `run.json`."""
    files: list[Path]
    """Those that could be written, of `summary.csv`, `run.json` and the record in `runs/`."""
    failure: OutputError | None
    """The first that could not be written, or a folder of results that could not be read."""


def write_run(
    out: Path,
    source: Path,
    found: Found,
    profile: Profile,
    results: Sequence[InputResult],
    record: dict[str, Any],
    *,
    only_record: bool = False,
) -> WrittenRun:
    """Write the record of a run, then the table and `run.json`, each even if another fails.

    `results` are those of the run, `found` what it had to do; `record` is its `run_document`.
    With `only_record` the table and `run.json` are left to another run, which writes here now.
    """
    done, failure = _results_below(out, results)
    standing = _standing(_earlier_failures(out), source, found, results, done)
    record = {**record, "failed_earlier": [f.model_dump() for f in standing]}
    table = _table(done, results, standing)
    counts = {s: sum(r.status == s for r in table) for s in ("done", "failed")}
    document = {**record, "folder": {**counts, "inputs": [input_entry(r) for r in table]}}
    record_path = out / RECORDS_NAME / _new_record_name()
    files: list[Path] = []
    writes = (  # the record first: on a full disk, it alone has this run's failures for the next
        (record_path, partial(write_json, obj=record)),
        (out / TABLE_NAME, partial(write_csv, rows=csv_rows(profile, table))),
        (out / RUN_NAME, partial(write_json, obj=document)),
    )
    for path, write in writes[:1] if only_record else writes:
        try:
            write(path)
            files.append(path)
        except OutputError as error:
            failure = failure or error
    return WrittenRun(document, files, failure)


class _Done(NamedTuple):
    result: InputResult
    finished_utc: str


def _results_below(
    out: Path, results: Sequence[InputResult]
) -> tuple[list[_Done], OutputError | None]:
    """Every result in the folder; those of this run are known and not read again."""
    known = {r.summary["folder"]: r for r in results if r.summary}
    done: list[_Done] = []
    unreadable: list[OutputError] = []

    def note(error: OSError) -> None:
        reason = f"{error.filename} cannot be read: {error.strerror}; the table lacks what is there"
        unreadable.append(OutputError(reason))

    for name, folders, files in os.walk(out, onerror=note):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        if SUMMARY_NAME not in files:
            continue
        folder = Path(name).relative_to(out).as_posix()
        ours = known.get(folder)
        summary = ours.summary if ours else read_summary(Path(name))
        if summary is not None:
            path = ours.path.absolute() if ours else Path(summary["input"]["path"])
            row = {k: summary[k] for k in _TABLE_FIELDS if k in summary} | {"folder": folder}
            result = InputResult(path, summary["input"]["kind"], "done", summary=row)
            done.append(_Done(result, summary["finished_utc"]))
    return done, unreadable[0] if unreadable else None


def _earlier_failures(out: Path) -> list[Failure]:
    """Failures that stood at the end of the latest run whose record can be read."""
    folder = out / RECORDS_NAME
    try:
        records = [path for path in folder.iterdir() if RECORD_NAME.fullmatch(path.name)]
    except OSError:
        return []
    for path in sorted(records, reverse=True):
        try:
            record = _Record.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, RecursionError):  # ValueError: of json and of pydantic
            continue
        new = [
            Failure(path=i.path, kind=i.kind, reason=i.reason, failed_utc=record.finished_utc)
            for i in record.inputs
            if i.status == "failed"
        ]
        return [*record.failed_earlier, *new]
    return []


def _standing(
    failures: Sequence[Failure],
    source: Path,
    found: Found,
    results: Sequence[InputResult],
    done: Sequence[_Done],
) -> list[Failure]:
    """The failures that this run says nothing new of.

    One below `source` that was not found there is gone, and so is its failure.
    """
    searched = source.absolute()
    inputs = {str(item.path.absolute()) for item in found.inputs}
    ended = {str(r.path.absolute()) for r in results}
    finished_utc: dict[str, str] = {}
    for result, at_utc in done:
        path = str(result.path)
        finished_utc[path] = max(at_utc, finished_utc.get(path, ""))

    def stands(failure: Failure) -> bool:
        gone = Path(failure.path).is_relative_to(searched) and failure.path not in inputs
        done_since = finished_utc.get(failure.path, "") > failure.failed_utc
        return failure.path not in ended and not gone and not done_since

    return [failure for failure in failures if stands(failure)]


def _table(
    done: Sequence[_Done], results: Sequence[InputResult], standing: Sequence[Failure]
) -> list[InputResult]:
    """One entry for each result and each failure, by path; a failed input has no result."""
    failed = [
        InputResult(r.path.absolute(), r.kind, "failed", r.reason)
        for r in results
        if r.status == "failed"
    ]
    failed += [InputResult(Path(f.path), f.kind, "failed", f.reason) for f in standing]
    gone = {r.path for r in failed}
    table = [*failed, *(d.result for d in done if d.result.path not in gone)]
    return sorted(table, key=lambda r: (r.path.parts, r.summary.get("folder", "")))


def _new_record_name() -> str:
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{secrets.token_hex(3)}.json"
