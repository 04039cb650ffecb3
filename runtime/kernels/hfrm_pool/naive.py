"""The specification, in plain operations: FP64 for FP64 features, else FP32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sshr_deploy.runtime.kernels.hfrm_pool.plan import KERNEL_PX

_PADDING = KERNEL_PX // 2


def hfrm_pool(
    feature: Tensor,  # [B, C, H, W]
    kernel: Tensor,  # [C, 15, 15]
) -> tuple[Tensor, Tensor]:
    """mean(F) and mean(F * S), each [B, C], where S = conv_transpose2d(ones, K)."""
    feature, kernel = _exact(feature), _exact(kernel)
    channels = feature.shape[1]
    ones = torch.ones_like(feature[:1])
    sums = F.conv_transpose2d(ones, kernel[:, None], padding=_PADDING, groups=channels)
    return feature.mean((2, 3)), (feature * sums).mean((2, 3))


def hfrm_logits(
    feature: Tensor,  # [B, C, H, W]
    kernel: Tensor,  # [C, 15, 15]
    gate: Tensor,  # [B, C]
    gamma_context: Tensor,  # [1]
    head_weight: Tensor,  # [N, C]
    head_bias: Tensor,  # [N]
) -> Tensor:
    """mean(CAM) [B, N] of HFRM and its 1x1 head, through the 15x15 convolution and the CAM."""
    feature, kernel = _exact(feature), _exact(kernel)
    convolved = F.conv2d(feature, kernel[:, None], padding=_PADDING, groups=feature.shape[1])
    rectified = feature * gate[:, :, None, None] + gamma_context * convolved
    return F.conv2d(rectified, head_weight[:, :, None, None], head_bias).mean((2, 3))


def _exact(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
