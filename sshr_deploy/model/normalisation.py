"""What the network expects of pixel values: ImageNet statistics, as in the published training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(rgb: NDArray[np.uint8]) -> Tensor:
    """Patches uint8 [B, H, W, 3] -> float32 [B, 3, H, W], (x / 255 - mean) / std by channel."""
    x = torch.tensor(rgb) / 255
    x = (x - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return x.permute(0, 3, 1, 2).contiguous()
