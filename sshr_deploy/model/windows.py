"""What the network takes over a patch, taken over windows that slide on a larger field."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.geometry import BLOCK_CELLS, Geometry


class Windows(nn.Module):
    """Means over the windows of a geometry, and values between their centres.

    With one window for all of the input, a mean is a vector [B, C], as in the published network.
    """

    hat: Tensor

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.register_buffer("hat", hat_matrix(geometry), persistent=False)

    def means(self, values: Tensor) -> Tensor:
        """[B, C, cells, cells] -> [B, C, windows, windows], or [B, C] of a patch."""
        geometry = self.geometry
        if geometry.is_patch:
            return values.mean((2, 3))
        blocks = F.avg_pool2d(values, BLOCK_CELLS)
        size, stride = (n // BLOCK_CELLS for n in (geometry.window_cells, geometry.stride_cells))
        return F.avg_pool2d(blocks, size, stride)

    def spread(self, values: Tensor) -> Tensor:
        """[B, C, windows, windows] -> [B, C, cells, cells]: bilinear between windows' centres.

        Beyond the outermost centres the nearest window counts, as if it had been shifted inside.
        """
        hat = self.hat.to(values.dtype)
        return torch.matmul(torch.matmul(hat, values), hat.t())

    def core(self, values: Tensor) -> Tensor:
        """[B, C, cells, cells] -> [B, C, core_cells, core_cells], what is kept."""
        margin, end = self.geometry.margin_cells, self.geometry.cells - self.geometry.margin_cells
        return values if margin == 0 else values[:, :, margin:end, margin:end]


def hat_matrix(geometry: Geometry) -> Tensor:
    """Weights [cells, windows] of linear interpolation from windows' centres to cells' centres."""
    size, stride, count = geometry.window_cells, geometry.stride_cells, geometry.windows
    cells = torch.arange(geometry.cells, dtype=torch.float64) + 0.5
    places = ((cells - size / 2) / stride).clamp(0, count - 1)
    distance = (places[:, None] - torch.arange(count, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).float()
