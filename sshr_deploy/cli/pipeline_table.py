"""Table of `sshr-deploy benchmark pipeline`, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshr_deploy.figures import in_digits

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row

_RATIOS = {"engine alone": "over_engine_alone", "reading alone": "over_reading_alone"}
_STAGE = "stage "


def print_pipeline(document: BenchmarkDocument) -> None:
    """The ways, the stages of the run, and what limits it; of what is there so far."""
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console

    console = stdout_console()
    run = document.row("whole run")
    for line in _head(document, run):
        console.print(line, markup=False)
    ways = Table("way", "runs", "s", "p25-p75 s", "run over it")
    stages = Table("stage", "work s", "threads", "busy", "engine waited s", "of the run")
    for table in (ways, stages):
        for column in table.columns[1:]:
            column.justify = "right"
    for row in document.rows:
        if row.name.startswith(_STAGE):
            stages.add_row(*_stage_cells(row))
        else:
            ways.add_row(*_way_cells(row, run))
    print_table(console, ways)
    print_table(console, stages)
    for line in _findings(document, run):
        console.print(line, markup=False)


def _head(document: BenchmarkDocument, run: Row) -> list[str]:
    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.errors import counted

    facts, mode = run.facts, document.settings["mode"]
    units = counted(facts["units"], "tile" if mode == "reference" else "field")
    streams = "" if facts["streams"] is None else f", {counted(facts['streams'], 'stream')}"
    return [
        f"{facts['engine']} {facts['precision']} ({facts['library']}){streams}, {mode} mode, on "
        f"{machine_line(document, facts['threads'])}",
        f"{counted(facts['slides'], 'slide')}, {units}, {facts['tissue_mm2']:.1f} mm2 of tissue, "
        f"{counted(facts['readers'], 'reading thread')}",
    ]


def _way_cells(row: Row, run: Row) -> list[str]:
    from sshr_deploy.runtime.machine.spread import ratio_text, spread_of

    if not row.samples:
        return [row.name, "0", "", "", ""]
    spread = spread_of(row.samples)
    ratio = ""
    if row.name in _RATIOS:
        ratio = ratio_text(run.figures.get(_RATIOS[row.name]))
    quartiles = f"{in_digits(spread.p25_ms)}-{in_digits(spread.p75_ms)}"
    return [row.name, str(spread.calls), in_digits(spread.median_ms), quartiles, ratio]


def _stage_cells(row: Row) -> list[str]:
    from sshr_deploy.runtime.machine.spread import spread_of

    work = in_digits(spread_of(row.samples).median_ms) if row.samples else "0"
    busy, of_run = (f"{row.figures[name] or 0.0:.0%}" for name in ("busy_share", "share_of_run"))
    waited_s = row.figures.get("engine_waited_s")
    waited = "" if waited_s is None else in_digits(waited_s)
    return [row.name.removeprefix(_STAGE), work, str(row.facts["threads"]), busy, waited, of_run]


def _findings(document: BenchmarkDocument, run: Row) -> list[str]:
    facts, figures = run.facts, run.figures
    limit = document.row(f"{_STAGE}{facts['limit']}")

    def told(name: str, digits: int = 3) -> str:
        return in_digits(figures[name] or 0.0, digits)

    agreement = "unknown" if run.agreement is None else f"{run.agreement.masks:.4%}"
    lines = [
        f"limit: {facts['limit']} ({limit.facts['about']}), "
        f"{limit.figures['share_of_run'] or 0.0:.0%} of the run",
        f"{told('slides_per_h')} slides/h, {told('mm2_per_s')} mm2/s, "
        f"{told('cores_busy', 2)} of {document.environment.cores} cores busy, "
        f"peak memory {figures['peak_memory_mb']:.0f} MB",
        f"agreement of the masks with PyTorch's FP32: {agreement}",
        *document.facts.get("day", {}).get("words", ()),
        *document.notes,
    ]
    if "unqualified" in facts:
        lines.append(f"not qualified here: {facts['unqualified']}")
    lines += [f"not reported: {reason}" for reason in dict.fromkeys(run.refused.values())]
    return lines
