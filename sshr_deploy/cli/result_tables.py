"""What a run of `sshr-deploy infer` found, on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from sshr_deploy.cli.tables import print_table
from sshr_deploy.cli.terminal import stdout_console
from sshr_deploy.errors import one_line

if TYPE_CHECKING:
    from sshr_deploy.runtime.pipeline.run import RunResult
    from sshr_deploy.runtime.results.findings import InputResult, Status

_MAX_TABLE_INPUTS = 12
_STATUS_WORDS: dict[Status, str] = {
    "done": "done",
    "skipped": "done earlier",
    "failed": "failed",
}


def print_results(result: RunResult, out: Path) -> None:
    """Print a run's results by input and class (share, mm2) on stdout; then where the files are."""
    console = stdout_console()
    shown = result.results[:_MAX_TABLE_INPUTS]
    if shown:
        print_table(console, _results_table(shown, named=not console.is_terminal), lead=2)
    if len(result.results) > len(shown):
        console.print(f"and {len(result.results) - len(shown)} more in summary.csv")
    counts = {s: sum(r.status == s for r in result.results) for s in _STATUS_WORDS}
    print(", ".join(f"{counts[s]} {words}" for s, words in _STATUS_WORDS.items()), file=sys.stdout)
    whole = result.document.folder
    if whole.done + whole.failed != len(result.results):
        print(one_line(f"{out} now holds {whole.done} done, {whole.failed} failed"))
    for summary in (r.summary for r in shown if r.summary):
        for name in summary.files:
            print(one_line(str(out / summary.folder / name)))
    for path in result.files:
        print(one_line(str(path)))


def _results_table(results: Sequence[InputResult], *, named: bool) -> Table:
    """By base name, or by path where several have the same; `named` in each row."""
    table = Table("input", "status", "class", "share", "area mm²")
    for column in table.columns[3:]:
        column.justify = "right"
    names = [r.path.name for r in results]
    for result in results:
        once = names.count(result.path.name) == 1
        heading = [escape(result.path.name if once else str(result.path))]
        notes: list[str] = [warning.code for warning in result.warnings]
        if result.fit is not None and result.fit.verdict == "differs":
            notes.insert(0, "differs")
        heading.append(", ".join([_STATUS_WORDS[result.status], *notes]))
        rows = [
            [
                escape(entry.name),
                f"{entry.share:.1%}",
                "" if entry.area_mm2 is None else f"{entry.area_mm2:.4f}",
            ]
            for entry in (result.summary.classes if result.summary else ())
        ]
        for index, row in enumerate(rows or [[]]):
            last = index == max(len(rows) - 1, 0)
            table.add_row(*(heading if index == 0 or named else ["", ""]), *row, end_section=last)
    return table
