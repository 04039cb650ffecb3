"""The roofline as a picture: rates over operations a byte, beneath the measured ceilings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from sshr_deploy.benchmarks.report.pictures import picture_paths
from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row
from sshr_deploy.figures import in_digits
from sshr_deploy.train.drawing import COLOURS, DARK, MUTED, drawing

_SIZE_IN = (9.5, 5.6)
_MARKERS = "osD^vP*X"
_REACH = 2.0
"""Factor by which the axes reach beyond what is drawn."""
_LEAST_SHARE, _LARGEST_AREA = 0.005, 4000.0
"""Of the layers' time, below which one is not drawn; area in pt^2 of one that took all of it."""
_PANELS = {"ceilings": "processor", "gpu_ceilings": "GPU"}


def write_roofline(document: BenchmarkDocument, stem: Path) -> tuple[Path, ...]:
    """Draw engines beneath their ceilings into `stem`.png and `stem`.svg; no file without any.

    Engines are large marks; where layers were profiled, their convolutions and products are small
    ones. Engines of a GPU have a panel of their own.

    Raises:
        OutputError: a file cannot be written.
    """
    panels = [
        (words, document.facts[name], rows)
        for name, words in _PANELS.items()
        if (rows := [row for row in document.rows if row.facts.get("ceilings") == name])
        and document.facts.get(name, {}).get("gflop_per_s")
    ]
    if not panels:
        return ()
    paths = picture_paths(stem)
    for path in paths:
        with drawing(path, (_SIZE_IN[0], _SIZE_IN[1] * len(panels))) as figure:
            figure.suptitle(_title(document), fontsize=13, parse_math=False)
            grid = figure.subplots(len(panels), 1, squeeze=False).ravel()
            for axes, (words, ceilings, rows) in zip(grid, panels, strict=True):
                _draw(axes, words, ceilings, rows)
    return paths


def _title(document: BenchmarkDocument) -> str:
    subject = document.subject
    network = "" if subject is None else f", {subject.profile}, width {subject.width}"
    return f"Roofline{network}, batch {document.settings['batch']}"


def _draw(axes: Axes, words: str, ceilings: dict[str, Any], rows: Sequence[Row]) -> None:
    colours = dict(zip(ceilings["gflop_per_s"], COLOURS, strict=False))
    points: list[tuple[float, float]] = []
    for place, row in enumerate(rows):
        marker = _MARKERS[place % len(_MARKERS)]
        colour = colours.get(row.facts["precision"], DARK)
        for layer in _drawn_layers(row):
            points.append((layer["gflop"] / layer["gb"], layer["gflop"] / layer["median_ms"] * 1e3))
            area = _LARGEST_AREA * layer["median_ms"] / row.facts["kernels_ms"]
            axes.scatter(*points[-1], s=area, marker=marker, color=colour, alpha=0.35, linewidths=0)
        points.append((row.figures["flop_per_byte"] or 0.0, row.figures["gflop_per_s"] or 0.0))
        share = row.figures["share_of_ceiling"]
        label = row.name if share is None else f"{row.name}, {share:.0%} of its ceiling"
        look: dict[str, Any] = {
            "markersize": 11,
            "markeredgecolor": "white",
            "linestyle": "",
            "zorder": 3,
        }
        axes.plot(*points[-1], marker=marker, color=colour, label=label, **look)
    _draw_ceilings(axes, ceilings, colours, points)
    with_layers = any(row.facts.get("layers") for row in rows)
    axes.set_title(f"{words}; small marks are layers, by their time" if with_layers else words)
    axes.set_xlabel("operations a byte of values and weights (FLOP/byte)")
    axes.set_ylabel("GFLOP/s (int8: 1e9 operations/s)")
    axes.legend(loc="lower right")


def _drawn_layers(row: Row) -> Iterator[dict[str, Any]]:
    """Convolutions and products that take a time worth seeing."""
    for layer in row.facts.get("layers", ()):
        if layer["gflop"] and layer["median_ms"] >= _LEAST_SHARE * row.facts["kernels_ms"]:
            yield layer


def _draw_ceilings(
    axes: Axes,
    ceilings: dict[str, Any],
    colours: dict[str, str],
    points: Sequence[tuple[float, float]],
) -> None:
    """Slopes of the copies up to the highest product, a line for each product, and the axes."""
    products, memory = ceilings["gflop_per_s"], ceilings["copy_gb_per_s"]
    top = max(products.values())
    intensities, rates = zip(*points, strict=True)
    low = min(*intensities, top / memory) / _REACH
    high = max(*intensities, top / memory) * _REACH
    _draw_slopes(axes, ceilings, low, top)
    widest = max(memory, ceilings["cache_gb_per_s"] or 0.0)
    for name, rate in products.items():
        axes.plot([max(low, rate / widest), high], [rate, rate], color=colours[name])
        axes.annotate(
            f"{name} product, {in_digits(rate)}",
            (high, rate),
            xytext=(-4, 3 if rate == top else -3),
            textcoords="offset points",
            ha="right",
            va="bottom" if rate == top else "top",
            color=colours[name],
            fontsize=9,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(*rates, low * memory) / _REACH, max(*rates, top) * _REACH)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_slopes(axes: Axes, ceilings: dict[str, Any], low: float, top: float) -> None:
    """From `low` FLOP/byte up to `top` GFLOP/s."""
    slopes = {
        "memory": (ceilings["copy_gb_per_s"], "-"),
        "caches": (ceilings["cache_gb_per_s"], "--"),
    }
    for words, (bandwidth, dashes) in slopes.items():
        if bandwidth is None:
            continue
        xs = np.array([low, max(low, top / bandwidth)])
        axes.plot(xs, xs * bandwidth, dashes, color=MUTED)
        axes.text(
            low * 1.05,
            low * 1.05 * bandwidth,
            f"{words}, {in_digits(bandwidth)} GB/s",
            rotation=np.degrees(np.arctan(bandwidth)),
            rotation_mode="anchor",
            transform_rotates_text=True,
            va="bottom",
            color=MUTED,
            fontsize=9,
        )
