from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import DatasetError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation import LargeImages
from sshr_deploy.runtime.evaluation.evaluate import (
    Prediction,
    evaluate_split,
    parts_of,
    predict_images,
)
from sshr_deploy.runtime.evaluation.report import report
from sshr_deploy.runtime.evaluation.scores import Tally
from sshr_deploy.runtime.evaluation.split import TruthImage, read_split, read_truth
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.sessions import CamBatch, Session, SessionInfo
from sshr_deploy.runtime.sessions.base import BaseSession

Pixels = NDArray[np.uint8]
TILES, WHOLE = LargeImages.TILES, LargeImages.WHOLE


def predict_image(
    rgb: Pixels, session: Session, profile: Profile, large: LargeImages, batch: int
) -> Prediction:
    ((_, prediction),) = predict_images([(None, rgb)], session, profile, large, batch)
    return prediction


class ColourSession(BaseSession):
    """Its CAM of class c is colour channel c, its probability that channel's mean."""

    def __init__(self) -> None:
        self.info = SessionInfo("colours", "fp32", "CPU", "none 0")
        self.batches: list[int] = []

    def infer(self, patches: Pixels) -> CamBatch:
        self.batches.append(len(patches))
        cells = patches.reshape(-1, 28, 8, 28, 8, 3).mean((2, 4), dtype=np.float32)
        cam = (cells.transpose(0, 3, 1, 2) / 255).astype(np.float32)
        return CamBatch(cam, cam**2, cam**3, cam.mean((2, 3)))

    def close(self) -> None: ...


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def published(rgb: Pixels, profile: Profile) -> tuple[Pixels, NDArray[np.float32]]:
    """One patch alone, straight from the definition."""
    resized = np.asarray(Image.fromarray(rgb).resize((224, 224), Image.Resampling.BILINEAR))
    cams = ColourSession().infer(resized[None])
    height, width = rgb.shape[:2]
    return reference_mask(cams, 0, profile, height_px=height, width_px=width), cams.prob[0]


@pytest.fixture
def split(tmp_path: Path, profile: Profile) -> tuple[TruthImage, ...]:
    sizes = [(224, 224), (500, 300), (90, 350), (700, 40), (336, 336), (224, 224), (30, 20)]
    for part in ("img", "mask"):
        (tmp_path / part).mkdir()
    for seed, (height, width) in enumerate(sizes):
        Image.fromarray(picture(height, width, seed)).save(tmp_path / "img" / f"{seed}.png")
        truth = picture(height, width, seed + 50)[..., 0] // 64
        Image.fromarray(truth).save(tmp_path / "mask" / f"{seed}.png")
    return read_split(tmp_path, profile)


@pytest.mark.parametrize(
    ("size", "ends"),
    [
        ((224, 224), ([0, 224], [0, 224])),
        ((336, 10), ([0, 336], [0, 10])),
        ((337, 336), ([0, 168, 337], [0, 336])),
        ((700, 500), ([0, 233, 466, 700], [0, 250, 500])),
    ],
)
def test_large_sides_are_cut_evenly(
    size: tuple[int, int], ends: tuple[list[int], list[int]]
) -> None:
    rows, columns = ends
    expected = [
        (top, bottom, left, right)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    assert parts_of(*size, TILES) == expected
    assert parts_of(*size, WHOLE) == [(0, size[0], 0, size[1])]


@pytest.mark.parametrize("side", [337, 448, 561, 999, 1710])
def test_parts_cover_every_pixel_once_and_are_near_a_patch(side: int) -> None:
    covered = np.zeros((side, side), int)
    for top, bottom, left, right in parts_of(side, side, TILES):
        covered[top:bottom, left:right] += 1
        assert 224 / 1.5 <= bottom - top <= 224 * 1.5
    assert (covered == 1).all()


def test_a_whole_image_is_one_published_patch(profile: Profile) -> None:
    rgb = picture(500, 370)
    mask, prob = predict_image(rgb, ColourSession(), profile, WHOLE, 8)
    expected_mask, expected_prob = published(rgb, profile)
    assert np.array_equal(mask, expected_mask)
    assert np.array_equal(prob, expected_prob)
    assert mask.dtype == np.uint8
    assert prob.dtype == np.float32


def test_a_cut_image_is_its_parts_side_by_side(profile: Profile) -> None:
    rgb = picture(700, 400)
    mask, prob = predict_image(rgb, ColourSession(), profile, TILES, 4)
    probs = []
    for top, bottom in ((0, 233), (233, 466), (466, 700)):
        for left, right in ((0, 200), (200, 400)):
            part_mask, part_prob = published(rgb[top:bottom, left:right], profile)
            assert np.array_equal(mask[top:bottom, left:right], part_mask)
            probs.append(part_prob)
    assert np.array_equal(prob, np.max(probs, 0))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 100])
def test_the_batch_changes_nothing_and_is_filled_across_images(
    profile: Profile, batch: int
) -> None:
    sizes = [(224, 224), (700, 400), (40, 40), (400, 400), (10, 350), (224, 224)]
    images = [picture(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    session = ColourSession()
    keyed = list(predict_images(enumerate(images), session, profile, TILES, batch))
    assert [key for key, _ in keyed] == list(range(len(images)))
    for (_, prediction), rgb in zip(keyed, images, strict=True):
        alone = predict_image(rgb, ColourSession(), profile, TILES, 1)
        assert np.array_equal(prediction.mask, alone.mask)
        assert np.array_equal(prediction.prob, alone.prob)
    parts = 1 + 6 + 1 + 4 + 2 + 1
    assert session.batches[:-1] == [batch] * (len(session.batches) - 1)
    assert sum(session.batches) == parts


def test_images_are_asked_for_only_as_they_are_needed(profile: Profile) -> None:
    asked: list[int] = []

    def images() -> Iterator[tuple[int, Pixels]]:
        for index in range(40):
            asked.append(index)
            yield index, picture(224, 224, index)

    predictions = predict_images(images(), ColourSession(), profile, TILES, 4)
    for index, _ in predictions:
        assert len(asked) <= index + 5


@pytest.mark.parametrize("large", [TILES, WHOLE])
def test_a_split_is_scored_pixel_by_pixel(
    split: tuple[TruthImage, ...], profile: Profile, large: LargeImages
) -> None:
    seen: list[str] = []
    evaluation = evaluate_split(
        split, ColourSession(), profile, large=large, batch=3, samples=3,
        on_image=lambda item: seen.append(item.name),
    )  # fmt: skip
    expected = np.zeros((3, 4), np.int64)
    hits = np.zeros(3, np.int64)
    exact = 0
    for item in split:
        rgb, truth = read_truth(item, 3)
        mask, prob = predict_image(rgb, ColourSession(), profile, large, 1)
        for t, p in zip(truth.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if t < 3:
                expected[t, p] += 1
        right = [(prob[c] > 0.5) == (c in truth) for c in range(3)]
        hits += right
        exact += all(right)
    tally = evaluation.tally
    assert np.array_equal(tally.confusion, expected)
    assert np.array_equal(tally.label_hits, hits)
    assert (tally.exact_matches, tally.images) == (exact, len(split))
    assert seen == [item.name for item in split]
    assert [s.name for s in evaluation.samples] == ["0.png", "3.png", "6.png"]


def test_shares_of_two_processes_add_up(split: tuple[TruthImage, ...], profile: Profile) -> None:
    both = [evaluate_split(split[i::2], ColourSession(), profile).tally for i in range(2)]
    whole = evaluate_split(split, ColourSession(), profile).tally
    assert np.array_equal((both[0] + both[1]).to_vector(), whole.to_vector())
    nothing = evaluate_split([], ColourSession(), profile)
    assert np.array_equal(nothing.tally.to_vector(), Tally.empty(3).to_vector())
    assert nothing.samples == ()


def test_the_report_is_json_and_consistent(split: tuple[TruthImage, ...], profile: Profile) -> None:
    session = ColourSession()
    evaluation = evaluate_split(split, session, profile)
    document = report(
        evaluation, profile, session.info, {"kind": "test"}, split="val", large=TILES, batch=8
    )
    document["engine"] |= {"notes": list(document["engine"]["notes"])}  # JSON has no tuples
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    scores = evaluation.tally.scores()
    assert document["scores"]["mean_iou"] == scores.mean_iou
    assert [c["iou"] for c in document["classes"]] == list(scores.class_iou)
    assert [c["name"] for c in document["classes"]] == ["tumour", "stroma", "normal"]
    assert sum(c["truth_share"] for c in document["classes"]) == pytest.approx(1)
    assert document["split"]["scored_pixels"] == np.sum(document["confusion"]["pixels"])
    assert document["settings"] == {"large": "tiles", "batch": 8, "label_threshold": 0.5}
    assert document["engine"]["engine"] == "colours"


def test_masks_of_background_only_are_an_error(
    split: tuple[TruthImage, ...], profile: Profile
) -> None:
    for item in split:
        with Image.open(item.mask) as mask:
            blank = Image.new("L", mask.size, 3)
        blank.save(item.mask)
    session = ColourSession()
    evaluation = evaluate_split(split, session, profile)
    with pytest.raises(DatasetError, match="background only"):
        report(evaluation, profile, session.info, {}, split="val", large=TILES, batch=8)
