"""How stained tissue looks to a network: optical densities, and what its first layer makes of it.

Optical density is that of Beer and Lambert, ln(256 / (I + 1)) for an intensity I of 0 to 255.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.known_tissue import Appearance
from sshr_deploy.runtime.slides.tissue import detect_tissue

_DENSITY = np.log(256 / (np.arange(256) + 1.0)).astype(np.float32)
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, as the network's inputs are
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def appearance_of(
    patches: NDArray[np.uint8],  # [P, H, W, 3], RGB
    first_layer: NDArray[np.float32],  # [C, 3, 3, 3], weights of conv1a
    mpp_um: float,
) -> Appearance:
    """Means and spreads over the tissue pixels of all patches.

    Args:
        patches: at the model's pixel size.
        first_layer: of the network's first convolution, which has no bias.
        mpp_um: size of a pixel in um.

    Raises:
        InputError: none of the patches shows tissue.
    """
    sums = _Sums(3 + len(first_layer))
    for rgb in patches:
        tissue = detect_tissue(rgb, mpp_um)
        density = cv2.LUT(rgb, _DENSITY)[tissue]
        layer = _convolved(rgb, first_layer)[tissue]
        sums.add(np.concatenate([density, layer], axis=1))
    if sums.count == 0:
        raise InputError("no patch shows tissue; give patches with stained tissue")
    red, green, blue, *layer_mean = sums.mean.tolist()
    red_spread, green_spread, blue_spread, *layer_spread = sums.spread().tolist()
    return Appearance(
        density_mean=(red, green, blue),
        density_spread=(red_spread, green_spread, blue_spread),
        layer_mean=tuple(layer_mean),
        layer_spread=tuple(layer_spread),
    )


class _Sums:
    """Mean and sum of squared deviations, patch by patch (Chan et al. 1979)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(channels), np.zeros(channels)

    def spread(self) -> NDArray[np.float64]:
        return np.sqrt(self.squares / self.count)

    def add(self, values: NDArray[np.float32]) -> None:  # [n, channels]
        if len(values) == 0:
            return
        own = values.mean(0, dtype=np.float64)
        own_squares = np.square(values - own).sum(0, dtype=np.float64)
        together = self.count + len(values)
        shift = own - self.mean
        self.mean += shift * (len(values) / together)
        self.squares += own_squares + shift**2 * (self.count * len(values) / together)
        self.count = together


def _convolved(rgb: NDArray[np.uint8], first_layer: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first convolution [H, W, C] of a patch: zero padding, no bias."""
    x = ((rgb / np.float32(255) - _MEAN) / _STD).astype(np.float32)
    planes = cv2.split(x)
    out = np.zeros((*rgb.shape[:2], len(first_layer)), np.float32)
    for channel, kernel in enumerate(first_layer):
        for plane, taps in zip(planes, kernel, strict=True):
            out[..., channel] += cv2.filter2D(
                plane, cv2.CV_32F, taps, borderType=cv2.BORDER_CONSTANT
            )
    return out
