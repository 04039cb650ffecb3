"""Large images as fields: no borders in them, mirrored at their edges, in order with small ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.geometry import Geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    cell_scores,
    field_rule,
    labels_of,
    to_halves,
)
from sshr_deploy.runtime.pipeline.images import predict_images
from tests.runtime.colour_images import (
    TILES,
    WHOLE,
    ColourSession,
    Pixels,
    colour_cams,
    picture,
    published,
)

GEOMETRY = Geometry(224, 56, 14, 14)
LARGER = Geometry(448, 56, 28, 14)
"""Of sides 224, 336 and 448."""


class Remembering(ColourSession):
    def __init__(self, geometry: Geometry = GEOMETRY, *, any_side: bool = False) -> None:
        super().__init__(geometry, any_side=any_side)
        self.seen: list[Pixels] = []

    def _compute(self, patches: Pixels) -> Any:
        self.seen.extend(patches)
        return super()._compute(patches)


def predicted(images: list[Pixels], profile: Profile, **options: Any) -> list[Any]:
    session = options.pop("fields", None) or ColourSession(GEOMETRY)
    found = predict_images(
        enumerate(images), ColourSession(), profile, fields=lambda: session, **options
    )
    return [prediction for _, prediction in found]


def of_one_field(rgb: Pixels, profile: Profile) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels and largest probabilities of an image that is mirrored to whole cells."""
    height, width = rgb.shape[:2]
    rows, columns = -height % 8, -width % 8
    cam = colour_cams(np.pad(rgb, ((0, rows), (0, columns), (0, 0)), "reflect")[None])[0]
    cams, rule = to_halves(np.stack([cam, cam**2, cam**3])), field_rule(profile)
    scales = LevelScales()
    scales.add(cams)
    scores = cell_scores(cams, to_halves(cam), scales.scales(rule.percentile), rule)
    return labels_of(scores)[:height, :width], cam.max((1, 2))


@pytest.mark.parametrize("size", [(512, 352), (337, 40), (450, 1131), (1024, 1030)])
@pytest.mark.parametrize("batch", [1, 8])
def test_a_large_image_is_labelled_as_one_field(
    size: tuple[int, int], batch: int, profile: Profile
) -> None:
    rgb = picture(*size)
    (prediction,) = predicted([rgb], profile, batch=batch)
    mask, prob = of_one_field(rgb, profile)
    assert np.array_equal(prediction.mask, mask)
    np.testing.assert_allclose(prediction.prob, prob, rtol=1e-6)
    assert prediction.on.tolist() == [True] * 3
    assert prediction.parts == np.prod([-(-side // 112) for side in size])


def test_borders_are_mirrored(profile: Profile) -> None:
    session, rgb = Remembering(), picture(400, 120)
    predicted([rgb], profile, fields=session)
    mirrored = np.pad(rgb, ((56, 56), (56, 160), (0, 0)), "reflect")
    assert np.array_equal(session.seen[0], mirrored[:224, :224])
    assert np.array_equal(session.seen[1], mirrored[:224, 8:232]), "ends with the image"
    assert np.array_equal(session.seen[-1], mirrored[288:512, 8:232])


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((400, 120), [448, 224], [336]),
        ((337, 112), [448, 224], [224]),
        ((700, 336), [448, 448, 224], [448]),
        ((600, 600), [448, 448], [448, 448]),
    ],
)
def test_fields_are_no_larger_than_the_image_needs(
    size: tuple[int, int], rows: list[int], columns: list[int], profile: Profile
) -> None:
    session, rgb = Remembering(LARGER, any_side=True), picture(*size)
    (prediction,) = predicted([rgb], profile, fields=session, batch=64)
    assert [pixels.shape[:2] for pixels in session.seen] == [(r, c) for r in rows for c in columns]
    assert np.array_equal(prediction.mask, of_one_field(rgb, profile)[0])


def test_small_images_and_whole_ones_are_patches_as_published(profile: Profile) -> None:
    images = [picture(200, 300), picture(600, 500), picture(336, 40), picture(30, 400, 1)]
    small, large, other, wide = predicted(images, profile)
    for prediction, rgb in ((small, images[0]), (other, images[2])):
        assert np.array_equal(prediction.mask, published(rgb, profile)[0])
        assert prediction.parts == 1
    assert np.array_equal(large.mask, of_one_field(images[1], profile)[0])
    assert wide.mask.shape == (30, 400)
    (whole,) = predicted([images[1]], profile, large=WHOLE)
    assert np.array_equal(whole.mask, published(images[1], profile)[0])


def test_images_are_brought_to_the_scale_of_the_model(profile: Profile) -> None:
    rgb = picture(800, 760)
    (prediction,) = predicted([rgb], profile, large=TILES, mpp_um=0.5)
    assert prediction.mask.shape == (800, 760)
    assert prediction.parts == 4 * 4
    small = np.asarray(rgb.reshape(400, 2, 380, 2, 3).mean((1, 3)).round(), np.uint8)
    expected = of_one_field(small, profile)[0].repeat(2, 0).repeat(2, 1)
    assert (prediction.mask == expected).mean() > 0.995
    (patch,) = predicted([picture(600, 600)], profile, mpp_um=0.5)
    assert patch.parts == 1, "300 px at the scale of the model"


def test_an_image_that_fails_is_told_and_left_out(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scores: NDArray[np.float32]) -> None:
        raise MemoryError("no memory")

    failed: list[tuple[int, str]] = []
    images = [picture(200, 200), picture(600, 600), picture(300, 300)]
    with monkeypatch.context() as patched:
        patched.setattr("sshr_deploy.runtime.pipeline.image_fields.labels_of", broken)
        found = predict_images(
            enumerate(images),
            ColourSession(),
            profile,
            fields=lambda: ColourSession(GEOMETRY),
            on_error=lambda key, error: failed.append((key, str(error))),
        )
        assert [key for key, _ in found] == [0, 2]
    assert failed == [(1, "no memory")]
