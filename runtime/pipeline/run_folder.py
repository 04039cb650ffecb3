"""Files of a results folder about its runs: `summary.csv`, `run.json`, `report.html`, `runs/`.

The table covers what the folder holds: every input with a `summary.json` below it, whichever run
made it, and every input that failed and was not done since. `runs/` keeps the record of each run;
the newest one also lists the failures of earlier runs that still stand, so that it alone need be
read. `run.json` is the record of the latest run with one field more: `folder`, which is the table.
`report.html` is the table for people.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from sshr_deploy.atomic import write_csv, write_json
from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine.clock import stamp_utc
from sshr_deploy.runtime.pipeline.discovery import Found
from sshr_deploy.runtime.pipeline.pages import write_pages
from sshr_deploy.runtime.pipeline.result_folders import read_summary, result_folders_below
from sshr_deploy.runtime.results.file_names import (
    RECORD_NAME,
    RECORDS_NAME,
    REPORT_NAME,
    RUN_NAME,
    TABLE_NAME,
)
from sshr_deploy.runtime.results.findings import FileText, InputResult, Kind, Status
from sshr_deploy.runtime.results.records import EarlierFailure, RunDocument, RunRecord
from sshr_deploy.runtime.results.table import (
    FailedRow,
    ResultRow,
    Row,
    csv_rows,
    results_table,
    sorted_rows,
)


class _Ended(BaseModel):
    path: FileText
    kind: Kind | None
    status: Status
    reason: FileText


class _Record(BaseModel):
    """Fields that are read of a run's record, whichever release wrote it."""

    finished_utc: str
    inputs: list[_Ended]
    failed_earlier: list[EarlierFailure]


@dataclass(frozen=True)
class WrittenRun:
    """Outcome of writing a run's files."""

    document: RunDocument
    """Content of `run.json`."""
    files: list[Path]
    """Those that could be written, of `summary.csv`, `run.json`, `report.html` and the record in
    `runs/`."""
    failure: OutputError | None
    """The first that could not be written, or a folder of results that could not be read."""


def write_run(
    out: Path,
    found: Found,
    profile: Profile,
    results: Sequence[InputResult],
    record: RunRecord,
    *,
    only_record: bool = False,
) -> WrittenRun:
    """Write the record of a run, then the table, `run.json` and pages, each even if another fails.

    `results` are those of the run, `found` what it had to do; `record` is its `run_record`.
    With `only_record` all but that is left to another run, which writes here now.
    """
    done, failure = _results_below(out, results)
    standing = _standing(_earlier_failures(out), found, results, done)
    record = record.model_copy(update={"failed_earlier": tuple(standing)})
    table = _table(done, results, standing)
    document = RunDocument(**dict(record), folder=results_table(table))
    record_path = out / RECORDS_NAME / _new_record_name()
    files: list[Path] = []
    writes: list[tuple[Path, Callable[[Path], object]]] = [
        # The record first: on a full disk, it alone has this run's failures for the next.
        (record_path, partial(write_json, obj=record.model_dump())),
        (out / TABLE_NAME, partial(write_csv, rows=csv_rows(profile, table))),
        (out / RUN_NAME, partial(write_json, obj=document.model_dump())),
        (out / REPORT_NAME, lambda _: write_pages(out, profile, table, record)),
    ]
    for path, write in writes[:1] if only_record else writes:
        try:
            write(path)
            files.append(path)
        except OutputError as error:
            failure = failure or error
    return WrittenRun(document, files, failure)


def _results_below(
    out: Path, results: Sequence[InputResult]
) -> tuple[list[ResultRow], OutputError | None]:
    """Every result in the folder; those of this run are known and not read again."""
    known = {r.summary.folder: (r.path.absolute(), r.summary) for r in results if r.summary}
    done: list[ResultRow] = []
    unreadable: list[OutputError] = []

    def note(error: OSError) -> None:
        reason = f"{error.filename} cannot be read: {error.strerror}; the table lacks what is there"
        unreadable.append(OutputError(reason))

    for place, files in result_folders_below(out, note):
        folder = place.relative_to(out).as_posix()
        path, summary = known.get(folder, (None, None))
        summary = summary or read_summary(place)
        if summary is not None:
            done.append(ResultRow.of(path or Path(summary.input.path), folder, summary, files))
    return done, unreadable[0] if unreadable else None


def _earlier_failures(out: Path) -> list[EarlierFailure]:
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
        at_utc = record.finished_utc
        new = [
            EarlierFailure(path=i.path, kind=i.kind, reason=i.reason, failed_utc=at_utc)
            for i in record.inputs
            if i.status == "failed"
        ]
        return [*record.failed_earlier, *new]
    return []


def _standing(
    failures: Sequence[EarlierFailure],
    found: Found,
    results: Sequence[InputResult],
    done: Sequence[ResultRow],
) -> list[EarlierFailure]:
    """The failures that this run says nothing new of.

    One below what was searched that was not found there is gone, and so is its failure.
    """
    searched = {path.absolute() for path in found.searched}
    kept = {path.absolute() for path in found.not_chosen}
    inputs = {str(item.path.absolute()) for item in found.inputs}
    ended = {str(r.path.absolute()) for r in results}
    finished_utc: dict[str, str] = {}
    for row in done:
        path = str(row.path)
        finished_utc[path] = max(row.finished_utc, finished_utc.get(path, ""))

    def stands(failure: EarlierFailure) -> bool:
        path = Path(failure.path)
        around = {path, *path.parents}
        gone = around & searched and not around & kept and failure.path not in inputs
        done_since = finished_utc.get(failure.path, "") > failure.failed_utc
        return failure.path not in ended and not gone and not done_since

    return [failure for failure in failures if stands(failure)]


def _table(
    done: Sequence[ResultRow], results: Sequence[InputResult], standing: Sequence[EarlierFailure]
) -> list[Row]:
    """One row for each result and each failure, by path; a failed input has no result."""
    failed = [
        FailedRow(r.path.absolute(), r.kind, r.reason) for r in results if r.status == "failed"
    ]
    failed += [FailedRow(Path(f.path), f.kind, f.reason) for f in standing]
    gone = {row.path for row in failed}
    return sorted_rows([*failed, *(row for row in done if row.path not in gone)])


def _new_record_name() -> str:
    return f"{stamp_utc()}-{secrets.token_hex(3)}.json"
