"""The perturbations against plain arithmetic on images whose answer is known."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks.perturbations import CLEAN, PERTURBATIONS, Perturbation
from sshr_deploy.train.textures import make_patch

NAMES = [perturbation.name for perturbation in PERTURBATIONS]
TABLE = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS = TABLE / np.sqrt((TABLE**2).sum(1))[:, None]  # rows: haematoxylin, eosin, DAB


def named(name: str) -> Perturbation:
    return PERTURBATIONS[NAMES.index(name)]


def applied(name: str, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return named(name).apply(rgb, np.random.default_rng(0))


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.uint8]:
    return make_patch(np.random.default_rng(3), 160).rgb[:, :150]


def test_the_set_is_the_one_that_figures_are_of() -> None:
    assert NAMES == [
        "clean", "haematoxylin-0.7", "haematoxylin-1.4", "eosin-0.7", "eosin-1.4", "gamma-0.7",
        "gamma-1.4", "tint", "white-balance", "blur", "jpeg", "noise", "scale-0.90", "scale-0.95",
        "scale-1.05", "scale-1.10",
    ]  # fmt: skip
    assert PERTURBATIONS[0] is CLEAN
    assert len({perturbation.words for perturbation in PERTURBATIONS}) == len(PERTURBATIONS)


@pytest.mark.parametrize("one", PERTURBATIONS, ids=NAMES)
def test_each_gives_another_image_of_the_same_shape_twice(
    one: Perturbation, tissue: NDArray[np.uint8]
) -> None:
    before, truth = tissue.copy(), tissue[..., 0] // 64
    rgb, labels = one.apply_to_truth(tissue, truth, "a.png")
    again, labels_again = one.apply_to_truth(tissue, truth, "a.png")
    assert rgb.dtype == np.uint8 and rgb.shape == tissue.shape
    assert labels.dtype == np.uint8 and labels.shape == truth.shape
    assert np.array_equal(rgb, again) and np.array_equal(labels, labels_again)
    assert np.array_equal(tissue, before) and not np.shares_memory(rgb, tissue)
    assert np.array_equal(rgb, tissue) == (one is CLEAN)
    assert np.array_equal(labels, truth) == (one.scale == 1)
    other = one.apply_to_truth(tissue, truth, "b.png")[0]
    assert np.array_equal(rgb, other) == (one.name != "noise")


@pytest.mark.parametrize("stain", [0, 1])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_one_stain_s_concentration_is_multiplied(stain: int, factor: float) -> None:
    concentrations = np.random.default_rng(1).uniform(0.1, 0.6, (40, 40, 3))
    light = 256 * np.exp(-concentrations @ STAINS) - 1
    changed = applied(f"{('haematoxylin', 'eosin')[stain]}-{factor}", np.rint(light).astype("u1"))
    concentrations[..., stain] *= factor
    expected = 256 * np.exp(-concentrations @ STAINS) - 1
    assert np.abs(changed - expected.clip(0, 255)).max() < 1.5  # both were rounded to a level


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gamma-0.7", (100 / 255) ** np.array([0.7, 0.7, 0.7])),
        ("gamma-1.4", (100 / 255) ** np.array([1.4, 1.4, 1.4])),
        ("tint", 100 / 255 * np.array([1.05, 0.97, 0.88])),
        ("white-balance", np.array([0.85, 1, 1.15]) ** (1 / 2.2) * 100 / 255),
    ],
)
def test_levels_follow_their_curve(name: str, expected: NDArray[np.float64]) -> None:
    grey = np.full((3, 5, 3), 100, np.uint8)
    assert (applied(name, grey) == np.rint(255 * expected)).all()
    assert applied(name, np.full((1, 1, 3), 255, np.uint8)).max() == 255
    steps = applied(name, np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))[0].astype(int)
    assert all((later >= earlier).all() for earlier, later in pairwise(steps))


def test_blur_is_a_gaussian_of_its_width() -> None:
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    spread = applied("blur", point)[..., 0].astype(float)
    distance = np.arange(-20, 21)
    across = spread.sum(0) / spread.sum()
    assert across @ distance == pytest.approx(0, abs=1e-9)
    assert np.sqrt(across @ distance**2) == pytest.approx(1.5, abs=0.1)


def test_jpeg_is_near_another_encoder_s(tissue: NDArray[np.uint8]) -> None:
    """Of the same quality, and of channels in the same order."""
    data = cv2.imencode(".jpg", tissue[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    other = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1].astype(float)
    ours = applied("jpeg", tissue)
    lost = np.abs(ours - tissue.astype(float)).mean()
    assert np.abs(ours - other).mean() < lost / 5


def test_noise_has_its_spread_and_no_shift() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = applied("noise", grey).astype(float) - 128
    assert noise.std((0, 1)) == pytest.approx(8, abs=0.15)
    assert noise.mean((0, 1)) == pytest.approx(0, abs=0.15)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("scale", [0.9, 0.95, 1.05, 1.1])
def test_scale_takes_image_and_truth_together_about_the_middle(scale: float) -> None:
    height, width, radius = 151, 200, 40
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < radius
    rgb = np.where(disc, 40, 220).astype(np.uint8)[..., None].repeat(3, 2)
    larger, labels = named(f"scale-{scale:.2f}").apply_to_truth(rgb, disc.astype(np.uint8), "a")
    assert np.unique(labels).tolist() == [0, 1]
    for dark in (larger[..., 0] < 130, labels == 1):
        assert dark.sum() / disc.sum() == pytest.approx(scale**2, rel=0.02)
        assert [index.mean() for index in np.nonzero(dark)] == pytest.approx([75, 99.5], abs=0.3)
    corner = rgb.copy()
    corner[:3, :3] = 0  # cut off above 1; mirrored, so doubled, below
    dark = named(f"scale-{scale:.2f}").apply(corner, np.random.default_rng(0))[:20, :20] < 30
    assert dark.any() == (scale < 1)
