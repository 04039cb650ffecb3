"""Post-processing of a patch: CAMs to a label map."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.gate.counting import Finding, cpu_ratio, peak_bytes, tallied
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.geometry import PATCH_CELLS, PATCH_PX
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch
from sshr_deploy.runtime.masks import label_map, mask_rule

_PATCHES = 16


def check_masks(profile: Profile) -> Iterator[Finding]:
    """Label maps of random CAMs with every class on, which is the slowest case."""
    every_class = mask_rule(profile.model_copy(update={"gate_threshold": -1.0}))
    rng = np.random.default_rng(0)
    shape = (_PATCHES, profile.num_classes, PATCH_CELLS, PATCH_CELLS)
    cams = [np.maximum(rng.normal(size=shape), 0).astype(np.float32) for _ in CAM_NAMES]
    batch = CamBatch(cams[0], cams[1], cams[2], rng.random(shape[:2], np.float32))
    size = {"height_px": PATCH_PX, "width_px": PATCH_PX}

    def ours(count: int = _PATCHES) -> list[NDArray[np.uint8]]:
        return [label_map(batch, i, every_class, **size) for i in range(count)]

    def plain() -> list[NDArray[np.uint8]]:
        return [_plain_labels(batch.cams(i), every_class.weights) for i in range(_PATCHES)]

    same = np.mean([a == b for a, b in zip(ours(), plain(), strict=True)])
    if not same > 0.999:
        raise SshrDeployError(f"label maps agree with the plain ones on {same:.2%} only")
    with tallied(cv2, "resize") as resized:
        ours(1)
    yield Finding("masks: enlarged CAMs", resized.calls / (3 * profile.num_classes), 1, "of a CAM")
    peak = peak_bytes(lambda: ours(1)) / (4 * PATCH_PX**2)
    yield Finding("masks: memory", peak, 5, "float32 maps")
    yield Finding("masks: processor time", cpu_ratio(ours, plain), 2, "of the plain way's")


def _plain_labels(
    cams: tuple[NDArray[np.float32], ...], weights: tuple[float, ...]
) -> NDArray[np.uint8]:
    """The same, class by class, written down as it is published."""
    best = labels = np.zeros((PATCH_PX, PATCH_PX), np.float32)
    for label in range(len(cams[0])):
        score = np.zeros_like(best)
        for cam, weight in zip(cams, weights, strict=True):
            up = cv2.resize(cam[label], (PATCH_PX, PATCH_PX))
            score += np.float32(weight) * (up - up.min()) / (np.ptp(up) + np.float32(1e-8))
        labels = np.where(score > best, np.float32(label), labels)
        best = np.maximum(best, score)
    return labels.astype(np.uint8)
