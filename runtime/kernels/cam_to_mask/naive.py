"""The specification: NumPy in float32, every operation rounded on its own, in a fixed order.

The kernel follows that order and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.kernels.cam_to_mask.plan import MIN_MAX_EPSILON

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


def neighbours(size_in: int, size_out: int) -> tuple[Indices, Indices, Floats]:
    """Bilinear upsampling along one axis, half-pixel centres (align_corners=False).

    Returns:
        For each of the `size_out` positions: the lower and the upper neighbour, and how far it is
        from the lower (0) to the upper (1).
    """
    scale = np.float32(size_in) / np.float32(size_out)
    position = np.arange(size_out, dtype=np.float32)
    source = np.maximum(scale * (position + np.float32(0.5)) - np.float32(0.5), np.float32(0))
    lower = source.astype(np.int64)  # at most size_in - 1, as source is below size_in
    upper = np.minimum(lower + 1, size_in - 1)
    return lower, upper, source - lower.astype(np.float32)


def upsampled(
    cams: Floats,  # [..., h, w]
    height_px: int,
    width_px: int,
) -> Floats:
    """Bilinear upsampling to [..., height_px, width_px]: along the width, then the height."""
    top, bottom, down = neighbours(cams.shape[-2], height_px)
    left, right, across = neighbours(cams.shape[-1], width_px)
    rows = _between(cams[..., left], cams[..., right], across)
    return _between(rows[..., top, :], rows[..., bottom, :], down[:, None])


def _between(lower: Floats, upper: Floats, share: Floats) -> Floats:
    # (1 - share) lower + share upper would round equal values apart, and the min-max normalisation
    # would make scores of up to 1 of that.
    result: Floats = lower + share * (upper - lower)
    return result


def classes_on(
    prob: Floats,  # [B, N]
    threshold: float,
) -> NDArray[np.bool_]:
    """Classes [B, N] above `threshold`, and always the best one, the first of equals."""
    on: NDArray[np.bool_] = prob > np.float32(threshold)
    on[np.arange(len(prob)), prob.argmax(1)] = True
    return on


def class_scores(
    cams: Sequence[Floats],  # three of [B, N, h, w]: 28_1, 28_2, deep
    prob: Floats,  # [B, N]
    *,
    weights: Sequence[float],
    threshold: float,
    height_px: int,
    width_px: int,
) -> Floats:
    """Weighted sum of the normalised CAMs [B, N, height_px, width_px]; 0 where a class is off."""
    total = np.zeros((*prob.shape, height_px, width_px), np.float32)
    for level, weight in zip(cams, weights, strict=True):
        up = upsampled(level, height_px, width_px)
        low, high = up.min((2, 3), keepdims=True), up.max((2, 3), keepdims=True)
        factor = np.float32(weight) / (high - low + np.float32(MIN_MAX_EPSILON))
        total += (up - low) * factor
    total[~classes_on(prob, threshold)] = 0
    return total


def cam_to_mask(
    cams: Sequence[Floats],  # three of [B, N, h, w]: 28_1, 28_2, deep
    prob: Floats,  # [B, N]
    *,
    weights: Sequence[float],
    threshold: float,
    height_px: int,
    width_px: int,
) -> NDArray[np.uint8]:
    """Labels [B, height_px, width_px]: the best score, at ties the lowest class."""
    scores = class_scores(
        cams, prob, weights=weights, threshold=threshold, height_px=height_px, width_px=width_px
    )
    labels: NDArray[np.uint8] = scores.argmax(1).astype(np.uint8)
    return labels
