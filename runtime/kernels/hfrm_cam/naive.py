"""The specification of `hfrm_cam`: what the kernel computes, in plain operations."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def hfrm_cam(
    feature: Tensor,  # [B, C, H, W]
    gate: Tensor,  # [B, C]
    head_weight: Tensor,  # [N, C]
    head_bias: Tensor,  # [N]
    kernel: Tensor,  # [C, 15, 15]
    gamma_context: float,
) -> Tensor:
    """CAM [B, N, H, W] = head(F * gate + gamma_context DWConv15x15(F)), zero padding 7.

    gate is 1 + gamma_s w of HFRM (`sshr_deploy.model.hfrm`). All arguments in one type, FP32 or
    FP64.
    """
    convolved = F.conv2d(feature, kernel[:, None], padding=7, groups=len(kernel))
    rectified = feature * gate[:, :, None, None] + gamma_context * convolved
    return F.conv2d(rectified, head_weight[:, :, None, None], head_bias)
