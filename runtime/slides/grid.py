"""Where on a slide the patches lie.

Tiles are laid edge to edge from the slide's top-left corner, each `PATCH_PX` pixels of the
profile's mpp. Coordinates: `l0_` level-0 pixels, `t_` tile row and column, plain `_px` mask pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.runtime.slides.tissue import TissueMap


@dataclass(frozen=True)
class Tile:
    """One patch's place on the slide."""

    t_row: int
    t_column: int
    l0_x: float
    l0_y: float


@dataclass(frozen=True)
class TileGrid:
    """The mask of a slide, cut into tiles; the last row and column may reach past the slide."""

    width_px: int
    height_px: int
    mpp_um: float
    """Of the mask, the same in x and y."""
    l0_px_per_px: tuple[float, float]
    """Level-0 pixels along one mask pixel, in x and y."""

    @classmethod
    def of_slide(cls, l0_size_px: tuple[int, int], mpp: Mpp, target_mpp_um: float) -> TileGrid:
        """Grid for a slide of `l0_size_px` (width, height) seen at `target_mpp_um`."""
        scale = target_mpp_um / mpp.x_um, target_mpp_um / mpp.y_um
        width, height = (max(1, round(l0 / s)) for l0, s in zip(l0_size_px, scale, strict=True))
        return cls(width, height, target_mpp_um, scale)

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height_px // PATCH_PX)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width_px // PATCH_PX)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row."""
        step_x, step_y = (PATCH_PX * s for s in self.l0_px_per_px)
        for row in range(self.rows):
            for column in range(self.columns):
                yield Tile(row, column, column * step_x, row * step_y)

    def tissue_in(self, tile: Tile, tissue: TissueMap) -> NDArray[np.bool_]:
        """Tissue within a tile, bool [224, 224]; False past the slide's edge."""
        width, height = (PATCH_PX * s for s in self.l0_px_per_px)
        inside = tissue.window(tile.l0_x, tile.l0_y, width, height, PATCH_PX, PATCH_PX)
        inside[self.height_px - tile.t_row * PATCH_PX :] = False
        inside[:, self.width_px - tile.t_column * PATCH_PX :] = False
        return inside

    def tiles_with_tissue(self, tissue: TissueMap) -> list[Tile]:
        """The tiles that hold at least one pixel of tissue, row by row."""
        width, height = (PATCH_PX * s for s in self.l0_px_per_px)
        return [
            tile
            for tile in self.tiles()
            if tissue.touches(tile.l0_x, tile.l0_y, width, height)
            and self.tissue_in(tile, tissue).any()
        ]
