"""The picture of the curves: that it is one, that it shows the data, that it is whole or absent."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("matplotlib")

from sshr_deploy.errors import OutputError
from sshr_deploy.train.curves import write_curves
from sshr_deploy.train.history import EpochRow, ValScores

CLASSES = ("tumour", "stroma", "_normal $x$ 中")


def make_rows(count: int, *, val: bool = True) -> list[EpochRow]:
    scores = ValScores(0.4, 0.5, 0.7, 0.8, 0.6, (0.4, None, 0.3)) if val else None
    row = EpochRow(1, 5, 0.01, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2, 0.7, scores, 40.0, 0.03, 12.0, None)
    return [replace(row, epoch=e, steps=5 * e, loss=0.5 / e) for e in range(1, count + 1)]


def drawn(path: Path, rows: list[EpochRow]) -> NDArray[np.uint8]:
    write_curves(path, rows, CLASSES, "wsss4luad, recipe $moke$")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("count", [0, 1, 100])
def test_any_number_of_epochs(tmp_path: Path, count: int) -> None:
    picture = drawn(tmp_path / "new" / "curves.png", make_rows(count))
    assert picture.shape[0] > 800 and picture.shape[1] > 1200
    assert np.ptp(picture) == 255
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["curves.png"]


def test_what_changes_is_seen_in_its_panel(tmp_path: Path) -> None:
    """Losses top left, labels top right, segmentation bottom left, speed bottom right."""
    rows = make_rows(8)
    before = drawn(tmp_path / "a.png", rows)
    val = rows[4].val
    assert val is not None
    changes = {
        (0, 0): replace(rows[4], loss_deep=0.45),
        (0, 1): replace(rows[4], exact_match=0.6),
        (1, 0): replace(rows[4], val=replace(val, mean_dice=0.9)),
        (1, 1): replace(rows[4], patches_per_s=20.0),
    }
    height, width = before.shape[:2]
    for panel, row in changes.items():
        after = drawn(tmp_path / "c.png", [*rows[:4], row, *rows[5:]])
        y, x = np.nonzero((after != before).any(2))
        assert set(zip(2 * y // height, 2 * x // width, strict=True)) == {panel}


def test_few_val_images_show_the_standard_error_and_the_mean_that_chose(tmp_path: Path) -> None:
    rows = make_rows(8)
    before = drawn(tmp_path / "a.png", rows)
    seen = [before]
    for images, error in ((None, 0.05), (11, None)):
        more = [
            replace(row, val=replace(row.val, images=images, mean_iou_error=error))
            for row in rows
            if row.val is not None
        ]
        picture = drawn(tmp_path / "b.png", more)
        assert not any(np.array_equal(picture, other) for other in seen)
        seen.append(picture)


def test_without_a_val_split(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "a.png", make_rows(3, val=False))
    assert not np.array_equal(picture, drawn(tmp_path / "b.png", make_rows(3)))


def test_the_old_picture_stays_where_the_new_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curves.png"
    write_curves(path, make_rows(1), CLASSES, "old")
    old = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OutputError, match=r"cannot write .*curves\.png: No space"):
        write_curves(path, make_rows(2), CLASSES, "new")
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_and_its_global_state_stay_out() -> None:
    assert "matplotlib.pyplot" not in sys.modules
