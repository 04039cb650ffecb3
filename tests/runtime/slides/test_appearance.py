from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.runtime.slides.tissue import detect_tissue
from tests.runtime.small_slides import small_picture

MPP_UM = 1.0


@pytest.fixture
def patches() -> NDArray[np.uint8]:
    """Tissue of different shares, and one patch of glass."""
    picture = small_picture()
    corners = [(40, 90), (120, 300), (330, 380)]
    tissue = [picture[row : row + 96, column : column + 112] for row, column in corners]
    return np.stack([*tissue, np.full((96, 112, 3), 243, np.uint8)])


def test_moments_are_those_of_tissue_pixels_in_double_precision(
    patches: NDArray[np.uint8],
) -> None:
    first_layer = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    found = appearance_of(patches, first_layer, MPP_UM)
    inside = np.stack([detect_tissue(rgb, MPP_UM) for rgb in patches])
    assert 0.1 < inside.mean() < 0.9
    densities = np.log(256 / (patches.astype(np.float64) + 1))[inside]  # [n, 3]
    np.testing.assert_allclose(found.density_mean, densities.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.density_spread, densities.std(0), rtol=1e-5)
    of_pairs = np.corrcoef(densities.T)[[0, 0, 1], [1, 2, 2]]
    np.testing.assert_allclose(found.density_correlation, of_pairs, atol=1e-5)
    channels = convolved(patches, first_layer.astype(np.float64))[inside]  # [n, 5]
    np.testing.assert_allclose(found.layer_mean, channels.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.layer_spread, channels.std(0), rtol=1e-5)


def convolved(
    patches: NDArray[np.uint8], kernels: NDArray[np.float64]
) -> NDArray[np.float64]:  # [P, H, W, C]
    """The first convolution by its definition: inputs as of ImageNet, zeros past the edges."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    padded = np.pad((patches / 255 - mean) / std, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = patches.shape[1:3]
    out = np.zeros((*patches.shape[:3], len(kernels)))
    for row in range(3):
        for column in range(3):
            moved = padded[:, row : row + height, column : column + width]
            out += moved @ kernels[:, :, row, column].T
    return out


def test_patches_without_tissue_are_refused(patches: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="no patch shows tissue; give patches"):
        appearance_of(patches[3:], np.ones((1, 3, 3, 3), np.float32), MPP_UM)


def test_tissue_of_one_colour_has_no_spread() -> None:
    one_colour = np.full((1, 64, 64, 3), (176, 96, 160), np.uint8)
    found = appearance_of(one_colour, np.zeros((2, 3, 3, 3), np.float32), MPP_UM)
    assert max(found.density_spread) < 1e-6
    assert [*found.density_correlation] == [0, 0, 0]
    assert [*found.layer_spread] == [0, 0]
