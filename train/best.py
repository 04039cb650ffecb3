"""The epoch whose weights a run keeps as its best, and how sure that choice is."""

from __future__ import annotations

from collections.abc import Sequence

from sshr_deploy.train.history import EpochRow, ValScores

SMALL_VAL = 100
"""Val images below which chance moves the mean IoU from epoch to epoch more than training does."""
WINDOW = 3
"""Epochs whose mean counts then."""


def best_row(rows: Sequence[EpochRow]) -> EpochRow | None:
    """The row with the highest val mean IoU, or where none has one that of the least loss.

    Where val is small, a row counts by `smoothed_iou`, and those with fewer than `WINDOW` rows to
    average only while there is none with as many. The first of equals; None of no rows. Later rows
    change nothing in how two rows compare: the best weights can be kept as they come.
    """
    if any(row.val is not None for row in rows):
        return rows[max(range(len(rows)), key=lambda index: _rank(rows, index))]
    return min(rows, key=lambda row: row.loss, default=None)


def is_small(val: ValScores) -> bool:
    """Whether the scores are of few images; False where their number is not known."""
    return val.images is not None and val.images < SMALL_VAL


def smoothed_iou(rows: Sequence[EpochRow], index: int) -> float | None:
    """Mean of val mean IoU over the row at `index` and those before it, `WINDOW` in all."""
    scores = _window(rows, index)
    return sum(scores) / len(scores) if scores else None


def told_apart(one: EpochRow, other: EpochRow) -> bool:
    """Whether the val mean IoU of two rows differ by the standard error of either, or more.

    True where it is not known.
    """
    if one is other or one.val is None or other.val is None:
        return True
    errors = [v.mean_iou_error for v in (one.val, other.val) if v.mean_iou_error is not None]
    return abs(one.val.mean_iou - other.val.mean_iou) >= max(errors, default=0.0)


def _window(rows: Sequence[EpochRow], index: int) -> list[float]:
    window = rows[max(0, index + 1 - WINDOW) : index + 1]
    return [row.val.mean_iou for row in window if row.val is not None]


def _rank(rows: Sequence[EpochRow], index: int) -> tuple[int, float]:
    val, scores = rows[index].val, _window(rows, index)
    if val is None:
        return 0, 0.0
    return (len(scores), sum(scores) / len(scores)) if is_small(val) else (1, val.mean_iou)
