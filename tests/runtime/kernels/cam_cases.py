"""Inputs of `cam_to_mask`, and what its specification makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.kernels.cam_to_mask import naive

WEIGHTS = (0.6, 0.2, 0.2)

Floats = NDArray[np.float32]


class Case(NamedTuple):
    batch: int
    classes: int
    cam: tuple[int, int]
    size: tuple[int, int]
    threshold: float


def random_inputs(case: Case, seed: int) -> tuple[list[Floats], Floats]:
    rng = np.random.default_rng(seed)
    shape = (case.batch, case.classes, *case.cam)
    cams = [np.maximum(rng.normal(0.2, 1, shape), 0).astype(np.float32) for _ in range(3)]
    return cams, rng.random((case.batch, case.classes), np.float32)


def naive_scores(
    cams: Sequence[Floats], prob: Floats, *, threshold: float, size: tuple[int, int]
) -> Floats:
    return naive.class_scores(
        cams,
        prob,
        weights=WEIGHTS,
        threshold=threshold,
        height_px=size[0],
        width_px=size[1],
    )


def margin(scores: NDArray[Any]) -> NDArray[Any]:
    """How far the best class is above the second, [B, H, W]; infinite with one class."""
    if scores.shape[1] == 1:
        return np.full((len(scores), *scores.shape[2:]), math.inf)
    ranked = np.sort(scores, 1)
    result: NDArray[Any] = ranked[:, -1] - ranked[:, -2]
    return result
