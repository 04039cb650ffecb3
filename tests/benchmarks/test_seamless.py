from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sshr_deploy.benchmarks import seamless
from sshr_deploy.benchmarks.seamless import continued, field_of, measure
from sshr_deploy.model import predict
from sshr_deploy.model.checkpoint import load_checkpoint, read_profile
from sshr_deploy.runtime.contract import CamBatch
from sshr_deploy.runtime.evaluation.seams import Seams
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.scores import confusion_matrix, scores_from
from tests.runtime.colour_images import Pixels, picture


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for part in ("img", "mask"):
        (tmp_path / part).mkdir()
    for seed, (height, width) in enumerate([(250, 230), (210, 330)]):
        Image.fromarray(picture(height, width, seed)).save(tmp_path / "img" / f"{seed}.png")
        truth = picture(height, width, seed + 50)[..., 0] // 64
        Image.fromarray(truth).save(tmp_path / "mask" / f"{seed}.png")
    return tmp_path


def test_tiles_are_the_published_patches_of_the_image_s_own_scale(
    split: Path, own_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seamless, "WINDOWS_CELLS", (28,))
    found = measure(own_checkpoint, split)
    model, profile = load_checkpoint(own_checkpoint), read_profile(own_checkpoint)
    confusion, seams = np.zeros((3, 4), np.int64), Seams()
    for index in range(2):
        rgb = np.asarray(Image.open(split / "img" / f"{index}.png"))
        truth = np.asarray(Image.open(split / "mask" / f"{index}.png"))
        large = cv2.copyMakeBorder(rgb, 0, 448, 0, 448, cv2.BORDER_REFLECT)
        labels = np.zeros((448, 448), np.uint8)
        for top in (0, 224):
            for left in (0, 224):
                patch = large[top : top + 224, left : left + 224]
                cams = CamBatch(*predict(model, patch[None]))
                labels[top : top + 224, left : left + 224] = reference_mask(
                    cams, 0, profile, height_px=224, width_px=224
                )
        labels = labels[: truth.shape[0], : truth.shape[1]]
        confusion += confusion_matrix(truth, labels, 3)
        labels[truth == 3] = 3
        seams += Seams.of_mask(labels, 3, rows=[224], columns=[224])
    assert found["reference"]["mean_iou"] == scores_from(confusion).mean_iou
    assert found["reference"]["seam_ratio"] == seams.ratio
    assert len(found["reference"]["seam_ratios_elsewhere"]) == 7
    settings = [(r["percentile"], r["gate"], r["weights"], r["scales"]) for r in found["fields"]]
    assert len(set(settings)) == len(settings) == 10
    assert all(0 <= row["mean_iou"] <= 1 for row in found["fields"])


@pytest.mark.parametrize("size", [(224, 224), (200, 61)])
def test_an_image_no_larger_than_a_patch_has_one_window(
    own_checkpoint: Path, size: tuple[int, int]
) -> None:
    model, rgb = load_checkpoint(own_checkpoint), picture(*size)
    field = field_of(model, rgb, 28)
    patch = predict(model, continued(rgb, 224, 224)[None])
    assert field.cams.shape == (3, 3, -(-size[0] // 8), -(-size[1] // 8))
    expected = np.stack(patch[:3])[:, 0, :, : field.cams.shape[2], : field.cams.shape[3]]
    assert np.array_equal(field.cams, expected.astype(np.float16))
    assert np.array_equal(field.prob[:, 0, 0], patch.prob[0])


def test_an_image_goes_on_as_its_reflection() -> None:
    rgb: Pixels = picture(5, 7)
    found = continued(rgb, 13, 9)
    assert np.array_equal(found, cv2.copyMakeBorder(rgb, 0, 8, 0, 2, cv2.BORDER_REFLECT))
