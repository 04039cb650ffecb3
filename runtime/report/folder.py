"""`report.html` of a results folder: all its inputs, those that failed, and how they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.report.facts import run_facts
from sshr_deploy.runtime.report.pages import page, write_page
from sshr_deploy.runtime.report.parts import Part, parts_of
from sshr_deploy.runtime.results.file_names import REPORT_NAME
from sshr_deploy.runtime.results.records import RunRecord
from sshr_deploy.runtime.results.table import FailedRow, ResultRow, Row, class_names

MOST_ROWS = 5000
"""Results, and failures, on the page: it is 7 MB then. `summary.csv` has all of them."""


def write_folder_page(
    out: Path, profile: Profile, rows: Sequence[Row], record: RunRecord | None = None
) -> None:
    """Write the page of the results folder `out`.

    Args:
        out: the folder.
        profile: has the colours of the classes.
        rows: its table.
        record: of the latest run; None where nothing is said of one.

    Raises:
        OutputError: it cannot be written.
    """
    title = out.absolute().name
    write_page(out / REPORT_NAME, lambda: folder_page(title, profile, rows, record))


def folder_page(
    title: str, profile: Profile, rows: Sequence[Row], record: RunRecord | None = None
) -> str:
    """The page as HTML; see `write_folder_page`."""
    names = class_names(profile, rows)
    results = [_Line(row, names) for row in rows if isinstance(row, ResultRow)]
    failed = [row for row in rows if isinstance(row, FailedRow)]
    origins = Counter(line.row.origin for line in results)
    return page(
        "folder.html",
        names,
        profile,
        "folder.js",
        title=title,
        results=results[:MOST_ROWS],
        failed=failed[:MOST_ROWS],
        totals=_Totals.of(results, failed, names),
        origins=sorted(origins.items(), key=lambda entry: -entry[1]),
        record=record,
        run=() if record is None else run_facts(record),
        has_fit=any(line.row.fit for line in results),
    )


@dataclass(frozen=True)
class _Line:
    """A result as the table shows it."""

    row: ResultRow
    names: Sequence[str]

    @property
    def place(self) -> str:
        """Folder of its result among the others; empty for those at the top."""
        return self.row.folder.rpartition("/")[0]

    @property
    def parts(self) -> list[Part]:
        """By class."""
        return parts_of(self.names, self.row.shares, self.row.areas_mm2)

    @property
    def address(self) -> str:
        """Of its own page; of its folder where an earlier release made it, which wrote none."""
        return f"{self.row.folder}/{REPORT_NAME if self.row.origin else ''}"

    @cached_property
    def total_s(self) -> float | None:
        """Of its own time."""
        return self.row.seconds.get("total")


@dataclass(frozen=True)
class _Totals:
    """Sums over all results."""

    results: int
    failed: int
    warned: int
    seconds: float
    tissue_mm2: float | None
    """None if no input has an area."""
    parts: list[Part]
    """Areas by class, and their shares of the tissue."""
    without_area: int
    """Images without a pixel size, which the areas lack."""

    @classmethod
    def of(
        cls, results: Sequence[_Line], failed: Sequence[FailedRow], names: Sequence[str]
    ) -> _Totals:
        rows = [line.row for line in results]
        areas_mm2 = {n: sum(row.areas_mm2.get(n) or 0.0 for row in rows) for n in names}
        without_area = sum(row.tissue_area_mm2 is None for row in rows)
        tissue_mm2 = sum(areas_mm2.values()) if without_area < len(rows) else None
        shares = {n: area / tissue_mm2 for n, area in areas_mm2.items()} if tissue_mm2 else {}
        return cls(
            results=len(rows),
            failed=len(failed),
            warned=sum(bool(row.warnings) for row in rows),
            seconds=sum(line.total_s or 0.0 for line in results),
            tissue_mm2=tissue_mm2,
            parts=parts_of(names, shares, areas_mm2),
            without_area=without_area,
        )
