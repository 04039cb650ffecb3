"""CAMs and probabilities of fields -> label map, the same everywhere on a slide.

    score_n = sum over levels of weight * relu(CAM_n) / scale of the level + bias_n, at least 0
    label   = the class with the largest score among those that are on (p_n > gate, or the largest)

In place of the published min-max by class and patch, each level is divided by one number for all
classes, a high percentile over the slide's tissue: the level weights keep their meaning, classes
their strength, and no place is scaled unlike its neighbours. Where all scores are nil, the most
probable class counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import CELL_PX
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch, FieldRule
from sshr_deploy.runtime.masks import gate

Halves = NDArray[np.float16]
Scales = tuple[float, float, float]
"""Of the CAMs, in the order of `CAM_NAMES`."""

_LARGEST = np.float32(np.finfo(np.float16).max)
_TIE = np.float32(1e-6)
"""Times the probability: decides between scores that are equal, above all of nil."""


def field_rule(profile: Profile) -> FieldRule:
    """The rule of a profile."""
    seamless = profile.seamless
    weights = seamless.cam_weights or profile.cam_weights
    gate = seamless.gate_threshold
    return FieldRule(
        weights.as_tuple(),
        profile.gate_threshold if gate is None else gate,
        seamless.percentile,
        seamless.class_bias,
    )


def to_halves(values: NDArray[np.float32]) -> Halves:
    """float32, not negative -> float16; what is too large becomes the largest, and -0 becomes 0."""
    return np.minimum(values, _LARGEST).astype(np.float16) + np.float16(0)


def stacked_cams(batch: CamBatch, index: int) -> Halves:
    """The three CAMs of one field, [3, N, C, C], as they are kept."""
    return to_halves(np.stack(batch.cams(index)))


class LevelScales:
    """Percentiles of each level's CAMs over the tissue of a slide, exact whatever its size.

    Counted are the cells, each by its strongest class. A float16 that is not negative is ordered as
    its bits are, so that a count for each of them holds all.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((len(CAM_NAMES), 1 << 15), np.int64)

    def add(self, cams: Halves, inside: NDArray[np.bool_] | None = None) -> None:
        """Count CAMs [3, N, h, w] where `inside` [h, w], or everywhere."""
        strongest = cams.max(1)  # [3, h, w]
        for counts, level in zip(self._counts, strongest, strict=True):
            cells = level if inside is None else level[inside]
            counts += np.bincount(
                np.ascontiguousarray(cells).view(np.uint16).ravel(), minlength=len(counts)
            )

    def scales(self, percentile: float) -> Scales:
        """The smallest value by level that `percentile` % of the cells do not exceed.

        1 for a level that is nil there.
        """
        first, second, third = (self._of(counts, percentile) for counts in self._counts)
        return first, second, third

    @staticmethod
    def _of(counts: NDArray[np.int64], percentile: float) -> float:
        total = np.cumsum(counts)
        bits = np.searchsorted(total, total[-1] * percentile / 100)
        value = float(np.uint16(min(bits, len(counts) - 1)).view(np.float16))
        return value if total[-1] and value > 0 else 1.0


def cell_scores(
    cams: NDArray[np.floating],  # [3, N, h, w]
    prob: NDArray[np.floating],  # [N, h, w]
    scales: Sequence[float],
    rule: FieldRule,
) -> NDArray[np.float32]:
    """Scores of the classes at each cell, [N, h, w], 0 for those that are off."""
    prob = prob.astype(np.float32)
    factors = [w / s for w, s in zip(rule.weights, scales, strict=True)]
    scores = np.zeros(prob.shape, np.float32)
    for level, factor in zip(cams, factors, strict=True):
        scores += level.astype(np.float32) * np.float32(factor)
    if rule.bias:
        scores += np.asarray(rule.bias, np.float32)[:, None, None]
        np.maximum(scores, 0, out=scores)
    scores += _TIE * prob
    scores[~gate(prob, rule.threshold, axis=0)] = 0
    return scores


def labels_of(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scores of cells [N, h, w] -> labels uint8 [8 h, 8 w], 0 to N-1.

    Scores are upsampled bilinearly with half-pixel centres. At the outermost four pixels there is
    nothing to interpolate with: give a cell more on each side of a part of something larger, and
    cut its eight pixels off again.
    """
    height, width = (CELL_PX * side for side in scores.shape[1:])
    labels = np.zeros((height, width), np.uint8)
    best = np.full((height, width), -np.inf, np.float32)
    up = np.empty_like(best)
    for label, cells in enumerate(scores):
        cv2.resize(cells, (width, height), dst=up, interpolation=cv2.INTER_LINEAR)
        np.putmask(labels, up > best, np.uint8(label))
        np.maximum(best, up, out=best)
    return labels


def field_label_map(batch: CamBatch, index: int, rule: FieldRule) -> NDArray[np.uint8]:
    """Label map [core_px, core_px] of one field by itself, with scales of its own."""
    cams, scales = stacked_cams(batch, index), LevelScales()
    scales.add(cams)
    return labels_of(cell_scores(cams, batch.prob[index], scales.scales(rule.percentile), rule))
