"""Faults of slides, on a real slide that is blurred, paled and cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.fit import sample_patches
from sshr_deploy.runtime.slides.plan import survey_slide
from sshr_deploy.runtime.slides.quality import (
    BLURRED_BELOW,
    PALE_OD,
    Quality,
    border_um,
    quality_of,
    sharpness,
)
from sshr_deploy.runtime.slides.tissue_map import TissueMap
from tests.runtime.slides.synthetic import ArrayReader

Rgb = NDArray[np.uint8]


@pytest.fixture(scope="module")
def pixels(demo_slide: Path) -> Rgb:
    """The slide's lower half at 1 um/px, [742, 1110, 3]."""
    with open_slide(demo_slide) as reader:
        rgb = reader.read_region(0, 0, 1483, 2220, 1484)
    return cv2.resize(rgb, (1110, 742), interpolation=cv2.INTER_AREA).astype(np.uint8)


def quality(rgb: Rgb, mpp_um: float = 1.0, target_mpp_um: float = 1.0) -> Quality:
    reader = ArrayReader([rgb], (mpp_um, mpp_um))
    survey = survey_slide(reader, target_mpp_um)
    return quality_of(survey, sample_patches(reader, survey))


def blurred(sigma_px: float) -> Callable[[Rgb], Rgb]:
    return lambda rgb: cv2.GaussianBlur(rgb, (0, 0), sigma_px).astype(np.uint8)


def test_a_sharp_slide_has_no_fault_but_that_it_was_cut(pixels: Rgb) -> None:
    found = quality(pixels)
    assert (found.judged, found.blurred) == (16, 0)
    assert found.green_od is not None and found.green_od > 2 * PALE_OD
    assert 500 < found.border_um < 1100  # its upper and lower edges run through the tissue


@pytest.mark.parametrize(
    ("sigma_px", "least", "most"), [(1.0, 0.0, 0.0), (2.0, 0.7, 1.0), (3.0, 1.0, 1.0)]
)
def test_blur_of_two_pixels_is_out_of_focus(
    pixels: Rgb, sigma_px: float, least: float, most: float
) -> None:
    found = quality(blurred(sigma_px)(pixels))
    assert least <= found.blurred / found.judged <= most


def test_a_part_out_of_focus_is_a_part_of_the_places(pixels: Rgb) -> None:
    half = pixels.copy()
    half[371:] = blurred(5.0)(pixels[371:])
    found = quality(half)
    assert 0.2 < found.blurred / found.judged < 0.75


def test_sharpness_does_not_depend_on_contrast_or_noise(pixels: Rgb) -> None:
    density = np.log(256 / (pixels[..., 1] + 1.0)).astype(np.float32)
    tissue = density > 0.2
    plain = sharpness(density, tissue)
    assert plain > BLURRED_BELOW
    assert sharpness(0.2 * density, tissue) == pytest.approx(plain, rel=1e-4)
    noise = np.random.default_rng(0).normal(0, 0.03, density.shape).astype(np.float32)
    soft = cv2.GaussianBlur(density, (0, 0), 3.0)
    assert sharpness(soft + noise, tissue) < BLURRED_BELOW
    assert sharpness(np.zeros_like(density), tissue) == 0


def test_enlarged_pixels_are_not_out_of_focus(pixels: Rgb) -> None:
    """A slide of 1 um/px for a model of 0.5 um/px."""
    assert quality(pixels, target_mpp_um=0.5).blurred == 0


def test_pale_stain_is_measured_as_optical_density(pixels: Rgb) -> None:
    faint = 243 * (np.maximum(pixels, 1) / 243.0) ** 0.25
    found = quality(np.clip(faint, 0, 255).astype(np.uint8))
    assert found.green_od is not None and found.green_od < PALE_OD


def test_without_tissue_there_is_nothing_to_judge() -> None:
    assert quality(np.full((500, 500, 3), 243, np.uint8)) == Quality(0, 0, None, 0.0)


def test_the_border_counts_each_edge() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[10:20, 10:20] = True
    assert border_um(TissueMap(mask, (4.0, 4.0), 2.0)) == 0
    mask[0, 5:15] = mask[25:30, 58] = True  # the last row or column may be glass in part
    assert border_um(TissueMap(mask, (4.0, 4.0), 2.0)) == 2.0 * (10 + 5)
    assert border_um(TissueMap(np.ones((40, 60), np.bool_), (4.0, 4.0), 2.0)) == 0
