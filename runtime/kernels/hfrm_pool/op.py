"""`hfrm_pool` and `hfrm_logits`: what PyTorch users call.

The kernels stand behind three operators of PyTorch's library, so that `torch.compile` and
`torch.export` take them as they are. Arguments are checked inside the operators, where compilers do
not look.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.building.arguments import FLOATS, check_tensor
from sshr_deploy.runtime.kernels.building.jit import launch
from sshr_deploy.runtime.kernels.hfrm_pool import plan
from sshr_deploy.runtime.kernels.hfrm_pool import triton as kernels
from sshr_deploy.runtime.kernels.launch import Variant

_ELEMENTS = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


def hfrm_pool(
    feature: Tensor,  # [B, C, H, W]
    kernel: Tensor,  # [C, 15, 15]
) -> tuple[Tensor, Tensor]:
    """mean(F) and mean(F * S) over the map, each [B, C], in one read of F; differentiable once.

    S [C, H, W] is at each pixel the sum of the taps of K that stay inside the map from it, and
    mean(F * S) is the mean of K's zero-padded depthwise convolution of F; README.md has the
    formulas, `naive.py` is the specification.

    Args:
        feature: float32, float16 or bfloat16, or float64 (slow). Dense as NCHW or channels_last
            it is read in place, and its gradient has the same layout; otherwise it is copied.
        kernel: float32, or float64 where the features are.

    Returns:
        Both float32 and summed in float32, float64 where the features are.

    Raises:
        KernelArgumentError: names the argument and what it should be.
    """
    means: tuple[Tensor, Tensor] = _hfrm_pool(feature, kernel)
    return means


def hfrm_logits(
    feature: Tensor,  # [B, C, H, W]
    kernel: Tensor,  # [C, 15, 15]
    gate: Tensor,  # [B, C]
    gamma_context: Tensor,  # [1]
    head_weight: Tensor,  # [N, C]
    head_bias: Tensor,  # [N]
) -> Tensor:
    """Logits [B, N] of one level: mean(CAM) of HFRM and its 1x1 head, without forming either.

    W (mean(F) * gate + gamma_context mean(F * S)) + b, with gate = 1 + gamma_s w. Differentiable by
    every argument.

    Args:
        feature: as in `hfrm_pool`.
        kernel: as in `hfrm_pool`.
        gate: float32, or float64 where the features are; likewise the rest.
        gamma_context: one number.
        head_weight: of the N classes.
        head_bias: of the N classes.

    Raises:
        KernelArgumentError: names the argument and what it should be.
    """
    mean, weighted = hfrm_pool(feature, kernel)
    batch, channels = mean.shape
    dtypes = (mean.dtype,)
    check_tensor("gate", gate, (batch, channels), dtypes, like=mean)
    check_tensor("gamma_context", gamma_context, (1,), dtypes, like=mean)
    check_tensor("head_weight", head_weight, ("N", channels), dtypes, like=mean)
    check_tensor("head_bias", head_bias, head_weight.shape[:1], dtypes, like=mean)
    return (mean * gate + gamma_context * weighted) @ head_weight.T + head_bias


@torch.library.custom_op("sshr::hfrm_pool", mutates_args=())
def _hfrm_pool(feature: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    _check(feature, kernel)
    feature, channels_last = _dense(feature)
    sums = _tap_sums(kernel, feature.shape, channels_last)
    mean, weighted = _empty_means(feature, kernel), _empty_means(feature, kernel)
    variant = plan.forward(_ELEMENTS[feature.dtype], channels_last)
    _launch(variant, feature.shape, [feature, sums], [mean, weighted])
    return mean, weighted


@_hfrm_pool.register_fake
def _(feature: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    _check(feature, kernel)
    return _empty_means(feature, kernel), _empty_means(feature, kernel)


@torch.library.custom_op("sshr::hfrm_pool_feature_gradient", mutates_args=())
def _feature_gradient(
    feature: Tensor, kernel: Tensor, grad_mean: Tensor, grad_weighted: Tensor
) -> Tensor:
    """Reads nothing of `feature` but its type and layout."""
    gradient = _empty_gradient(feature)
    channels_last = _is_channels_last(gradient)
    sums = _tap_sums(kernel, feature.shape, channels_last)
    variant = plan.feature_gradient(_ELEMENTS[feature.dtype], channels_last)
    inputs = [grad_mean.contiguous(), grad_weighted.contiguous(), sums]
    _launch(variant, feature.shape, inputs, [gradient])
    return gradient


@_feature_gradient.register_fake
def _(feature: Tensor, kernel: Tensor, grad_mean: Tensor, grad_weighted: Tensor) -> Tensor:
    del kernel, grad_mean, grad_weighted
    return _empty_gradient(feature)


@torch.library.custom_op("sshr::hfrm_pool_kernel_gradient", mutates_args=())
def _kernel_gradient(feature: Tensor, kernel: Tensor, grad_weighted: Tensor) -> Tensor:
    """Reads nothing of `kernel` but its type."""
    feature, channels_last = _dense(feature)
    grad_sums = _empty_sums(kernel, feature.shape)
    variant = plan.sums_gradient(_ELEMENTS[feature.dtype], channels_last)
    _launch(variant, feature.shape, [feature, grad_weighted.contiguous()], [grad_sums])
    gradient = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    variant = plan.tap_gradient(_ELEMENTS[kernel.dtype], channels_last)
    _launch(variant, feature.shape, [grad_sums], [gradient])
    return gradient


@_kernel_gradient.register_fake
def _(feature: Tensor, kernel: Tensor, grad_weighted: Tensor) -> Tensor:
    del feature, grad_weighted
    return torch.empty_like(kernel, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _backward(
    ctx: Any, grad_mean: Tensor, grad_weighted: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    feature, kernel = ctx.saved_tensors
    for_feature, for_kernel = ctx.needs_input_grad
    return (
        _feature_gradient(feature, kernel, grad_mean, grad_weighted) if for_feature else None,
        _kernel_gradient(feature, kernel, grad_weighted) if for_kernel else None,
    )


_hfrm_pool.register_autograd(_backward, setup_context=_setup_context)


def _check(feature: Tensor, kernel: Tensor) -> None:
    check_tensor("feature", feature, ("B", "C", "H", "W"), (*FLOATS, torch.float64))
    batch, channels, height, width = feature.shape
    if batch > plan.MAX_IMAGES or max(height, width) > plan.MAX_SIDE_PX:
        raise KernelArgumentError(
            f"feature is {list(feature.shape)}; it must hold at most {plan.MAX_IMAGES} images "
            f"with sides of at most {plan.MAX_SIDE_PX}"
        )
    if channels * height * width > plan.MAX_MAP_ELEMENTS:
        raise KernelArgumentError(
            f"feature is {list(feature.shape)}; C H W must be at most {plan.MAX_MAP_ELEMENTS}"
        )
    shape = (channels, plan.KERNEL_PX, plan.KERNEL_PX)
    check_tensor("kernel", kernel, shape, (_total_dtype(feature),), like=feature)


def _launch(
    variant: Variant, shape: torch.Size, inputs: list[Tensor], outputs: list[Tensor]
) -> None:
    kernel = getattr(kernels, variant.function)
    launch(kernel, variant, plan.plan_launch(variant, plan.Shape(*shape)), inputs, outputs)


def _tap_sums(kernel: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """S in memory as [C, H, W], or as [H, W, C]."""
    sums = _empty_sums(kernel, shape)
    variant = plan.tap_sums(_ELEMENTS[kernel.dtype], channels_last)
    _launch(variant, shape, [kernel.contiguous()], [sums])
    return sums


def _dense(feature: Tensor) -> tuple[Tensor, bool]:
    """Features in one of the two layouts, and whether it is channels_last."""
    if _is_channels_last(feature):
        return feature, True
    return feature.contiguous(), False


def _is_channels_last(feature: Tensor) -> bool:
    return not feature.is_contiguous() and feature.is_contiguous(memory_format=torch.channels_last)


def _total_dtype(feature: Tensor) -> torch.dtype:
    return torch.float64 if feature.dtype == torch.float64 else torch.float32


def _empty_means(feature: Tensor, kernel: Tensor) -> Tensor:
    return torch.empty(feature.shape[:2], dtype=kernel.dtype, device=feature.device)


def _empty_sums(kernel: Tensor, shape: torch.Size) -> Tensor:
    return torch.empty(shape[1:], dtype=kernel.dtype, device=kernel.device)


def _empty_gradient(feature: Tensor) -> Tensor:
    layout = torch.channels_last if _is_channels_last(feature) else torch.contiguous_format
    return torch.empty_like(feature, memory_format=layout)
