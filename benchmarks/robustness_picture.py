"""The picture of `sshr-deploy benchmark robustness`: scores by perturbation, networks apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from sshr_deploy.train.drawing import COLOURS, DARK, MUTED, drawing

_PANEL_IN, _LABELS_IN, _ROW_IN = 2.6, 2.2, 0.27
_PANELS_A_ROW = 5
_MARKERS = "osD^vP"
_CLASS_CHARS, _MODEL_CHARS = 20, 50


def write_picture(path: Path, report: dict[str, Any]) -> None:
    """A panel of mean IoU and one for each class, a line of each for a perturbation; as a PNG.

    A dotted line stands at the score of each network on the images as they are.

    Raises:
        OutputError: the file cannot be written.
    """
    models, words = report["models"], [one["words"] for one in report["perturbations"]]
    panels = [("mean IoU", [[row["mean_iou"] for row in model["rows"]] for model in models])]
    for index, name in enumerate(report["classes"]):
        scores = [[row["class_iou"][index] for row in model["rows"]] for model in models]
        panels.append((f"IoU {_shortened(name, _CLASS_CHARS)}", scores))
    columns = min(len(panels), _PANELS_A_ROW)
    lines = -(-len(panels) // columns)
    size_in = _LABELS_IN + columns * _PANEL_IN, 1.2 + lines * (0.8 + _ROW_IN * len(words))
    with drawing(path, size_in) as figure:
        images, mode = report["split"]["images"], report["settings"]["mode"]
        title = f"Scores when the images change ({images} images, {mode} mode)"
        figure.suptitle(title, fontsize=13)
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        right = max(0.1, *(v or 0 for _, rows in panels for row in rows for v in row))
        for axes, (name, scores) in zip(grid, panels, strict=False):
            _draw(axes, name, scores, words, right)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        legend = figure.legend(
            figure.axes[0].get_legend_handles_labels()[0],
            [_shortened(model["name"], _MODEL_CHARS) for model in models],
            loc="outside lower center",
            ncols=min(len(models), 3),
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _draw(
    axes: Axes,
    title: str,
    scores: Sequence[Sequence[float | None]],
    words: Sequence[str],
    right: float,
) -> None:
    lines = range(len(words))
    for index, values in enumerate(scores):
        colour = COLOURS[index % len(COLOURS)]
        numbers = [float("nan") if value is None else value for value in values]
        marker = _MARKERS[index % len(_MARKERS)]
        axes.plot(
            numbers, lines, marker, color=colour, markersize=6, label=f"model {index}", zorder=3
        )
        axes.axvline(numbers[0], color=colour, linestyle=":", linewidth=1.3, zorder=1)
    if len(scores) > 1:
        for line in lines:
            there = [value for values in scores if (value := values[line]) is not None]
            axes.plot(there, [line] * len(there), color=MUTED, linewidth=1, zorder=2)
    axes.set_title(title, parse_math=False, color=DARK)
    axes.set_yticks(list(lines), words)
    axes.set(ylim=(len(words) - 0.4, -0.6), xlim=(0, min(1.02, 1.08 * right)))
    axes.xaxis.set_major_locator(MultipleLocator(0.2))


def _shortened(name: str, chars: int) -> str:
    return name if len(name) <= chars else name[: chars - 1] + "…"
