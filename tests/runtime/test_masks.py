from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.contract import CamBatch
from sshr_deploy.runtime.masks import fused_cam, gate, reference_mask

WEIGHTS = (0.6, 0.2, 0.2)


def _profile(threshold: float) -> Profile:
    return load_profile("luad").model_copy(update={"gate_threshold": threshold})


def _random_batch(seed: int, classes: int = 4) -> CamBatch:
    rng = np.random.default_rng(seed)
    c28_1, c28_2, deep = (
        np.maximum(rng.normal(0.2, 1, (1, classes, 28, 28)), 0).astype(np.float32) for _ in range(3)
    )
    return CamBatch(c28_1, c28_2, deep, rng.random((1, classes), np.float32))


def _reference_in_float64(
    batch: CamBatch, threshold: float, size: tuple[int, int]
) -> NDArray[np.float64]:
    """The published post-processing with PyTorch's own upsampling, [N, H, W]."""
    total = torch.zeros(())
    for cam, weight in zip(batch.cams(0), WEIGHTS, strict=True):
        up = F.interpolate(
            torch.from_numpy(cam)[None].double(), size, mode="bilinear", align_corners=False
        )[0]
        low, high = up.amin((1, 2), keepdim=True), up.amax((1, 2), keepdim=True)
        total = total + weight * (up - low) / (high - low + 1e-8)
    prob = batch.prob[0]
    on = prob > threshold
    on[prob.argmax()] = True
    result: NDArray[np.float64] = (total * torch.from_numpy(on)[:, None, None]).numpy()
    return result


@pytest.mark.parametrize("size", [(224, 224), (257, 301), (20, 15), (1, 1)])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.99])
def test_mask_equals_the_published_steps_in_float64(
    size: tuple[int, int], threshold: float
) -> None:
    for seed in range(3):
        batch = _random_batch(seed)
        scores = _reference_in_float64(batch, threshold, size)
        mask = reference_mask(
            batch,
            0,
            _profile(threshold),
            height_px=size[0],
            width_px=size[1],
        )
        assert mask.dtype == np.uint8
        assert mask.shape == size
        differ = mask != scores.argmax(0)
        ranked = np.sort(scores, 0)
        assert (ranked[-1] - ranked[-2])[differ].max(initial=0) < 1e-5, "only near ties may differ"
        assert differ.mean() < 1e-3


def test_gate_keeps_the_best_class_when_none_is_above() -> None:
    prob = np.array([[0.1, 0.3, 0.2], [0.9, 0.1, 0.85]], np.float32)
    assert gate(prob, 0.8).tolist() == [[False, True, False], [True, False, True]]


def test_gate_is_above_not_at_the_threshold() -> None:
    assert gate(np.array([0.2, 0.5], np.float32), 0.2).tolist() == [False, True]


def test_where_all_kept_classes_are_zero_class_0_stands() -> None:
    cam = np.zeros((1, 3, 28, 28), np.float32)
    cam[0, 2, :14] = 1
    batch = CamBatch(cam, cam, cam, np.array([[0.1, 0.1, 0.9]], np.float32))
    mask = reference_mask(batch, 0, _profile(0.5), height_px=28, width_px=28)
    assert mask[:14].tolist() == [[2] * 28] * 14
    assert mask[14:].tolist() == [[0] * 28] * 14


def test_a_constant_cam_gives_zero_not_nan() -> None:
    plane = np.full((28, 28), 3, np.float32)
    assert fused_cam([plane] * 3, WEIGHTS, 56, 56).tolist() == np.zeros((56, 56)).tolist()


def test_cams_are_not_changed() -> None:
    batch = _random_batch(0)
    before = [c.copy() for c in batch.cams(0)]
    reference_mask(batch, 0, _profile(0.1), height_px=28, width_px=28)
    for cam, old in zip(batch.cams(0), before, strict=True):
        assert np.array_equal(cam, old)
