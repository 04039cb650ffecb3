"""CAMs and probabilities -> label map, as SSHR's published inference does it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, MaskRule

MIN_MAX_EPSILON = 1e-8


def gate(prob: NDArray[np.float32], threshold: float, axis: int = -1) -> NDArray[np.bool_]:
    """Probabilities -> classes that are on: above `threshold`, and always the best one.

    The classes lie along `axis`: the last of [..., N], the first of maps [N, h, w].
    """
    on: NDArray[np.bool_] = prob > np.float32(threshold)
    np.put_along_axis(on, prob.argmax(axis, keepdims=True), True, axis)
    return on


def fused_cam(
    cams: Sequence[NDArray[np.float32]],  # each [h, w], >= 0
    weights: Sequence[float],
    height_px: int,
    width_px: int,
) -> NDArray[np.float32]:
    """Weighted sum [height_px, width_px] of one class's upsampled, min-max normalised CAMs.

    Upsampling is bilinear with half-pixel centres (align_corners=False); min and max are taken
    over the upsampled map; epsilon 1e-8 (published inference of SSHR).
    """
    fused = np.zeros((height_px, width_px), np.float32)
    up = np.empty_like(fused)
    for cam, weight in zip(cams, weights, strict=True):
        # OpenCV's linear filter is the bilinear one of the published code; a matrix product
        # would wake the BLAS threads, which then fight with those of the engine.
        cv2.resize(cam, (width_px, height_px), dst=up, interpolation=cv2.INTER_LINEAR)
        low, high = up.min(), up.max()
        up -= low
        up *= np.float32(weight) / (high - low + np.float32(MIN_MAX_EPSILON))
        fused += up
    return fused


def reference_mask(
    batch: CamBatch,
    index: int,
    profile: Profile,
    *,
    height_px: int,
    width_px: int,
) -> NDArray[np.uint8]:
    """Label map of patch `index` of a batch with the profile's CAM weights and gate."""
    return label_map(batch, index, mask_rule(profile), height_px=height_px, width_px=width_px)


def mask_rule(profile: Profile) -> MaskRule:
    """CAM weights and gate of a profile."""
    return MaskRule(profile.cam_weights.as_tuple(), profile.gate_threshold)


def label_map(
    batch: CamBatch,
    index: int,
    rule: MaskRule,
    *,
    height_px: int,
    width_px: int,
) -> NDArray[np.uint8]:
    """Label map uint8 [height_px, width_px], values 0 to N-1, of patch `index` of a batch.

    The published post-processing: classes that the gate switches off are zeroed, then argmax;
    where all kept classes are zero, and at ties, the lowest class wins.
    """
    labels = np.zeros((height_px, width_px), np.uint8)
    best = np.zeros((height_px, width_px), np.float32)
    cams = batch.cams(index)
    # A fused CAM is never negative, so a class that is off never beats `best`.
    for label in np.flatnonzero(gate(batch.prob[index], rule.threshold)):
        fused = fused_cam([cam[label] for cam in cams], rule.weights, height_px, width_px)
        if label == 0:
            best = fused
            continue
        np.putmask(labels, fused > best, np.uint8(label))
        np.maximum(best, fused, out=best)
    return labels
