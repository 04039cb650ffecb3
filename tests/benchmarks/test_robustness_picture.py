"""The picture of robustness: it shows the data, whatever the names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from sshr_deploy.benchmarks.robustness_picture import write_picture
from sshr_deploy.errors import OutputError

WORDS = ("clean", "warm tint", "blur")


def report(models: list[str], classes: list[str], iou: float | None = 0.4) -> dict[str, Any]:
    row = {"mean_iou": 0.5, "class_iou": [iou, *[0.6] * (len(classes) - 1)]}
    return {
        "split": {"images": 11},
        "settings": {"mode": "seamless"},
        "classes": classes,
        "perturbations": [{"words": words} for words in WORDS],
        "models": [{"name": name, "rows": [row] * len(WORDS)} for name in models],
    }


def drawn(path: Path, document: dict[str, Any]) -> Image.Image:
    write_picture(path, document)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def test_scores_move_their_marks(tmp_path: Path) -> None:
    path, names = tmp_path / "x.png", ["tumour", "stroma"]
    first, *others = (
        np.asarray(drawn(path, report(["a"], names, iou))) for iou in (0.4, 0.5, None)
    )
    for other in others:
        columns = np.nonzero((first != other).any((0, 2)))[0]
        middle = first.shape[1] * np.array([0.4, 0.75])  # the second of three panels
        assert middle[0] < columns.min() and columns.max() < middle[1]


def test_many_classes_and_networks_of_any_name(tmp_path: Path) -> None:
    names = ["_under", "$x$ & <y>", "中", "a long name " * 5, *"efg"]
    few = drawn(tmp_path / "few.png", report(["one"], names[:2]))
    many = drawn(tmp_path / "many.png", report(["_before $1$", "after " * 20, "third"], names))
    assert many.height > 1.5 * few.height and many.width > few.width


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_picture(tmp_path / "file" / "x.png", report(["a"], ["b"]))
