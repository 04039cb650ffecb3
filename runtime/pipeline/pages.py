"""The pages of a results folder: its `report.html`, and that of each input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.pipeline.result_folders import read_summary
from sshr_deploy.runtime.report.folder import write_folder_page
from sshr_deploy.runtime.report.single import write_input_page
from sshr_deploy.runtime.results.file_names import REPORT_NAME
from sshr_deploy.runtime.results.records import RunRecord
from sshr_deploy.runtime.results.table import ResultRow, Row


def write_pages(
    out: Path, profile: Profile, rows: Sequence[Row], record: RunRecord | None = None
) -> None:
    """Write the page of a results folder, then those of inputs that lack one.

    An input lacks it where an earlier release made its result, or where the disk was full.

    Args:
        out: folder of the results.
        profile: has the colours of the classes.
        rows: its table.
        record: of the latest run; None in a watch.

    Raises:
        OutputError: a page cannot be written; those before it stay.
    """
    write_folder_page(out, profile, rows, record)
    for folder in _without_page(out, rows):
        summary = read_summary(folder)
        if summary is not None:
            write_input_page(folder, summary, profile)


def _without_page(out: Path, rows: Sequence[Row]) -> Iterable[Path]:
    results = (row for row in rows if isinstance(row, ResultRow))
    folders = (out / row.folder for row in results if row.origin and not row.has_page)
    return (folder for folder in folders if not (folder / REPORT_NAME).exists())
