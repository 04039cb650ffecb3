"""Panels of the pictures of benchmarks: each draws rows of a document into axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.report.tables import agreement_text, figure_text, heading, marked
from sshr_deploy.errors import counted
from sshr_deploy.runtime.machine.spread import spread_of
from sshr_deploy.train.drawing import COLOURS, DARK, MUTED

MARKERS = "osD^vP*X"
_KNEE = 0.95
_NAME_CHARS = 44

Series = Mapping[str, Sequence[tuple[float, Row]]]
"""Rows by the name of their line, each with its place on the horizontal axis."""


def draw_lines(axes: Axes, series: Series, *, per_batch: bool = False) -> None:
    """Medians with their quartiles over powers of two; `per_batch`, as patches a second instead.

    The legend has the agreement of each line.
    """
    for index, (name, points) in enumerate(series.items()):
        places = [place for place, _ in points]
        spreads = [spread_of(row.samples) for _, row in points]
        quartiles = np.array([(s.p25_ms, s.median_ms, s.p75_ms) for s in spreads])
        if per_batch:
            quartiles = np.sort(np.array(places)[:, None] / quartiles * 1e3, axis=1)
        low, middle, high = quartiles.T
        axes.errorbar(
            places,
            middle,
            yerr=(middle - low, high - middle),
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle="-" if index < len(COLOURS) else "--",
            markersize=6,
            capsize=3,
            label=_labelled(name, [row for _, row in points]),
        )
    ticks = sorted({place for points in series.values() for place, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)


def shade_knee(axes: Axes, series: Series) -> None:
    """The band that is within 5 % of the best median."""
    best = max(spread_of(row.samples).median_ms for points in series.values() for _, row in points)
    axes.axhspan(_KNEE * best, best, color=MUTED, alpha=0.18, label="within 5 % of the best")


def draw_bars(axes: Axes, rows: Sequence[Row], figure: str | None = None) -> None:
    """A bar a row, the first on top: a figure, or the median with its quartiles.

    Beside each its value and the agreement; rows without one say so.
    """
    furthest = 0.0
    for line, row in enumerate(rows):
        value = _value(row, figure)
        if value is None:
            told = "not measured" if row.not_measured is not None else "not told"
            axes.annotate(told, (0, line), (4, 0), textcoords="offset points", va="center",
                          color=MUTED, fontsize=9)  # fmt: skip
            continue
        axes.barh(line, value, height=0.62, color=COLOURS[0])
        end = value
        if figure is None:
            spread = spread_of(row.samples)
            axes.plot((spread.p25_ms, spread.p75_ms), (line, line), color=DARK, linewidth=2)
            end = max(value, spread.p75_ms)
        furthest = max(furthest, end)
        unit = row.unit if figure is None else heading(figure).partition(" ")[2]
        label = " ".join(filter(None, (figure_text(value), unit)))
        if row.agreement is not None:
            label += f", masks {agreement_text(row.agreement)}"
        axes.annotate(label, (end, line), (5, 0), textcoords="offset points", va="center",
                      fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(rows)), [marked(_shortened(_name(row)), row) for row in rows])
    _as_names(axes)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.55 * furthest or 1))  # labels have room
    axes.grid(axis="y", visible=False)


def draw_stages(axes: Axes, rows: Sequence[Row]) -> None:
    """Share of a run in which the threads of each stage are busy, and in which it held up all."""
    lines = np.arange(len(rows))
    for offset, name, words in (
        (-0.2, "busy_share", "threads busy"),
        (0.2, "share_of_run", "holds up the run"),
    ):
        shares = [100 * (row.figures.get(name) or 0.0) for row in rows]
        colour = COLOURS[0] if offset < 0 else COLOURS[1]
        axes.barh(lines + offset, shares, height=0.36, color=colour, label=words)
        for line, share in zip(lines, shares, strict=True):
            axes.annotate(f"{share:.0f}%", (share, line + offset), (4, 0),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    names = []
    for row in rows:
        threads = row.facts.get("threads")
        name = row.name.removeprefix("stage ")
        names.append(name if threads is None else f"{name} ({counted(threads, 'thread')})")
    axes.set_yticks(lines, names)
    _as_names(axes)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 112), xlabel="% of the run")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_over_time(axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Lines of values over minutes, from pairs of seconds and value."""
    top = 0.0
    for index, (name, points) in enumerate(lines.items()):
        seconds, values = np.array(points).T
        axes.plot(seconds / 60, values, color=COLOURS[index % len(COLOURS)],
                  marker=MARKERS[index % len(MARKERS)], markersize=3, label=name)  # fmt: skip
        top = max(top, values.max())
    axes.set_ylim(0, 1.15 * top or 1)
    if len(lines) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _value(row: Row, figure: str | None) -> float | None:
    if figure is not None:
        return row.figures.get(figure)
    return spread_of(row.samples).median_ms if row.samples else None


def _labelled(name: str, rows: Sequence[Row]) -> str:
    """Of a line; the agreement is that of its worst point."""
    told = [row.agreement for row in rows if row.agreement is not None]
    worst = min(told, key=lambda agreement: agreement.masks, default=None)
    masks = "" if worst is None else f", masks {agreement_text(worst)}"
    star = " *" if any("unqualified" in row.facts for row in rows) else ""
    return f"{_shortened(name)}{star}{masks}"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 1] + "…"


def _name(row: Row) -> str:
    """Of a bar; the forms of a contender have panels of their own."""
    name = row.facts.get("contender") if "form" in row.facts else None
    return row.name if name is None else str(name)


def _as_names(axes: Axes) -> None:
    """Names of rows as they are, and bars before the grid."""
    axes.set_axisbelow(True)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
