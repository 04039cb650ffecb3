from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.benchmarks import fit_curve
from sshr_deploy.benchmarks.fit_curve import Point, measure
from sshr_deploy.benchmarks.perturbations import CLEAN, PERTURBATIONS
from sshr_deploy.errors import UsageError
from tests.runtime.small_slides import small_picture


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tint = next(way for way in PERTURBATIONS if way.name == "tint")
    monkeypatch.setattr(fit_curve, "PERTURBATIONS", (CLEAN, tint))
    for part in ("img", "mask"):
        (tmp_path / part).mkdir()
    rgb = small_picture()[40:264, 60:284]
    Image.fromarray(rgb).save(tmp_path / "img" / "a.png")
    truth = np.arange(rgb.shape[0] * rgb.shape[1], dtype=np.uint32).reshape(rgb.shape[:2]) % 3
    Image.fromarray(truth.astype(np.uint8)).save(tmp_path / "mask" / "a.png")
    return tmp_path


def test_a_curve_begins_with_the_images_as_they_are(own_checkpoint: Path, split: Path) -> None:
    points: list[Point] = []
    found = measure(own_checkpoint, split, split, points.append)
    assert [(p.perturbation, p.times) for p in points] == [
        ("clean", 1), ("clean", 2), ("tint", 1), ("tint", 2),
    ]  # fmt: skip
    assert [p.lost_mean_iou for p in points[:2]] == [0, 0]
    assert points[0].fit.score == 0
    assert points[0].fit.score < points[2].fit.score < points[3].fit.score
    assert [p["mean_iou"] for p in found["points"]] == [p.mean_iou for p in points]
    assert found["clean_fit_of_single_images"] == [points[0].fit.model_dump()]


def test_known_tissue_has_to_come_from_somewhere(own_checkpoint: Path, split: Path) -> None:
    with pytest.raises(UsageError, match="does not state its tissue; give its patches"):
        measure(own_checkpoint, split, None)
