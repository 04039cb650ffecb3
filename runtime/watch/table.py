"""`summary.csv` and `report.html` of a watch: as those of runs, read anew where results changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sshr_deploy.atomic import output_errors, write_csv
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.pipeline.pages import write_pages
from sshr_deploy.runtime.pipeline.result_folders import read_summary, result_folders_below
from sshr_deploy.runtime.results.file_names import SUMMARY_NAME, TABLE_NAME
from sshr_deploy.runtime.results.table import FailedRow, ResultRow, csv_rows, sorted_rows
from sshr_deploy.runtime.watch.queue import QueuedSlide


class SummaryTable:
    """The table of all results below a folder, whoever made them, and of slides that failed."""

    def __init__(self, out: Path, profile: Profile) -> None:
        self._out, self._profile = out, profile
        self._rows: dict[Path, tuple[tuple[int, int], ResultRow]] = {}

    def write(self, failed: Iterable[QueuedSlide]) -> None:
        """Write it as it is now, with the pages.

        Raises:
            OutputError: one of them cannot be written, or the folder not be read.
        """
        with output_errors(self._out):
            self._rows = dict(self._results())
        rows = {row.path: row for _, row in self._rows.values()}
        failures = [FailedRow(s.path, "slide", s.reason) for s in failed if s.path not in rows]
        table = sorted_rows([*failures, *(row for _, row in self._rows.values())])
        write_csv(self._out / TABLE_NAME, csv_rows(self._profile, table))
        write_pages(self._out, self._profile, table)

    def _results(self) -> Iterable[tuple[Path, tuple[tuple[int, int], ResultRow]]]:
        for folder, files in result_folders_below(self._out, _raise):
            facts = (folder / SUMMARY_NAME).stat()
            state = facts.st_mtime_ns, facts.st_size
            known = self._rows.get(folder)
            if known is not None and known[0] == state:
                yield folder, known
                continue
            summary = read_summary(folder)
            if summary is not None:
                place = folder.relative_to(self._out).as_posix()
                row = ResultRow.of(Path(summary.input.path), place, summary, files)
                yield folder, (state, row)


def _raise(error: OSError) -> None:
    raise error
