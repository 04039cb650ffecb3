from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.runtime.slides import Mpp, open_slide
from sshr_deploy.runtime.slides.tissue import detect_tissue, thumbnail
from sshr_deploy.runtime.slides.tissue_map import TissueMap
from tests.runtime.slides.synthetic import ArrayReader, Rgb, pyramid, smooth_noise

SMALL_REGION = Path(__file__).parents[3] / "demo" / "data" / "CMU-1-Small-Region.svs"
SIZE = 400
GLASS = (243, 242, 244)
# stain vectors (red, green, blue) of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23, 2001
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])


def glass(seed: int = 0, level: tuple[int, int, int] = GLASS) -> Rgb:
    noise = np.random.default_rng(seed).normal(0, 2, (SIZE, SIZE, 3))
    picture: Rgb = np.clip(np.array(level) + noise, 0, 255).astype(np.uint8)
    return picture


def stained(seed: int = 0, strength: float = 1.0) -> Rgb:
    """H&E: eosin of uneven density and round nuclei, on 2 um pixels."""
    rng = np.random.default_rng(seed)
    eosin = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)), (0, 0), 2.0)
    eosin = 0.45 + 0.25 * eosin / eosin.std()
    nuclei = np.zeros((SIZE, SIZE))
    for x, y in rng.integers(0, SIZE, (1200, 2)):
        cv2.circle(nuclei, (int(x), int(y)), 2, 1.0, -1)
    density = np.clip(eosin, 0.1, 2)[..., None] * EOSIN + nuclei[..., None] * HAEMATOXYLIN
    picture: Rgb = (np.array(GLASS) * np.exp(-strength * density)).astype(np.uint8)
    return picture


def blend(below: Rgb, above: Rgb, share: NDArray[np.float64]) -> Rgb:
    mixed = below * (1 - share[..., None]) + above * share[..., None]
    picture: Rgb = mixed.astype(np.uint8)
    return picture


def disc(radius_px: float, x: float = SIZE / 2, y: float = SIZE / 2) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    inside: NDArray[np.bool_] = np.hypot(columns - x, rows - y) < radius_px
    return inside


def soft_stroke(width_px: int) -> NDArray[np.float64]:
    """A pen stroke, out of focus as ink on the cover glass is."""
    line = np.zeros((SIZE, SIZE))
    cv2.line(line, (40, 300), (360, 120), 1.0, width_px)
    return cv2.GaussianBlur(line, (0, 0), 8.0).astype(np.float64)


@pytest.mark.parametrize("mpp_um", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("level", [(255, 255, 255), GLASS, (222, 220, 216), (240, 236, 243)])
def test_a_picture_of_glass_alone_has_no_tissue(level: tuple[int, int, int], mpp_um: float) -> None:
    assert not detect_tissue(glass(level=level), mpp_um).any()


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_a_picture_of_tissue_alone_is_all_tissue(strength: float) -> None:
    assert detect_tissue(stained(strength=strength), 2.0).mean() > 0.995


def test_tissue_on_glass_has_its_outline() -> None:
    truth = disc(120)
    found = detect_tissue(np.where(truth[..., None], stained(), glass()), 2.0)
    assert (found & truth).sum() / (found | truth).sum() > 0.97


def test_specks_go_and_small_holes_are_filled_but_large_ones_stay() -> None:
    truth = disc(120) & ~disc(50)
    shown = (truth & ~disc(9, 200, 110)) | disc(8, 30, 30)
    found = detect_tissue(np.where(shown[..., None], stained(), glass()), 2.0)
    assert (found & truth).sum() / (found | truth).sum() > 0.95
    assert not found[20:40, 20:40].any()
    assert found[110, 200]
    assert not found[200, 200]


@pytest.mark.parametrize(
    "color",
    [(45, 165, 140), (40, 60, 165), (212, 38, 58), (25, 25, 28), (150, 150, 152)],
    ids=["green", "blue", "red", "black", "grey shadow"],
)
def test_ink_on_glass_is_no_tissue(color: tuple[int, int, int]) -> None:
    inked = blend(glass(), np.full_like(glass(), color), soft_stroke(50))
    assert detect_tissue(inked, 2.0).mean() < 0.002
    truth = disc(90, 95, 95)
    both = np.where(truth[..., None], stained(), inked)
    found = detect_tissue(both, 2.0)
    assert (found & truth).sum() / (found | truth).sum() > 0.95


def test_dust_and_a_dark_edge_are_no_tissue() -> None:
    picture = glass()
    rng = np.random.default_rng(3)
    for x, y in rng.integers(0, SIZE, (60, 2)):
        cv2.circle(picture, (int(x), int(y)), int(rng.integers(1, 6)), (40, 42, 41), -1)
    picture[:, :40] = (12, 11, 13)
    assert not detect_tissue(picture, 2.0).any()


def test_detection_is_deterministic_and_leaves_the_picture_alone() -> None:
    picture = blend(stained(), glass(), soft_stroke(90))
    before = picture.copy()
    np.testing.assert_array_equal(detect_tissue(picture, 2.0), detect_tissue(picture, 2.0))
    np.testing.assert_array_equal(picture, before)


def test_one_pixel_is_enough_for_a_picture() -> None:
    assert detect_tissue(np.full((1, 1, 3), 255, np.uint8), 2.0).shape == (1, 1)


def test_the_cc0_slide() -> None:
    with open_slide(SMALL_REGION) as slide:
        picture, mpp_um = thumbnail(slide, Mpp(0.499, 0.499, "file"))
    assert mpp_um == 2.0
    assert picture.shape == (741, 554, 3)
    tissue = detect_tissue(picture, mpp_um)
    assert 0.33 < tissue.mean() < 0.43
    assert not tissue[:, 500:].any()  # glass on the right
    assert tissue[420:660, 210:300].mean() > 0.95


def test_a_thumbnail_in_blocks_equals_one_in_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ArrayReader(pyramid(smooth_noise(1203, 977), 2))
    mpp = Mpp(0.5, 0.5, "file")
    whole, mpp_um = thumbnail(reader, mpp)
    assert (mpp_um, len(reader.reads)) == (2.0, 1)
    assert whole.shape == (245, 301, 3)
    monkeypatch.setattr("sshr_deploy.runtime.slides.area._BLOCK_SOURCE_PX", 128 * 128)
    reader.reads.clear()
    blocks, _ = thumbnail(reader, mpp)
    assert max(w * h for _, _, _, w, h in reader.reads) <= 128 * 128
    np.testing.assert_array_equal(blocks, whole)


def test_thumbnails_of_large_and_of_coarse_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.slides.tissue.MAX_THUMBNAIL_PX", 100)
    reader = ArrayReader([smooth_noise(1000, 300)])
    picture, mpp_um = thumbnail(reader, Mpp(0.5, 0.5, "file"))
    assert (mpp_um, picture.shape) == (5.0, (30, 100, 3))
    monkeypatch.undo()
    picture, mpp_um = thumbnail(reader, Mpp(4.0, 4.0, "--mpp (forced)"))
    assert mpp_um == 4.0
    np.testing.assert_array_equal(picture, reader.levels[0])


def test_neighbouring_windows_agree_with_one_large_window() -> None:
    rng = np.random.default_rng(1)
    mask = cv2.GaussianBlur(rng.normal(0, 1, (60, 80)), (0, 0), 2.0) > 0
    tissue = TissueMap(mask, (16.0, 16.0), 4.0)
    large = tissue.window(-50, -30, 1200, 1000, 1200, 1000)
    for x in range(0, 1200, 150):
        part = tissue.window(-50 + x, -30, 150, 1000, 150, 1000)
        np.testing.assert_array_equal(part, large[:, x : x + 150])
    for y in range(0, 1000, 125):
        part = tissue.window(-50, -30 + y, 1200, 125, 1200, 125)
        np.testing.assert_array_equal(part, large[y : y + 125])


def test_a_window_keeps_straight_edges_and_smooths_corners() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[5:15, 8:] = True
    tissue = TissueMap(mask, (10.0, 10.0), 5.0)
    window = tissue.window(0, 0, 200, 200, 200, 200)
    np.testing.assert_array_equal(window[100], np.arange(200) >= 80)
    np.testing.assert_array_equal(window[:, 140], (np.arange(200) >= 50) & (np.arange(200) < 150))
    assert not window[50, 80]  # the corner is rounded
    assert window[54, 84]
    assert window[100, 199]  # the mask reaches the slide's edge


def test_slopes_are_not_blocky() -> None:
    rows, columns = np.mgrid[0:40, 0:40]
    tissue = TissueMap(columns * 2 > rows + 20, (16.0, 16.0), 4.0)
    window = tissue.window(160, 160, 320, 320, 320, 320)
    edge = window.argmax(axis=1)
    fit = np.polyval(np.polyfit(np.arange(320), edge, 1), np.arange(320))
    assert np.abs(edge - fit).max() < 5  # blocks of the mask are 16
    assert np.abs(np.diff(edge)).max() <= 2


def test_there_is_no_tissue_outside_the_slide() -> None:
    tissue = TissueMap(np.ones((10, 12), np.bool_), (8.0, 8.0), 2.0)
    window = tissue.window(-16, -8, 128, 96, 128, 96)
    wanted = np.zeros((96, 128), np.bool_)
    wanted[8:88, 16:112] = True
    np.testing.assert_array_equal(window, wanted)
    assert not tissue.window(500, 500, 64, 64, 16, 16).any()


def test_anisotropic_pixels() -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[:, 5:] = True
    window = TissueMap(mask, (4.0, 8.0), 2.0).window(0, 0, 40, 80, 40, 80)
    np.testing.assert_array_equal(window, np.tile(np.arange(40) >= 20, (80, 1)))
