"""How stained tissue looks to a network: optical densities, and what its first layer makes of it.

Optical density is that of Beer and Lambert, ln(256 / (I + 1)) for an intensity I of 0 to 255.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sshr_deploy.known_tissue import Appearance
from sshr_deploy.runtime.slides.tissue import detect_tissue

_DENSITY = np.log(256 / (np.arange(256) + 1.0)).astype(np.float32)
_MEAN, _STD = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))


def appearance_of(
    patches: NDArray[np.uint8],  # [P, H, W, 3], RGB
    first_layer: NDArray[np.float32],  # [C, 3, 3, 3], weights of conv1a
    mpp_um: float,
) -> Appearance:
    """Means and spreads over the tissue pixels of all patches.

    Moments of the first layer follow from those of its inputs, 3 x 3 pixels of three colours: with
    their mean m and covariance S, a kernel w gives w m and the variance w S w. So the cost does not
    grow with the number of channels.

    Args:
        patches: at the model's pixel size.
        first_layer: of the network's first convolution, which has no bias.
        mpp_um: size of a pixel in um.

    Raises:
        InputError: none of the patches shows tissue.
    """
    density, around = _Moments(3), _Moments(27)
    for rgb in patches:
        tissue = detect_tissue(rgb, mpp_um)
        density.add(_DENSITY[rgb[tissue].T])
        around.add(_neighbourhoods(rgb, tissue))
    if density.count == 0:
        raise InputError("no patch shows tissue; give patches with stained tissue")
    red, green, blue = density.mean.tolist()
    red_spread, green_spread, blue_spread = _spread(np.eye(3), density).tolist()
    of_red_green, of_red_blue, of_green_blue = _correlations(density)
    kernels = first_layer.reshape(len(first_layer), 27).astype(np.float64)
    return Appearance(
        density_mean=(red, green, blue),
        density_spread=(red_spread, green_spread, blue_spread),
        density_correlation=(of_red_green, of_red_blue, of_green_blue),
        layer_mean=tuple((kernels @ around.mean).tolist()),
        layer_spread=tuple(_spread(kernels, around).tolist()),
    )


class _Moments:
    """Mean, and sum of products of deviations, patch by patch (Chan et al. 1979)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean, self.products = np.zeros(size), np.zeros((size, size))

    def add(self, values: NDArray[np.float32]) -> None:  # [size, n]
        count = values.shape[1]
        if count == 0:
            return
        own = values.mean(1, dtype=np.float64)
        centred = values - own[:, None].astype(np.float32)
        together = self.count + count
        shift = own - self.mean
        self.mean += shift * (count / together)
        self.products += centred @ centred.T
        self.products += np.outer(shift, shift) * (self.count * count / together)
        self.count = together


def _spread(weights: NDArray[np.float64], moments: _Moments) -> NDArray[np.float64]:
    """Standard deviation of each weighted sum [C] of what has these moments."""
    variance = ((weights @ moments.products) * weights).sum(1) / moments.count
    spread: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0))  # rounding may go below 0
    return spread


def _correlations(moments: _Moments) -> list[float]:
    """Of all pairs of channels, row by row; 0 where one is constant."""
    spread = np.sqrt(np.diagonal(moments.products))
    scale = np.outer(spread, spread)
    all_pairs = np.divide(moments.products, scale, out=np.zeros_like(scale), where=scale > 0)
    pairs: list[float] = all_pairs[np.triu_indices(len(spread), 1)].tolist()
    return pairs


def _neighbourhoods(rgb: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The inputs of the first convolution [27, n] around each pixel of tissue: zeros past the edge.

    In the order of a kernel [3 colours, 3 rows, 3 columns].
    """
    height, width = tissue.shape
    x = ((rgb / np.float32(255) - _MEAN) / _STD).astype(np.float32)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    planes = [np.ascontiguousarray(padded[..., colour]) for colour in range(3)]
    return np.stack(
        [
            plane[row : row + height, column : column + width][tissue]
            for plane in planes
            for row in range(3)
            for column in range(3)
        ]
    )
