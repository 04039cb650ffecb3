"""Pictures of documents: which panels a document has, and the files that they are drawn into."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from sshr_deploy.benchmarks.measuring.neighbours import busy_text
from sshr_deploy.benchmarks.report.machine import machine_line
from sshr_deploy.benchmarks.report.panels import (
    Series,
    draw_bars,
    draw_lines,
    draw_over_time,
    draw_stages,
    shade_knee,
)
from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row
from sshr_deploy.benchmarks.report.tables import kind_title
from sshr_deploy.train.drawing import MUTED, drawing

_SUFFIXES = (".png", ".svg")
_WIDTH_IN = 9.5
_LINES_IN, _OVER_TIME_IN, _BAR_IN, _BARS_IN = 4.4, 2.2, 0.34, 1.1
_HEAD_IN = 0.8
_CAPTION_CHARS = 125
_GPU_FIELDS = {
    "Temperature in °C": "temperature_celsius",
    "Clock in MHz": "sm_clock_mhz",
    "Power in W": "power_w",
}


@dataclass(frozen=True)
class _Panel:
    title: str
    height_in: float
    draw: Callable[[Axes], None]


def picture_paths(stem: Path) -> tuple[Path, ...]:
    """`stem`.png and `stem`.svg."""
    return tuple(stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)


def write_pictures(document: BenchmarkDocument, stem: Path) -> tuple[Path, ...]:
    """Draw a document into `stem`.png and `stem`.svg; no file where nothing can be drawn of it.

    Raises:
        OutputError: a file cannot be written.
    """
    panels = list(_panels(document))
    paths = picture_paths(stem) if panels else ()
    heights = [panel.height_in for panel in panels]
    for path in paths:
        with drawing(path, (_WIDTH_IN, _HEAD_IN + sum(heights))) as figure:
            figure.suptitle(_title(document), fontsize=13, parse_math=False)
            figure.supxlabel(_machine(document), fontsize=8, color=MUTED, parse_math=False)
            grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
            for axes, panel in zip(grid, panels, strict=True):
                axes.set_title(panel.title)
                panel.draw(axes)
    return paths


def _panels(document: BenchmarkDocument) -> Iterable[_Panel]:
    rows = document.rows
    stages = [row for row in rows if "busy_share" in row.figures]
    others = [row for row in rows if row not in stages]
    if document.benchmark in ("latency", "throughput"):
        yield from _line_panels(document)
        starts = [row for row in rows if row.unit == "s"]
        if any(row.samples for row in starts):
            yield _bars("Cold start to the first label map, in s, lower is better", starts)
    elif document.benchmark == "soak":
        yield from (panel for row in rows for panel in _time_panels(row))
    elif any("mm2_per_s" in row.figures and "form" in row.facts for row in rows):
        for form in dict.fromkeys(row.facts.get("form") for row in rows):
            found = [row for row in rows if row.facts.get("form") == form]
            yield _bars(f"mm2/s, {form}, higher is better", found, "mm2_per_s")
    else:
        for unit in dict.fromkeys(row.unit for row in others):
            found = [row for row in others if row.unit == unit]
            if any(row.samples for row in found):
                better = "lower" if found[0].better == "lower" else "higher"
                yield _bars(f"Medians in {unit}, {better} is better", found)
    if stages:
        height = _BARS_IN + 1.4 * _BAR_IN * len(stages)
        yield _Panel("Stages of the run", height, partial(draw_stages, rows=stages))


def _bars(title: str, rows: Sequence[Row], figure: str | None = None) -> _Panel:
    height = _BARS_IN + _BAR_IN * len(rows)
    return _Panel(title, height, partial(draw_bars, rows=rows, figure=figure))


def _line_panels(document: BenchmarkDocument) -> Iterable[_Panel]:
    series = _series(document)
    if not series:
        return
    if len({batch for points in series.values() for batch, _ in points}) == 1:  # no lines then
        rows = [row for points in series.values() for _, row in points]
        yield _bars(f"Medians in {rows[0].unit}, {rows[0].better} is better", rows)
        return
    _, first = next(iter(series.values()))[0]
    inputs = first.unit.partition("/")[0] if first.better == "higher" else "patches"

    def lines(axes: Axes, per_batch: bool = False) -> None:
        if first.better == "higher":
            shade_knee(axes, series)
        draw_lines(axes, series, per_batch=per_batch)
        axes.set_xlabel(f"{inputs} a call")
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for text in legend.get_texts():
            text.set_parse_math(False)

    if first.better == "higher":
        title = f"{first.unit.capitalize()} by batch and streams"
        yield _Panel(title, _LINES_IN, lines)
    else:
        yield _Panel("Time of a call in ms by batch", _LINES_IN, lines)
        yield _Panel("Patches/s by batch", _LINES_IN, partial(lines, per_batch=True))


def _series(document: BenchmarkDocument) -> Series:
    """Rows of a batch size, by contender and streams."""
    found: dict[str, list[tuple[float, Row]]] = {}
    for row in document.rows:
        batch, streams = row.facts.get("batch"), row.facts.get("streams")
        if batch is None or not row.samples:
            continue
        name = row.facts.get("contender") or row.name.removesuffix(f", batch {batch}")
        if document.benchmark == "throughput":
            name = "1 stream" if streams in (None, 1) else f"{streams} streams"
        found.setdefault(name, []).append((batch, row))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def _time_panels(row: Row) -> Iterable[_Panel]:
    """Of the windows of a soak: its rate, and what the machine told of itself."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for window in row.facts.get("windows", ()):
        for title, name, value in _readings(row, window):
            if value is not None:
                lines.setdefault(title, {}).setdefault(name, []).append((window["until_s"], value))
    for title, found in lines.items():
        yield _Panel(f"{title}, over minutes", _OVER_TIME_IN, partial(draw_over_time, lines=found))


def _readings(row: Row, window: dict[str, Any]) -> Iterable[tuple[str, str, float | None]]:
    """Title of the panel, name of the line and value."""
    yield row.unit.capitalize(), row.name, window["inputs_per_s"]
    yield "Temperature in °C", "processor", window["cpu_celsius"]
    yield "Clock in MHz", "processor", window["cpu_mhz"]
    for part, watts in window["watts"].items():
        yield "Power in W", part, watts
    for gpu in window["gpus"]:
        for title, field in _GPU_FIELDS.items():
            yield title, f"GPU {gpu['index']}", gpu.get(field)


def _title(document: BenchmarkDocument) -> str:
    subject = document.subject
    network = "" if subject is None else f" of {subject.profile}, width {subject.width}"
    interrupted = "" if document.complete else " (interrupted)"
    return f"{kind_title(document.benchmark)}{network}{interrupted}"


def _machine(document: BenchmarkDocument) -> str:
    busy = busy_text(document.load.other_work)
    told = [machine_line(document), document.measured_utc] + ([] if busy is None else [busy])
    if any("unqualified" in row.facts for row in document.rows):
        told.append("*: its masks disagree with the reference, so its speed counts for nothing")
    return textwrap.fill("; ".join(told), _CAPTION_CHARS)
