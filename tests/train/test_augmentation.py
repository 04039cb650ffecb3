"""Augmentation against plain NumPy and float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.train.augmentation import augment, jitter_stains
from sshr_deploy.train.recipe import Augmentation

Floats = NDArray[np.float64]

NOTHING = Augmentation(flips=False)
ZERO = np.zeros(3)
TABLE = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS = TABLE / np.sqrt((TABLE**2).sum(1))[:, None]  # rows: haematoxylin, eosin, DAB


def _patch(height: int = 224, width: int = 224) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _concentrations(rgb: NDArray[np.generic]) -> Floats:
    """[H, W, 3]; Beer-Lambert with natural logarithms, solved for each pixel."""
    density = -np.log((rgb.astype(np.float64) + 1) / 256)
    solved = np.linalg.solve(STAINS.T, density.reshape(-1, 3).T)
    return solved.T.reshape(rgb.shape)


def _jittered(rgb: NDArray[np.uint8], u: Floats, v: Floats) -> Floats:
    light = 256 * np.exp(-(_concentrations(rgb) * (1 + u) + v) @ STAINS) - 1
    return np.asarray(light.clip(0, 255))


def test_nothing_changes_nothing_and_gives_a_copy() -> None:
    rgb = _patch()
    same = augment(rgb, NOTHING, np.random.default_rng(0))
    assert np.array_equal(same, rgb)
    assert not np.shares_memory(same, rgb)


@pytest.mark.parametrize("view", [slice(None), slice(None, None, -1)])
def test_the_result_is_contiguous_and_the_input_stays(view: slice) -> None:
    rgb = _patch()[:, view]
    rgb.setflags(write=False)
    how = Augmentation(rotations=True, stain_jitter=0.05)
    for seed in range(20):
        changed = augment(rgb, how, np.random.default_rng(seed))
        assert changed.flags.c_contiguous
        assert changed.shape == rgb.shape
        assert changed.dtype == np.uint8
    assert np.array_equal(rgb, _patch()[:, view])


@pytest.mark.parametrize(
    ("how", "shares"),
    [
        (Augmentation(flips=True), [1 / 4, 0, 1 / 4, 0, 1 / 4, 0, 1 / 4, 0]),
        (Augmentation(flips=False, rotations=True), [1 / 4] * 4 + [0] * 4),
        (Augmentation(flips=True, rotations=True), [1 / 8] * 8),
    ],
)
def test_every_orientation_comes_as_often_as_it_should(
    how: Augmentation, shares: list[float]
) -> None:
    rgb = _patch(3, 3)
    orientations = [np.rot90(m, k) for m in (rgb, rgb[:, ::-1]) for k in range(4)]
    rng = np.random.default_rng(1)
    draws = 4000
    counts = np.zeros(8)
    for _ in range(draws):
        changed = augment(rgb, how, rng)
        counts += [np.array_equal(changed, orientation) for orientation in orientations]
    assert counts.sum() == draws
    five_sigma = 5 * np.sqrt(draws * 0.25 * 0.75)
    assert np.abs(counts - draws * np.array(shares)).max() < five_sigma
    assert (counts[np.array(shares) == 0] == 0).all()


def test_a_quarter_turn_of_an_oblong() -> None:
    how = Augmentation(flips=False, rotations=True)
    shapes = {augment(_patch(4, 6), how, np.random.default_rng(k)).shape for k in range(20)}
    assert shapes == {(4, 6, 3), (6, 4, 3)}


def test_draws_depend_on_neither_pixels_nor_options() -> None:
    states = []
    for how in (NOTHING, Augmentation(), Augmentation(rotations=True, stain_jitter=0.1)):
        for rgb in (_patch(), np.zeros((5, 7, 3), np.uint8)):
            rng = np.random.default_rng(9)
            augment(rgb, how, rng)
            states.append(rng.random())
    assert len(set(states)) == 1
    turned = augment(_patch(), Augmentation(rotations=True), np.random.default_rng(9))
    both = Augmentation(rotations=True, stain_jitter=1e-9)
    assert np.array_equal(augment(_patch(), both, np.random.default_rng(9)), turned)


def test_no_jitter_gives_every_intensity_back() -> None:
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for rgb in (_patch(), grey):
        assert np.array_equal(jitter_stains(rgb, ZERO, ZERO), rgb)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
def test_jitter_is_that_of_float64(sigma: float) -> None:
    rng = np.random.default_rng(2)
    rgb = _patch(45, 60)  # no whole number of strips
    for _ in range(10):
        u, v = rng.uniform(-sigma, sigma, (2, 3))
        expected = _jittered(rgb, u, v)
        assert np.abs(jitter_stains(rgb, u, v) - expected).max() < 0.51  # rounding to a level


@pytest.mark.parametrize("stain", [0, 1, 2])
@pytest.mark.parametrize(("relative", "added"), [(0.3, 0.0), (-0.3, 0.0), (0.0, 0.1)])
def test_one_stain_moves_colours_along_its_vector_only(
    stain: int, relative: float, added: float
) -> None:
    concentrations = np.random.default_rng(3).uniform(0.1, 0.6, (64, 64, 3))
    rgb = np.rint(256 * np.exp(-concentrations @ STAINS) - 1).astype(np.uint8)
    u, v = np.zeros((2, 3))
    u[stain], v[stain] = relative, added
    moved = _concentrations(jitter_stains(rgb, u, v)) - _concentrations(rgb)
    expected = np.zeros_like(moved)
    expected[..., stain] = _concentrations(rgb)[..., stain] * relative + added
    assert np.abs(moved - expected).max() < 0.05  # 8 bits; the stain itself moves by up to 0.2
    assert np.abs((moved - expected).mean((0, 1))).max() < 0.005


def test_what_leaves_the_range_is_clipped() -> None:
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    brighter = jitter_stains(ends, np.full(3, -0.5), np.full(3, -0.5))
    darker = jitter_stains(ends, np.full(3, 0.5), np.full(3, 0.5))
    assert (brighter[0, 1] == 255).all()
    assert (darker[0, 0] == 0).all()


def test_the_recipe_bounds_the_jitter() -> None:
    glass = np.full((1, 1, 3), 230, np.uint8)
    how = Augmentation(flips=False, stain_jitter=0.05)
    c = _concentrations(glass)[0, 0]
    ratios = []
    for seed in range(300):
        changed = augment(glass, how, np.random.default_rng(seed))
        ratios.append((_concentrations(changed)[0, 0] - c) / (0.05 * (1 + np.abs(c))))
    extreme = np.abs(ratios).max(0)
    assert (extreme < 1.2).all()  # a level of 230 is worth up to 0.15 of this bound
    assert (extreme > 0.7).all()
    assert np.abs(np.mean(ratios, 0)).max() < 0.15
