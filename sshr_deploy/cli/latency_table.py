"""Tables of `sshr-deploy benchmark latency`, on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row

_PERCENTILES = {"p50_ms": "p50 ms", "p90_ms": "p90 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms"}
_PARTS = {
    "copy_in_ms": "copy in ms",
    "engine_ms": "engine ms",
    "copy_out_ms": "copy out ms",
    "labels_ms": "label maps ms",
}
_UNTOLD = {"speed": "speed", "share_of_ceiling": "share of the ceiling"}
_STARTS = {
    "start_s": "process s",
    "load_s": "bundle s",
    "open_s": "engine s",
    "first_patch_s": "first result s",
}


def print_latency(document: BenchmarkDocument) -> None:
    """Calls, their parts, cold starts, and why figures and rows are missing."""
    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.cli.terminal import stdout_console

    console, subject = stdout_console(), document.subject
    if subject is not None:
        inputs = document.facts.get("inputs", "patches")
        console.print(f"{subject.profile}, width {subject.width}; {inputs}", markup=False)
    console.print(machine_line(document, document.settings.get("threads")), markup=False)
    measured = [row for row in document.rows if row.samples]
    calls, starts = ([row for row in measured if row.unit == unit] for unit in ("ms", "s"))
    if calls:
        _print_calls(console, calls)
    if starts:
        _print_starts(console, starts)
    if any("unqualified" in row.facts for row in measured):
        console.print("*: its masks disagree with the reference (--allow-unqualified)")
    for line in _missing(document):
        console.print(line, markup=False)


def _print_calls(console: Console, rows: Sequence[Row]) -> None:
    from sshr_deploy.cli.tables import print_table

    rate = next(key for key in ("patches_per_s", "fields_per_s") if key in rows[0].figures)
    headings = ["batch", "calls", *_PERCENTILES.values(), "max ms", rate.replace("_per_", "/")]
    headings += ["speed"]
    table = _table("way", [*headings, "agreement", "of ceiling"])
    for row in rows:
        table.add_row(
            _marked(row),
            str(row.facts["batch"]),
            str(len(row.samples)),
            *(_interval(row, key) for key in _PERCENTILES),
            _figure(row.figures["max_ms"]),
            _figure(row.figures[rate]),
            _figure(row.figures["speed"]),
            _agreement(row),
            _share(row.figures["share_of_ceiling"]),
        )
    print_table(console, table)
    console.print("percentiles with the interval that holds the true one with 95 %")
    bases = dict.fromkeys(row.facts["base"] for row in rows if row.facts["base"])
    if bases:
        console.print(f"speed: times as fast as {', '.join(bases)} at that batch size, by medians")
    taken = {key: text for key, text in _PARTS.items() if _has(rows, key)}
    parts = _table("parts of a call, timed apart", ["batch", *taken.values()])
    for row in rows:
        figures = (_figure(row.figures[key]) for key in taken)
        parts.add_row(row.facts["contender"], str(row.facts["batch"]), *figures)
    print_table(console, parts)


def _print_starts(console: Console, rows: Sequence[Row]) -> None:
    import numpy as np

    from sshr_deploy.cli.tables import print_table

    headings = ["starts", "whole s", *_STARTS.values(), "once, to build and compare s"]
    table = _table("cold start, medians", [*headings, "agreement", "the engine"])
    for row in rows:
        table.add_row(
            _marked(row),
            str(len(row.samples)),
            _figure(float(np.median(row.samples))),
            *(_figure(row.figures[key]) for key in _STARTS),
            _figure(row.figures["building_s"]),
            _agreement(row),
            row.facts["open"],
        )
    print_table(console, table)
    console.print("the bundle's files were in the system's cache: after a boot, reading takes more")


def _missing(document: BenchmarkDocument) -> Iterable[str]:
    """Rows and figures that are missing, each reason once, and the notes."""
    from sshr_deploy.cli.option_names import as_options

    rows: dict[str, list[str]] = {}
    untold: dict[tuple[str, str], list[str]] = {}
    calls: dict[str, None] = {}
    more: list[str] = []
    for row in document.rows:
        if row.not_measured is not None:
            rows.setdefault(row.not_measured, []).append(row.facts["contender"])
        elif row.unit == "s" and (failed := row.facts.get("failed")):
            more.append(f"{row.name}: only {len(row.samples)} counted; the next failed: {failed}")
        for figure, reason in row.refused.items():
            if figure in _UNTOLD:
                untold.setdefault((_UNTOLD[figure], reason), []).append(row.name)
            else:
                calls[f"{figure.removesuffix('_ms')} {reason}"] = None
    for reason, names in rows.items():
        yield as_options(f"not measured: {', '.join(dict.fromkeys(names))}: {reason}")
    if calls:
        yield f"where there are too few calls: {', '.join(calls)}; give more --seconds"
    for (figure, reason), names in untold.items():
        yield f"{figure} not told of {'; '.join(names)}: {reason}"
    yield from (as_options(line) for line in more)
    yield from document.notes


def _table(first: str, headings: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(first, *headings)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _has(rows: Sequence[Row], key: str) -> bool:
    return any(row.figures[key] is not None for row in rows)


def _marked(row: Row) -> str:
    """Name of the way, with its streams where calls share the threads."""
    name: str = row.facts["contender"]
    streams = row.facts.get("streams") or 1
    name = f"{name}, {streams} streams" if streams > 1 else name
    return f"{name} *" if "unqualified" in row.facts else name


def _agreement(row: Row) -> str:
    return "" if row.agreement is None else f"{row.agreement.masks:.4%}"


def _interval(row: Row, key: str) -> str:
    """ "31.5 (31.2-31.9)"."""
    name = key.removesuffix("_ms")
    if row.figures[key] is None:
        return ""
    low, high = (_figure(row.figures[f"{name}_{end}_ms"]) for end in ("low", "high"))
    return f"{_figure(row.figures[key])} ({low}-{high})"


def _figure(value: Any) -> str:
    """With three digits; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
