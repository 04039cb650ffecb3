"""`hfrm_cam` for PyTorch: inference only, no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.building.arguments import FLOATS, check_tensor
from sshr_deploy.runtime.kernels.building.interpreter import interpreting
from sshr_deploy.runtime.kernels.building.jit import launch
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    ADD_VARIANT,
    KERNEL_PX,
    MAX_CLASSES,
    Config,
    cam_variant,
    choose_config,
    layout_of,
    make_plan,
    pack,
    padded_classes,
    vector_width,
)
from sshr_deploy.runtime.kernels.hfrm_cam.triton import add_splits_kernel, hfrm_cam_kernel

_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 3e-3}
"""Largest relative RMS error of packed weights: bfloat16 rounds by 1.7e-3, float16 by 2e-4."""
_INTERPRETED_SM, _INTERPRETED_PROCESSORS = 90, 8  # an H100's blocks; enough to split channels


@dataclass(frozen=True)
class HfrmCamWeights:
    """HFRM and its head as the kernel reads them; made by `pack_hfrm_cam`."""

    head: Tensor  # [C, NP], the features' dtype
    context: Tensor  # [14 + rows, C, rows * 16 * NP], the features' dtype
    bias: Tensor  # [N] float32


def pack_hfrm_cam(
    head_weight: Tensor,  # [N, C]
    head_bias: Tensor,  # [N]
    kernel: Tensor,  # [C, 15, 15]
    gamma_context: float,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    rows: int | None = None,
) -> HfrmCamWeights:
    """Pack the weights once a model, for features of `dtype` on `device`.

    Args:
        head_weight: of the CAM head, a 1x1 convolution.
        head_bias: of the CAM head.
        kernel: HFRM's depthwise 15x15 kernel.
        gamma_context: HFRM's gamma_c.
        dtype: float32, float16 or bfloat16.
        device: where the features will be.
        rows: of the build that gets them (`plan.Config`); None for what `hfrm_cam` runs there.

    Raises:
        KernelArgumentError: a wrong shape or dtype (named), more than 16 classes, or weights that
            `dtype` cannot hold.
    """
    if dtype not in _DTYPES:
        raise KernelArgumentError(f"dtype is {dtype}; it must be float32, float16 or bfloat16")
    gamma_context = float(gamma_context)
    if rows not in (None, 1, 2, 4):
        raise KernelArgumentError(f"rows is {rows}; it must be 1, 2 or 4")
    if head_weight.ndim != 2 or not 1 <= len(head_weight) <= MAX_CLASSES:
        raise KernelArgumentError(
            f"head_weight is {list(head_weight.shape)}; it must be [N, C] with N from 1 to 16"
        )
    classes, channels = head_weight.shape
    for name, tensor, shape in (
        ("head_weight", head_weight, (classes, channels)),
        ("head_bias", head_bias, (classes,)),
        ("kernel", kernel, (channels, KERNEL_PX, KERNEL_PX)),
    ):
        check_tensor(name, tensor, shape, like=tensor)
    if rows is None:
        rows = choose_config(_sm(torch.device(device)), _DTYPES[dtype], classes).rows
    weight, bias, taps = (
        tensor.detach().cpu().float().numpy() for tensor in (head_weight, head_bias, kernel)
    )
    packed = pack(weight, bias, taps, gamma_context, rows)
    head, context = (torch.from_numpy(array) for array in (packed.head, packed.context))
    _check_range(head, context, dtype)
    return HfrmCamWeights(
        head.to(device, dtype), context.to(device, dtype), torch.from_numpy(packed.bias).to(device)
    )


def _check_range(head: Tensor, context: Tensor, dtype: torch.dtype) -> None:
    """Refuse weights of which `dtype` leaves nothing.

    Products of a small head, a small gamma_c and taps of 1/225 lie below the normal numbers of
    float16. That matters where they matter beside the head: a CAM adds up 225 of them.
    """
    taps = KERNEL_PX
    size = _rms(head) + taps * _rms(context)
    error = _rms(head.to(dtype) - head) + taps * _rms(context.to(dtype) - context)
    if not error <= _ROUNDING[dtype] * size:
        raise KernelArgumentError(
            "head_weight, or its products with gamma_context and kernel, are too small or too "
            f"large for {str(dtype).removeprefix('torch.')}: use bfloat16 or float32"
        )


def _rms(tensor: Tensor) -> Tensor:
    return tensor.double().square().mean().sqrt()


def hfrm_cam(feature: Tensor, gate: Tensor, weights: HfrmCamWeights) -> Tensor:
    """CAM of one feature level in one read of the feature; `naive.hfrm_cam` is the specification.

    Args:
        feature: [B, C, H, W] float32, float16 or bfloat16, any strides; NCHW and channels_last are
            the fast ones.
        gate: [B, C] float32, 1 + gamma_s w of HFRM.
        weights: from `pack_hfrm_cam`, for this dtype and device.

    Returns:
        [B, N, H, W] float32, contiguous; products are added up in FP32.

    Raises:
        KernelArgumentError: a wrong shape, dtype or device (named).
    """
    cam: Tensor = torch.ops.sshr.hfrm_cam(
        feature, gate, weights.head, weights.context, weights.bias
    )
    return cam


@torch.library.custom_op("sshr::hfrm_cam", mutates_args=())
def _hfrm_cam(feature: Tensor, gate: Tensor, head: Tensor, context: Tensor, bias: Tensor) -> Tensor:
    sm = _sm(feature.device)
    _check(feature, gate, head, context, bias)
    config = choose_config(sm, _DTYPES[feature.dtype], len(bias))
    if context.shape[0] != KERNEL_PX - 1 + config.rows:
        raise KernelArgumentError(
            f"weights were packed for another GPU than SM {sm}; "
            f"pack them with device={feature.device}"
        )
    return run(feature, gate, head, context, bias, config)


@_hfrm_cam.register_fake
def _fake(feature: Tensor, gate: Tensor, head: Tensor, context: Tensor, bias: Tensor) -> Tensor:
    _check(feature, gate, head, context, bias, traced=True)
    batch, _, height, width = feature.shape
    return torch.empty(
        (batch, len(bias), height, width), dtype=torch.float32, device=feature.device
    )


def run(
    feature: Tensor,
    gate: Tensor,
    head: Tensor,
    context: Tensor,
    bias: Tensor,
    config: Config,
    *,
    splits: int | None = None,
) -> Tensor:
    """`hfrm_cam` with the block sizes of `config`, for which `context` was packed; checks nothing.

    `splits` is the number of parts that the channels are worked on in; None to choose.
    """
    (batch, _, height, width), classes = feature.shape, len(bias)
    shape, strides, device = tuple(feature.shape), feature.stride(), feature.device
    layout = layout_of(strides, shape)
    start = feature.data_ptr() // feature.element_size()
    vector = vector_width(layout, strides, width, config.block_p, start)
    upcast = interpreting() and feature.dtype == torch.bfloat16
    variant = cam_variant(config, _DTYPES[feature.dtype], layout, classes, vector, upcast=upcast)
    plan = make_plan(config, shape, strides, classes, _processors(device), splits=splits)
    size = (plan.splits, batch, classes, height, width)
    parts = torch.empty(size, dtype=torch.float32, device=device)
    inputs = [feature, *(tensor.contiguous() for tensor in (gate, head, context, bias))]
    launch(hfrm_cam_kernel, variant, plan.cam, inputs, [parts])
    if plan.add is None:
        return parts[0]
    cam = torch.empty_like(parts[0])
    launch(add_splits_kernel, ADD_VARIANT, plan.add, [parts], [cam])
    return cam


def _check(
    feature: Tensor,
    gate: Tensor,
    head: Tensor,
    context: Tensor,
    bias: Tensor,
    *,
    traced: bool = False,
) -> None:
    like = feature if traced else None  # a trace may be made anywhere
    check_tensor("feature", feature, ("B", "C", "H", "W"), FLOATS, like=like)
    batch, channels = feature.shape[:2]
    check_tensor("weights.bias", bias, ("N",), (torch.float32,), like=feature)
    classes = bias.shape[0]
    if classes > MAX_CLASSES:
        raise KernelArgumentError(f"weights.bias is [{classes}]; it must hold 1 to 16 classes")
    padded = padded_classes(classes)
    columns = context.shape[-1] if context.ndim == 3 else 0
    rows = columns // (16 * padded)
    taps = (KERNEL_PX - 1 + rows, channels, rows * 16 * padded)
    for name, tensor, shape, dtype in (
        ("gate", gate, (batch, channels), torch.float32),
        ("weights.head", head, (channels, padded), feature.dtype),
        ("weights.context", context, taps, feature.dtype),
    ):
        check_tensor(name, tensor, shape, (dtype,), like=feature)


@lru_cache
def _sm(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_SM
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@lru_cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
