"""Channel dropout that does not depend on how many processes share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelDropout(nn.Module):
    """Zeroes whole channels with probability `p` in training and scales the others by 1 / (1 - p).

    As `nn.Dropout2d`, but the draw is that of the whole batch: where `world` processes each hold an
    equal part of a batch and their generators are in the same state, process `rank` takes its part
    of the draw, so that they drop together what one process would drop alone.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.rank, self.world = 0, 1

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...]."""
        if not self.training or self.p == 0:
            return x
        batch, channels = x.shape[:2]
        drawn = torch.rand(self.world * batch, channels, device=x.device)
        own = drawn[self.rank * batch : (self.rank + 1) * batch]
        scale = (own >= self.p).to(x.dtype) / (1 - self.p)
        return x * scale.view(batch, channels, *[1] * (x.dim() - 2))
