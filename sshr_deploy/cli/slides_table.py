"""Tables of `sshr-deploy benchmark slides`, on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row

_RATIOS = {"times_ours": "times ours", "times_our_tiles": "times our tiles"}
_INCLUDES = {
    "whole process": "From the start of the process to its end, with all that each does.",
    "without start-up": (
        "From the network that is ready to the end of all that each does. Ours also finds the "
        "tissue and writes mask, overlays, regions and report, which no loop does; times our tiles "
        "compares the loops with what they do: tiles to label maps."
    ),
}


def print_slides(document: BenchmarkDocument) -> None:
    """One table of whole processes and one without start-up; what each does; what is missing."""
    from rich.table import Table

    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.benchmarks.slides.measure import WHOLE, WORK
    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console

    console = stdout_console()
    facts = document.facts
    console.print(
        f"{document.settings['slide']}, {facts['tiles']} tiles, {facts['tiles_area_mm2']:.2f} mm2, "
        f"on {machine_line(document)}",
        markup=False,
    )
    measured = [row for row in document.rows if row.samples]
    for form in (WHOLE, WORK):
        rows = [row for row in measured if row.facts["form"] == form]
        ratios = [name for name in _RATIOS if any(name in row.figures for row in rows)]
        heads = (_RATIOS[name] for name in ratios)
        table = Table(form, "runs", "s", "p25-p75 s", "mm2/s", *heads, "equal", "MiB")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*_cells(row, ratios))
        if table.row_count:
            print_table(console, table)
            console.print(_INCLUDES[form], markup=False)
    for line in _notes(document):
        console.print(line, markup=False)


def _cells(row: Row, ratios: Sequence[str]) -> list[str]:
    from sshr_deploy.runtime.machine.spread import ratio_text, spread_of

    spread = spread_of(row.samples)
    told = [ratio_text(row.figures[name]) if name in row.figures else "" for name in ratios]
    equal = "" if row.agreement is None else f"{row.agreement.masks:.2%}"
    memory = row.facts["peak_memory_mib"]
    return [
        row.facts["contender"],
        str(spread.calls),
        f"{spread.median_ms:.2f}",
        f"{spread.p25_ms:.2f}-{spread.p75_ms:.2f}",
        f"{row.figures['mm2_per_s']:.2f}",
        *told,
        equal if row.facts["has_masks"] else "no masks",
        f"{memory:.0f}",
    ]


def _notes(document: BenchmarkDocument) -> list[str]:
    """What each does and lacks, what was not measured, and ratios that are not told; each once."""
    from sshr_deploy.cli.option_names import as_options

    lines = []
    for row in document.rows:
        name, facts = row.facts["contender"], row.facts
        if row.samples:
            lacks = f"; without {facts['lacks']}" if facts["lacks"] else ""
            lines.append(f"{name} ({facts['version']}): {facts['does']}{lacks}")
            if "stopped" in facts:
                lines.append(f"{name}: stopped {facts['stopped']}")
        elif row.not_measured is not None:
            lines.append(as_options(f"{name}: not measured: {row.not_measured}"))
    reasons = (why for row in document.rows for why in row.refused.values())
    return list(dict.fromkeys([*lines, *(f"not reported: {why}" for why in reasons)]))
