"""The specification of `cam_to_mask` is the published post-processing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sshr_deploy.runtime.kernels.cam_to_mask import plan
from tests.runtime.kernels.cam_cases import (
    WEIGHTS,
    Case,
    Floats,
    margin,
    naive_scores,
    random_inputs,
)


def _scores_in_float64(
    cams: Sequence[Floats], prob: Floats, *, threshold: float, size: tuple[int, int]
) -> NDArray[np.float64]:
    """The published post-processing with PyTorch's own upsampling, [B, N, H, W]."""
    total = torch.zeros(())
    for cam, weight in zip(cams, WEIGHTS, strict=True):
        up = F.interpolate(
            torch.from_numpy(cam).double(), size, mode="bilinear", align_corners=False
        )
        low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
        total = total + weight * (up - low) / (high - low + 1e-8)
    on = prob > threshold
    on[np.arange(len(prob)), prob.argmax(1)] = True
    result: NDArray[np.float64] = (total * torch.from_numpy(on)[:, :, None, None]).numpy()
    return result


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("size", [(224, 224), (257, 301), (20, 15), (1, 1)])
def test_specification_is_the_published_one_but_for_near_ties(
    size: tuple[int, int], threshold: float
) -> None:
    for classes in (1, 3, 16):
        for cam in ((28, 28), (7, 5), (1, 1)):
            cams, prob = random_inputs(Case(2, classes, cam, size, threshold), classes)
            exact = _scores_in_float64(cams, prob, threshold=threshold, size=size)
            scores = naive_scores(cams, prob, threshold=threshold, size=size)
            np.testing.assert_allclose(scores, exact, atol=1e-5)
            differ = scores.argmax(1) != exact.argmax(1)
            assert margin(exact)[differ].max(initial=0) < 1e-5
            # Upsampled in float64, a 1 x 1 map is constant but for rounding: no class is best.
            assert differ.mean() < 1e-3 or cam == (1, 1)


@pytest.mark.parametrize("size", [(224, 224), (257, 301), (20, 15), (1, 1)])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.99])
def test_specification_is_the_runtimes_reference_but_for_near_ties(
    size: tuple[int, int], threshold: float
) -> None:
    masks = pytest.importorskip("sshr_deploy.runtime.masks")
    profiles = pytest.importorskip("sshr_deploy.profiles")
    contract = pytest.importorskip("sshr_deploy.runtime.contract")
    assert masks.MIN_MAX_EPSILON == plan.MIN_MAX_EPSILON
    profile = profiles.load_profile("luad").model_copy(update={"gate_threshold": threshold})
    assert profile.cam_weights.as_tuple() == WEIGHTS
    cams, prob = random_inputs(Case(3, 4, (28, 28), size, threshold), 7)
    scores = naive_scores(cams, prob, threshold=threshold, size=size)
    batch = contract.CamBatch(*cams, prob)
    for i in range(len(prob)):
        mask = masks.reference_mask(batch, i, profile, height_px=size[0], width_px=size[1])
        differ = mask != scores[i].argmax(0)
        assert margin(scores)[i][differ].max(initial=0) < 1e-5
        assert differ.mean() < 1e-3
