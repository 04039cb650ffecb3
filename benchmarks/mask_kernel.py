"""What the kernel `cam_to_mask` gains over the same steps in PyTorch's operations, on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sshr_deploy.benchmarks.gpu_timing import alternate, replay, statistics
from sshr_deploy.benchmarks.network import OnStep
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.kernels.cam_to_mask.op import cam_to_mask

_PATCH_PX, _CAM_PX, _CLASSES = 224, 28, 4
_WEIGHTS, _THRESHOLD = (0.6, 0.2, 0.2), 0.2
_CALLS = 32  # in one graph: one alone would measure its launch
_AGREEMENT = 0.999  # the interpolations differ in their last bits, so near ties may differ


def measure_mask_kernel(
    *,
    device: torch.device,
    batches: Sequence[int] = (1, 32),
    size_px: int = _PATCH_PX,
    seconds: float = 0.5,
    on_step: OnStep = print,
) -> list[dict[str, Any]]:
    """Times of "kernel" and "pytorch" by batch size, masks of `size_px` squared from 28 x 28 CAMs.

    Raises:
        SshrDeployError: the masks agree on less than 99.9 % of the pixels.
    """
    rows = []
    for batch in batches:
        on_step(f"cam_to_mask, batch {batch}")
        torch.manual_seed(0)
        shape = (batch, _CLASSES, _CAM_PX, _CAM_PX)
        cams = [torch.randn(shape, device=device).relu() for _ in range(3)]
        prob = torch.rand(batch, _CLASSES, device=device)
        forms = {
            "kernel": partial(_kernel, cams, prob, size_px),
            "pytorch": partial(_pytorch, cams, prob, size_px),
        }
        same = float((forms["kernel"]() == forms["pytorch"]()).double().mean())
        if not same >= _AGREEMENT:
            raise SshrDeployError(f"cam_to_mask agrees on {same:.2%} only; no speed is reported")
        graphs = {name: replay([form] * _CALLS) for name, form in forms.items()}
        for name, samples in alternate(graphs, seconds * len(graphs), divisor=_CALLS).items():
            rows.append({"form": name, "batch": batch, "agreement": same, **statistics(samples)})
    return rows


def _kernel(cams: Sequence[Tensor], prob: Tensor, size_px: int) -> Tensor:
    first, second, third = cams
    return cam_to_mask(
        first,
        second,
        third,
        prob,
        weights=_WEIGHTS,
        threshold=_THRESHOLD,
        height_px=size_px,
        width_px=size_px,
    )


def _pytorch(cams: Sequence[Tensor], prob: Tensor, size_px: int) -> Tensor:
    scores = torch.zeros((), device=prob.device)
    for cam, weight in zip(cams, _WEIGHTS, strict=True):
        up = F.interpolate(cam, (size_px, size_px), mode="bilinear", align_corners=False)
        low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
        scores = scores + weight * (up - low) / (high - low + 1e-8)
    on = (prob > _THRESHOLD) | (prob == prob.amax(1, keepdim=True))
    return (scores * on[:, :, None, None]).argmax(1).to(torch.uint8)
