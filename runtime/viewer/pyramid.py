"""Tiles of a picture at scales that halve: the numbering that OpenSeadragon uses."""

from __future__ import annotations

from dataclasses import dataclass

TILE_PX = 512
OVERLAP_PX = 1
"""Tiles reach so far into their neighbours: enlarged, they would show their edges else."""


@dataclass(frozen=True)
class TileBox:
    """Place of a tile, in pixels of its own level."""

    step: int
    """Pixels of the whole picture along one pixel of the level, in x and in y."""
    x_px: int
    y_px: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Pyramid:
    """Levels of a picture of this size; level 0 is a single pixel, the last one the picture."""

    width_px: int
    height_px: int

    @property
    def last_level(self) -> int:
        """Number of the level at full size."""
        return (max(self.width_px, self.height_px) - 1).bit_length()

    def level_of(self, step: float) -> int:
        """The coarsest level whose pixels are at most `step` pixels of the picture."""
        return max(0, self.last_level - max(0, int(step).bit_length() - 1))

    def tile(self, level: int, column: int, row: int) -> TileBox:
        """Place of a tile with its overlap; those at the edges are smaller.

        Raises:
            LookupError: there is no such tile.
        """
        if not 0 <= level <= self.last_level:
            raise LookupError(f"there is no level {level}")
        step = 1 << (self.last_level - level)
        width, height = -(-self.width_px // step), -(-self.height_px // step)
        x, y = column * TILE_PX, row * TILE_PX
        if not (0 <= x < width and 0 <= y < height):
            raise LookupError(f"level {level} has no tile {column}, {row}")
        left, top = max(0, x - OVERLAP_PX), max(0, y - OVERLAP_PX)
        right, bottom = (
            min(end, start + TILE_PX + OVERLAP_PX) for start, end in ((x, width), (y, height))
        )
        return TileBox(step, left, top, right - left, bottom - top)
