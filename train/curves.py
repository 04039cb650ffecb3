"""The picture of a training run: losses, labels, segmentation, learning rate and speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from sshr_deploy.train.best import WINDOW, best_row, is_small, smoothed_iou
from sshr_deploy.train.drawing import COLOURS, DARK, MUTED, drawing
from sshr_deploy.train.history import EpochRow, ValScores

_SIZE_IN = (15.0, 8.5)
_DASHES = ("-", "--", ":")
_LOG_FROM = 30.0  # largest loss over smallest
_NAME_CHARS = 28


def write_curves(
    path: Path, rows: Sequence[EpochRow], class_names: Sequence[str], title: str
) -> None:
    """Draw the epochs of a run into a PNG, replacing `path` when it is whole.

    `class_names` in the order of `ValScores.class_iou`. The best epoch is marked, the mean IoU has
    a band of its standard error, and where val is small the mean that chose is drawn. Runs
    without a val split say so instead.

    Raises:
        OutputError: the file cannot be written.
    """
    with drawing(path, _SIZE_IN) as figure:
        figure.suptitle(f"{title}\n{_best_line(rows)}", fontsize=13, parse_math=False)
        losses, labels, segmentation, speed = figure.subplots(2, 2).flat
        _draw_losses(losses, rows)
        _draw_labels(labels, rows)
        _draw_segmentation(segmentation, rows, class_names)
        _draw_speed(speed, rows)
        for axes in (losses, labels, segmentation, speed):
            _finish(axes, rows)


def _line(
    axes: Axes, rows: Sequence[EpochRow], values: Sequence[float | None], **look: object
) -> Line2D:
    """Values by epoch; gaps where there is none, points where there are few epochs."""
    numbers = [float("nan") if v is None else v for v in values]
    marker = "o" if len(rows) <= 12 else None
    epochs = [row.epoch for row in rows]
    return axes.plot(epochs, numbers, marker=marker, markersize=4, **look)[0]  # type: ignore[arg-type]


def _draw_losses(axes: Axes, rows: Sequence[EpochRow]) -> None:
    heads = {
        "56": [row.loss_56 for row in rows],
        "28_1": [row.loss_28_1 for row in rows],
        "28_2": [row.loss_28_2 for row in rows],
        "deep": [row.loss_deep for row in rows],
    }
    total = [row.loss for row in rows]
    lines = {"weighted sum": _line(axes, rows, total, color=DARK, linewidth=2.4)}
    for (name, values), colour in zip(heads.items(), COLOURS, strict=False):
        lines[f"head {name}"] = _line(axes, rows, values, color=colour)
    drawn = [value for values in (total, *heads.values()) for value in values]
    if drawn and 0 < min(drawn) < max(drawn) / _LOG_FROM:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(title="Training loss", ylabel="soft-margin loss, mean of the epoch")
    _legend(axes, lines)


def _draw_labels(axes: Axes, rows: Sequence[EpochRow]) -> None:
    lines = {
        "training, each label": _line(
            axes, rows, [row.label_accuracy for row in rows], color=COLOURS[0]
        ),
        "training, all of a patch": _line(
            axes, rows, [row.exact_match for row in rows], color=COLOURS[1]
        ),
    }
    scored = _scored(rows)
    if scored:
        rows = [row for row, _ in scored]
        each = [scores.label_accuracy for _, scores in scored]
        exact = [scores.exact_match for _, scores in scored]
        lines["val, each label"] = _line(axes, rows, each, color=COLOURS[0], linestyle="--")
        lines["val, all of a patch"] = _line(axes, rows, exact, color=COLOURS[1], linestyle="--")
    axes.set(title="Patch labels", ylabel="right at probability > 0.5", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _legend(axes, lines)


def _draw_segmentation(axes: Axes, rows: Sequence[EpochRow], class_names: Sequence[str]) -> None:
    axes.set(title="Segmentation of the val split", ylabel="IoU, Dice", ylim=(0, 1.02))
    scored, all_rows = _scored(rows), rows
    if not scored:
        axes.text(0.5, 0.5, "no val split", transform=axes.transAxes, ha="center", color=MUTED)
        return
    rows = [row for row, _ in scored]
    lines = {}
    for index, name in enumerate(class_names):
        colour = COLOURS[index % len(COLOURS)]
        dashes = _DASHES[index // len(COLOURS) % len(_DASHES)]
        values = [scores.class_iou[index] for _, scores in scored]
        lines[f"IoU {name}"] = _line(
            axes, rows, values, color=colour, linestyle=dashes, linewidth=1.2
        )
    iou = [scores.mean_iou for _, scores in scored]
    dice = [scores.mean_dice for _, scores in scored]
    means = {
        "mean IoU": _line(axes, rows, iou, color=DARK, linewidth=2.4),
        "mean Dice": _line(axes, rows, dice, color=MUTED, linewidth=2.4),
    }
    errors = [scores.mean_iou_error or 0.0 for _, scores in scored]
    epochs = [row.epoch for row in rows]
    low, high = ([v + sign * e for v, e in zip(iou, errors, strict=True)] for sign in (-1, 1))
    axes.fill_between(epochs, low, high, color=DARK, alpha=0.12, linewidth=0)
    if is_small(scored[0][1]):
        chosen_by = [smoothed_iou(all_rows, row.epoch - 1) for row in rows]
        means[f"mean IoU, {WINDOW} epochs"] = _line(
            axes, rows, chosen_by, color=DARK, linestyle=":"
        )
    _legend(axes, means | lines)


def _draw_speed(axes: Axes, rows: Sequence[EpochRow]) -> None:
    """Two axes, each of the colour of its line."""
    rates = [row.learning_rate for row in rows]
    speeds = [row.patches_per_s for row in rows]
    waits = [row.data_wait_share for row in rows]
    wait = f" (waiting for data: {median(waits):.0%} of the time)" if waits else ""
    _line(axes, rows, rates, color=COLOURS[0])
    axes.set_title(f"Learning rate and speed{wait}")
    axes.set_ylabel("learning rate of the backbone", color=COLOURS[0])
    axes.set_ylim(0, 1.05 * max(rates, default=1.0) or 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    right = axes.twinx()
    _line(right, rows, speeds, color=COLOURS[1])
    right.set_ylabel("training speed, patches/s", color=COLOURS[1])
    right.set_ylim(0, 1.3 * max(speeds, default=1.0) or 1.0)
    right.grid(visible=False)
    right.spines["right"].set_visible(True)


def _finish(axes: Axes, rows: Sequence[EpochRow]) -> None:
    """The common parts of all four: the epochs, and a line at the best one."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    count = max(len(rows), 1)
    margin = max(0.5, 0.02 * count)
    axes.set_xlim(1 - margin, count + margin)
    best = best_row(rows)
    if best is not None:
        axes.axvline(best.epoch, color=MUTED, linestyle=":", linewidth=1.4, zorder=0)


def _best_line(rows: Sequence[EpochRow]) -> str:
    best = best_row(rows)
    if best is None:
        return "no epoch is finished"
    if best.val is None:
        return f"no val split; least loss {best.loss:.4f} at epoch {best.epoch} (dotted line)"
    error = best.val.mean_iou_error
    iou = f"{best.val.mean_iou:.3f}" + ("" if error is None else f" ± {error:.3f}")
    if not is_small(best.val):
        return f"best val mean IoU {iou} at epoch {best.epoch} (dotted line)"
    mean = smoothed_iou(rows, best.epoch - 1)
    return (
        f"epoch {best.epoch} (dotted line) is best by the mean of {WINDOW} epochs, {mean:.3f}; its "
        f"own val mean IoU is {iou}"
    )


def _scored(rows: Sequence[EpochRow]) -> list[tuple[EpochRow, ValScores]]:
    return [(row, row.val) for row in rows if row.val is not None]


def _legend(axes: Axes, lines: dict[str, Line2D]) -> None:
    # Given as lists: matplotlib would leave out names that begin with an underscore.
    names = [name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 1] + "…" for name in lines]
    legend = axes.legend(
        list(lines.values()),
        names,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
