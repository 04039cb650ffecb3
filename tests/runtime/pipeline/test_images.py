"""Images in parts: where they are cut, and that each part is a patch as published."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.pipeline import images as image_parts
from sshr_deploy.runtime.pipeline.images import is_large, parts_of, predict_images
from tests.runtime.colour_images import (
    TILES,
    WHOLE,
    ColourSession,
    Pixels,
    picture,
    predict_image,
    published,
)


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
    prediction = predict_image(rgb, ColourSession(), profile, WHOLE, 8)
    expected_mask, expected_prob = published(rgb, profile)
    assert np.array_equal(prediction.mask, expected_mask)
    assert np.array_equal(prediction.prob, expected_prob)
    assert prediction.mask.dtype == np.uint8
    assert prediction.prob.dtype == np.float32
    assert prediction.parts == 1


def test_a_cut_image_is_its_parts_side_by_side(profile: Profile) -> None:
    rgb = picture(700, 400)
    prediction = predict_image(rgb, ColourSession(), profile, TILES, 4)
    probs = []
    for top, bottom in ((0, 233), (233, 466), (466, 700)):
        for left, right in ((0, 200), (200, 400)):
            part_mask, part_prob = published(rgb[top:bottom, left:right], profile)
            assert np.array_equal(prediction.mask[top:bottom, left:right], part_mask)
            probs.append(part_prob)
    assert np.array_equal(prediction.prob, np.max(probs, 0))
    assert prediction.parts == 6


def test_a_class_is_on_where_it_is_on_in_any_part(profile: Profile) -> None:
    rgb = np.zeros((224, 448, 3), np.uint8)
    rgb[:, :224] = (20, 10, 0)  # all below the gate: the best alone is on
    rgb[:, 224:] = (0, 30, 0)
    mask, _, on, *_ = predict_image(rgb, ColourSession(), profile, TILES, 8)
    assert on.tolist() == [True, True, False]
    assert set(np.unique(mask)) <= {0, 1}


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


@pytest.mark.parametrize(
    ("size", "scale", "counts"),
    [
        ((448, 900), 0.5, (1, 2)),  # half the model's pixels: parts of about 448 px
        ((200, 150), 2.0, (2, 1)),  # twice its pixels: parts of about 112 px
        ((672, 673), 0.5, (1, 2)),
    ],
)
def test_parts_are_a_patch_at_the_models_pixel_size(
    size: tuple[int, int], scale: float, counts: tuple[int, int]
) -> None:
    parts = parts_of(*size, TILES, scale)
    tops, lefts = {p.top for p in parts}, {p.left for p in parts}
    assert (len(tops), len(lefts)) == counts
    assert len(parts_of(*size, WHOLE, scale)) == 1
    assert is_large(*size, scale) == (len(parts) > 1)
    assert sum((p.bottom - p.top) * (p.right - p.left) for p in parts) == size[0] * size[1]


def test_a_known_pixel_size_brings_an_image_to_the_models_scale(profile: Profile) -> None:
    rgb = picture(500, 300)
    twice = np.asarray(Image.fromarray(rgb).resize((600, 1000), Image.Resampling.NEAREST))
    unknown = predict_image(rgb, ColourSession(), profile, TILES, 8)
    same = predict_image(rgb, ColourSession(), profile, TILES, 8, profile.mpp_um)
    finer = predict_image(twice, ColourSession(), profile, TILES, 8, profile.mpp_um / 2)
    assert np.array_equal(same.mask, unknown.mask)
    assert np.array_equal(same.prob, unknown.prob)
    assert finer.parts == unknown.parts == 2
    assert (finer.mask[::2, ::2] == unknown.mask).mean() > 0.98


def test_progress_tells_of_the_image_that_is_not_finished(profile: Profile) -> None:
    told: list[tuple[int, int, int]] = []
    images = [(0, picture(224, 900)), (1, picture(224, 448)), (2, picture(224, 224))]
    finished = predict_images(
        images, ColourSession(), profile, batch=3, on_parts=lambda *done: told.append(done)
    )
    assert [(key, len(told)) for key, _ in finished] == [(0, 1), (1, 1), (2, 1)]
    assert told == [(0, 3, 4)]


def test_memory_does_not_grow_with_an_image_that_is_cut(profile: Profile) -> None:
    session = ColourSession()
    prediction = predict_image(picture(3000, 2000), session, profile, TILES, 8)
    assert prediction.parts == 13 * 9
    assert max(session.batches) == 8


def test_a_defect_goes_to_whom_it_concerns_or_is_raised(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rgb: Pixels) -> Pixels:
        if rgb.shape[:2] == (40, 40):
            raise MemoryError("too large")
        return resize_to_patch(rgb)

    monkeypatch.setattr(image_parts, "resize_to_patch", fail)
    images = [(0, picture(50, 50)), *((i, picture(40, 40)) for i in range(1, 4))]
    told: list[tuple[int, str]] = []
    finished = predict_images(
        images, ColourSession(), profile, on_error=lambda key, e: told.append((key, str(e)))
    )
    assert [key for key, _ in finished] == [0]
    assert told == [(i, "too large") for i in range(1, 4)]
    with pytest.raises(MemoryError, match="too large"):
        list(predict_images(images, ColourSession(), profile))
