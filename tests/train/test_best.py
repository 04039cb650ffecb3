"""The best epoch of few val images, and whether it can be told from the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sshr_deploy.train.best import best_row, is_small, smoothed_iou, told_apart
from sshr_deploy.train.history import EpochRow, ValScores


def make_rows(
    scores: Sequence[float], images: int | None = 11, error: float | None = 0.05
) -> list[EpochRow]:
    row = EpochRow(1, 5, 0.01, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2, 0.7, None, 40.0, 0.03, 12.0, None)
    return [
        replace(row, epoch=e, val=ValScores(s, 0.5, 0.7, 0.8, 0.6, (s,), images, error))
        for e, s in enumerate(scores, 1)
    ]


def test_of_few_images_a_lucky_epoch_is_not_the_best() -> None:
    scores = (0.3, 0.5, 0.3, 0.42, 0.43, 0.43)
    assert is_small(make_rows(scores)[0].val)  # type: ignore[arg-type]
    for images, best in ((11, 6), (100, 2), (None, 2)):
        found = best_row(make_rows(scores, images))
        assert found is not None
        assert found.epoch == best


def test_the_mean_is_over_an_epoch_and_the_two_before_it() -> None:
    rows = make_rows((0.25, 0.75, 0.5, 0.25))
    assert [smoothed_iou(rows, i) for i in range(4)] == [0.25, 0.5, 0.5, 0.5]
    assert smoothed_iou([replace(rows[0], val=None)], 0) is None


def test_whether_a_row_is_the_best_so_far_never_changes_afterwards() -> None:
    """Or `best.safetensors` would hold other weights than the table says."""
    rows = make_rows((0.9, 0.1, 0.2, 0.6, 0.6, 0.1, 0.9, 0.5, 0.4, 0.6))
    kept = None
    for count in range(1, len(rows) + 1):
        if best_row(rows[:count]) is rows[count - 1]:
            kept = rows[count - 1]
        assert best_row(rows[:count]) is kept


def test_a_difference_below_the_standard_error_tells_nothing() -> None:
    a, b, c = make_rows((0.40, 0.43, 0.46))
    assert [told_apart(a, b), told_apart(b, a), told_apart(a, c), told_apart(a, a)] == [
        False,
        False,
        True,
        True,
    ]
    assert told_apart(*make_rows((0.40, 0.401), error=None))
    assert told_apart(replace(a, val=None), b)
