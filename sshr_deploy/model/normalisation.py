"""Normalisation of pixel values by ImageNet statistics, as in the published training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sshr_deploy.imagenet import IMAGENET_MEAN, IMAGENET_STD


def normalise(rgb: NDArray[np.uint8] | Tensor) -> Tensor:
    """Patches uint8 [B, H, W, 3] -> float32 [B, 3, H, W], (x / 255 - mean) / std by channel.

    A tensor is normalised on its device, so that a quarter of the bytes travel there.
    """
    x = (rgb if isinstance(rgb, Tensor) else torch.tensor(rgb)) / 255
    mean, std = (torch.tensor(v, device=x.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((x - mean) / std).permute(0, 3, 1, 2).contiguous()
