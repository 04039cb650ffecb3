"""The kernel `cam_to_mask` against the same steps in PyTorch's operations, on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sshr_deploy.benchmarks.measuring.gpu_timing import (
    OnRow,
    Replay,
    alternate_checked,
    check_context,
    keep_to_the_end,
    statistics,
)
from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.runtime.kernels.cam_to_mask.op import cam_to_mask
from sshr_deploy.runtime.progress import OnStep

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
    on_row: OnRow = keep_to_the_end,
) -> list[dict[str, Any]]:
    """Times of "kernel" and "pytorch" by batch size, masks of `size_px` squared from 28 x 28 CAMs.

    Where the masks agree on less than 99.9 % of the pixels, the row of "kernel" has the reason as
    "failed" instead of a time. `on_row` is called with each row.

    Raises:
        SshrDeployError: the kernel broke the CUDA context of this process.
    """
    rows = []
    for batch in batches:
        on_step(f"cam_to_mask, batch {batch}")
        for row in _measure_batch(device, batch, size_px, seconds):
            rows.append(row)
            on_row(row)
    return rows


def _measure_batch(
    device: torch.device, batch: int, size_px: int, seconds: float
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    shape = (batch, _CLASSES, _CAM_PX, _CAM_PX)
    cams = [torch.randn(shape, device=device).relu() for _ in range(3)]
    prob = torch.rand(batch, _CLASSES, device=device)
    expected = _pytorch(cams, prob, size_px)
    forms = {
        "kernel": partial(_kernel, cams, prob, size_px),
        "pytorch": partial(_pytorch, cams, prob, size_px),
    }
    rows: dict[str, dict[str, Any]] = {name: {"form": name, "batch": batch} for name in forms}
    replays: dict[str, Replay] = {}
    for name, form in forms.items():
        try:
            rows[name]["agreement"] = _checked(name, form(), expected)
            replays[name] = Replay([form] * _CALLS)
        except Exception as error:  # compilers and drivers raise anything
            rows[name]["failed"] = first_line(error)
            check_context(f"cam_to_mask, {name}")

    def check(name: str, results: Sequence[Tensor]) -> None:
        for masks in results:
            _checked(name, masks, expected)

    samples, wrong = alternate_checked(replays, seconds * len(replays), check, divisor=_CALLS)
    for name, reason in wrong.items():
        rows[name]["failed"] = reason
    for name, values in samples.items():
        rows[name] |= statistics(values)
    return list(rows.values())


def _checked(name: str, masks: Tensor, expected: Tensor) -> float:
    """Share of the pixels on which the masks agree.

    Raises:
        SshrDeployError: it is too small.
    """
    same = float((masks == expected).double().mean())
    if not same >= _AGREEMENT:
        raise SshrDeployError(
            f"cam_to_mask, {name}: agrees on {same:.2%} only; no speed is reported"
        )
    return same


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
