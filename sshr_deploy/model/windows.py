"""What the network takes over a patch, taken over windows that slide on a larger field."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.geometry import BLOCK_CELLS, Geometry


class Windows(nn.Module):
    """Means over the windows of a geometry, and values between their centres.

    With one window for all of the input, a mean is a vector [B, C], as in the published network.
    Nothing here depends on the field's side, so that a graph can take fields of several.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

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
        Each window becomes a square of `stride_cells` around its centre, and the outermost ones
        grow by the rest.
        """
        geometry = self.geometry
        between = F.interpolate(values, scale_factor=geometry.stride_cells, mode="bilinear")
        rest = (geometry.window_cells - geometry.stride_cells) // 2
        return F.pad(between, (rest, rest, rest, rest), mode="replicate")

    def core(self, values: Tensor) -> Tensor:
        """[B, C, cells, cells] -> [B, C, core_cells, core_cells], what is kept."""
        margin = self.geometry.margin_cells
        return values if margin == 0 else values[:, :, margin:-margin, margin:-margin]
