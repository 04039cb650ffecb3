"""Where on a slide the patches lie.

Tiles are laid edge to edge from the slide's top-left corner, each `PATCH_PX` pixels of the
profile's mpp. Coordinates: `l0_` level-0 pixels, `t_` tile row and column, plain `_px` mask pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.runtime.slides.tissue_map import TissueMap


@dataclass(frozen=True)
class Tile:
    """One patch's place on the slide."""

    t_row: int
    t_column: int
    l0_x: float
    l0_y: float


@dataclass(frozen=True)
class TileTissue:
    """Where within a tile tissue is, kept in few bytes: a slide may have 100,000 tiles."""

    _packed: bytes | None
    """None where all of the tile is tissue; else its bits, compressed."""

    @classmethod
    def of(cls, inside: NDArray[np.bool_]) -> TileTissue:
        """Keep a mask, bool [224, 224]."""
        return cls(None if inside.all() else zlib.compress(np.packbits(inside).tobytes(), level=1))

    def mask(self) -> NDArray[np.bool_]:
        """Bool [224, 224]."""
        if self._packed is None:
            return np.ones((PATCH_PX, PATCH_PX), np.bool_)
        bits = np.frombuffer(zlib.decompress(self._packed), np.uint8)
        return np.unpackbits(bits).reshape(PATCH_PX, PATCH_PX).view(np.bool_)


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

    def tissue_by_tile(self, tissue: TissueMap) -> dict[Tile, TileTissue]:
        """The tiles that hold at least one pixel of tissue, row by row, each with its tissue."""
        width, height = (PATCH_PX * s for s in self.l0_px_per_px)
        found: dict[Tile, TileTissue] = {}
        for tile in self.tiles():
            even = tissue.is_even(tile.l0_x, tile.l0_y, width, height)
            if even and self._is_whole(tile):
                found[tile] = TileTissue(None)
            elif even is not False:
                inside = self.tissue_in(tile, tissue)
                if inside.any():
                    found[tile] = TileTissue.of(inside)
        return found

    def _is_whole(self, tile: Tile) -> bool:
        """Whether no part of the tile lies past the mask's edge."""
        bottom, right = (PATCH_PX * (index + 1) for index in (tile.t_row, tile.t_column))
        return bottom <= self.height_px and right <= self.width_px
