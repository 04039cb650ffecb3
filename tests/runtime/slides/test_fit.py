from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.known_tissue import Appearance, KnownTissue
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.runtime.slides.fit import fit_of, spread_over
from sshr_deploy.runtime.slides.plan import read_tile, survey_slide
from tests.runtime.small_slides import measure_slide, small_picture, small_slide

FIRST_LAYER = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])


def pixels(
    haematoxylin: float = 1.0, eosin: float = 1.0, gain: tuple[float, ...] = (1, 1, 1)
) -> NDArray[np.uint8]:
    """Patches [4, 64, 64, 3] of tissue made of both stains, in strengths of their own."""
    amounts = np.random.default_rng(0).uniform(0.2, 1.0, (4, 64, 64, 2))
    light = np.exp(-(amounts * (haematoxylin, eosin)) @ STAINS)
    return np.asarray(np.rint(256 * light * gain - 1).clip(0, 255), np.uint8)


def looks(patches: NDArray[np.uint8]) -> Appearance:
    return appearance_of(patches, FIRST_LAYER, 1.0)


@pytest.fixture(scope="module")
def known() -> KnownTissue:
    return KnownTissue(source="a test", patches=4, class_shares=None, appearance=looks(pixels()))


def test_the_known_tissue_itself_fits(known: KnownTissue) -> None:
    fit = fit_of(known, known.appearance)
    assert (fit.score, fit.verdict) == (0, "fits")
    assert fit.words == "looks like the slides that this model knows"
    assert (fit.darkness, fit.haematoxylin, fit.eosin, fit.tint, fit.detail) == (1, 1, 1, 0, 1)


@pytest.mark.parametrize(
    ("patches", "words"),
    [
        (pixels(0.3, 0.3), "stained far lighter"),
        (pixels(3, 3), "stained far darker"),
        (pixels(haematoxylin=0.2), "far weaker in haematoxylin"),
        (pixels(eosin=3), "far stronger in eosin"),
        (pixels(gain=(1.05, 0.97, 0.7)), "far yellower"),
        (pixels(gain=(0.8, 1, 1.2)), "far bluer"),
    ],
)
def test_words_name_what_differs_most(
    known: KnownTissue, patches: NDArray[np.uint8], words: str
) -> None:
    fit = fit_of(known, looks(patches))
    assert fit.verdict == "far"
    assert (
        fit.words == f"{words} than the slides that this model knows: adapt it with "
        "sshr-deploy adapt"
    )


def test_figures_are_the_factors_of_the_stains(known: KnownTissue) -> None:
    fit = fit_of(known, looks(pixels(0.7, 1.4)))
    assert fit.haematoxylin == pytest.approx(0.7, abs=0.02)
    assert fit.eosin == pytest.approx(1.4, abs=0.02)


def test_noise_and_blur_are_named_and_not_for_adapt(known: KnownTissue) -> None:
    fine = known.appearance.layer_spread
    for factor, words in ((0.2, "far more blurred than"), (5, "far sharper or noisier than")):
        spread = tuple(factor * value for value in fine)
        fit = fit_of(known, known.appearance.model_copy(update={"layer_spread": spread}))
        assert fit.words.startswith(words)
        assert fit.words.endswith(": check focus, compression and noise of the scan")
        assert fit.detail == pytest.approx(factor)


def test_the_score_is_the_distance_by_its_definition(known: KnownTissue) -> None:
    look = known.appearance
    darker = look.model_copy(
        update={
            "density_mean": tuple(np.add(look.density_mean, (0.1, 0.0, -0.05))),
            "density_spread": tuple(np.multiply(look.density_spread, 1.2)),
        }
    )
    red, green, blue = look.density_spread
    rg, rb, gb = look.density_correlation
    covariance = np.array(
        [
            [red * red, rg * red * green, rb * red * blue],
            [rg * red * green, green * green, gb * green * blue],
            [rb * red * blue, gb * green * blue, blue * blue],
        ]
    )
    covariance += 0.02**2 * np.eye(3)
    shift = np.array([0.1, 0.0, -0.05])
    expected = np.sqrt(shift @ np.linalg.inv(covariance) @ shift / 3 + np.log(1.2) ** 2)
    assert fit_of(known, darker).score == pytest.approx(expected, rel=1e-3)


def test_degenerate_appearances_have_a_finite_score() -> None:
    flat = looks(np.full((1, 64, 64, 3), (176, 96, 160), np.uint8))
    known = KnownTissue(source="one colour", patches=1, class_shares=None, appearance=flat)
    assert np.isfinite(fit_of(known, looks(pixels())).score)
    assert fit_of(known, flat).score == 0


def test_a_slide_is_measured_on_its_tissue_alone(tmp_path: Path) -> None:
    picture = small_picture()
    with open_slide(small_slide(tmp_path / "a.tif")) as reader:
        survey = survey_slide(reader, 1.0)
        found = measure_slide(reader, survey, FIRST_LAYER)
        tiles = [read_tile(reader, survey.mpp, survey.grid, tile) for tile in survey.grid.tiles()]
    assert found is not None
    whole = appearance_of(np.stack(tiles), FIRST_LAYER, 1.0)
    np.testing.assert_allclose(found.density_mean, whole.density_mean, rtol=0.1)
    stained = picture[picture.min(axis=2) < 200]
    mean = np.log(256 / (stained + 1.0)).mean(0)
    np.testing.assert_allclose(found.density_mean, mean, rtol=0.15)


def test_a_slide_of_glass_is_not_measured(tmp_path: Path) -> None:
    glass = small_slide(tmp_path / "glass.tif", np.full((300, 300, 3), 243, np.uint8))
    with open_slide(glass) as reader:
        assert measure_slide(reader, survey_slide(reader, 1.0), FIRST_LAYER) is None
        everything = survey_slide(reader, 1.0, concern_of=lambda _: "no H&E")
        assert measure_slide(reader, everything, FIRST_LAYER) is None


def test_places_are_spread_evenly_over_a_mask() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[3:9, 5:25], mask[15] = True, True
    places = spread_over(mask, 10)
    order = np.cumsum(mask.ravel()) - 1
    ranks = [int(order[row * 30 + column]) for row, column in places]
    assert all(mask[place] for place in places)
    assert ranks == [int((k + 0.5) * mask.sum() / 10) for k in range(10)]
    assert spread_over(mask & False, 10) == []
    assert len(spread_over(mask, 1000)) == mask.sum()
