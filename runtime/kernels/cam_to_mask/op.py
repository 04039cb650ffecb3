"""`cam_to_mask`: what PyTorch users call."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.building.arguments import check_tensor
from sshr_deploy.runtime.kernels.building.jit import launch
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.kernels.cam_to_mask.triton import cam_ranges_kernel, cam_to_mask_kernel

_FLOAT32_MAX = torch.finfo(torch.float32).max


def cam_to_mask(
    cam_28_1: Tensor,  # [B, N, h, w]
    cam_28_2: Tensor,  # [B, N, h, w]
    cam_deep: Tensor,  # [B, N, h, w]
    prob: Tensor,  # [B, N]
    *,
    weights: tuple[float, float, float],
    threshold: float,
    height_px: int,
    width_px: int,
) -> Tensor:
    """Label maps uint8 [B, height_px, width_px] as SSHR's published inference makes them.

    The bits of `naive.cam_to_mask`; `runtime.masks.reference_mask` computes the same with another
    library's interpolation, which differs in its last bits.

    Args:
        cam_28_1: CAMs of the first level, float32, finite and >= 0 (after the ReLU, as engines
            return them), N <= 16. None of the tensors has to be contiguous.
        cam_28_2: of the second level, the same shape.
        cam_deep: of the third level, the same shape.
        prob: probabilities, float32 and finite.
        weights: of the three levels, >= 0.
        threshold: a class with a probability above it is on; the best class always is.
        height_px: of the label maps, 1 to 32767.
        width_px: of the label maps, 1 to 32767.

    Raises:
        KernelArgumentError: names the argument and what it should be.
    """
    _check_tensors(cam_28_1, cam_28_2, cam_deep, prob)
    _check_scalars(weights, threshold, height_px=height_px, width_px=width_px)
    batch, classes, height, width = cam_28_1.shape
    shape, device = (batch, classes, height, width), cam_28_1.device
    tensors = (cam_28_1, cam_28_2, cam_deep, prob)
    inputs = [tensor.resolve_neg().contiguous() for tensor in tensors]
    ranges = torch.empty(plan.ranges_shape(batch, classes), dtype=torch.float32, device=device)
    labels = torch.empty((batch, height_px, width_px), dtype=torch.uint8, device=device)
    ranges_launch = plan.plan_ranges(
        shape, weights=weights, threshold=threshold, height_px=height_px, width_px=width_px
    )
    mask_launch = plan.plan_mask(shape, threshold=threshold, height_px=height_px, width_px=width_px)
    launch(cam_ranges_kernel, plan.RANGES, ranges_launch, inputs, [ranges])
    launch(cam_to_mask_kernel, plan.MASK, mask_launch, [*inputs, ranges], [labels])
    return labels


def _check_tensors(cam_28_1: Tensor, cam_28_2: Tensor, cam_deep: Tensor, prob: Tensor) -> None:
    float32 = (torch.float32,)
    check_tensor("cam_28_1", cam_28_1, ("B", "N", "h", "w"), float32)
    batch, classes, *sides = cam_28_1.shape
    if batch > plan.MAX_PATCHES:
        raise KernelArgumentError(
            f"cam_28_1 holds {batch} patches; it must hold at most {plan.MAX_PATCHES} a call"
        )
    if classes > plan.MAX_CLASSES:
        raise KernelArgumentError(
            f"cam_28_1 has {classes} classes; it must have at most {plan.MAX_CLASSES}"
        )
    if max(sides) > plan.MAX_SIDE_PX:
        raise KernelArgumentError(
            f"cam_28_1 is {sides[0]} x {sides[1]}; its sides must be at most {plan.MAX_SIDE_PX}"
        )
    check_tensor("cam_28_2", cam_28_2, cam_28_1.shape, float32, like=cam_28_1)
    check_tensor("cam_deep", cam_deep, cam_28_1.shape, float32, like=cam_28_1)
    check_tensor("prob", prob, (batch, classes), float32, like=cam_28_1)


def _check_scalars(weights: tuple[float, float, float], threshold: float, **sides_px: int) -> None:
    for name, number in (("threshold", threshold), *(("weights", weight) for weight in weights)):
        if not isinstance(number, int | float | np.floating):
            raise KernelArgumentError(f"{name} holds {number!r}; it must be a number")
    if len(weights) != 3 or not all(0 <= weight <= _FLOAT32_MAX for weight in weights):
        raise KernelArgumentError(f"weights is {weights}; it must be three finite numbers >= 0")
    if not abs(threshold) <= _FLOAT32_MAX:
        raise KernelArgumentError(f"threshold is {threshold}; it must be a finite number")
    for name, side_px in sides_px.items():
        if not (type(side_px) is int and 1 <= side_px <= plan.MAX_SIDE_PX):
            raise KernelArgumentError(
                f"{name} is {side_px}; it must be a whole number from 1 to {plan.MAX_SIDE_PX}"
            )
