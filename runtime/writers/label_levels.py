"""Levels of a mask's pyramid, cut into tiles as its rows come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.writers.tile_rows import Tile, TileRows

_SMALLEST_LEVEL_PX = 512


class LabelLevel:
    """One level: each pixel the one nearest to its block's middle, so that it holds labels."""

    def __init__(
        self, size_px: tuple[int, int], factor: int, tile_px: int, background: int
    ) -> None:
        """Of a mask of (width, height), `factor` times smaller."""
        width, height = size_px
        self.shape = max(1, height // factor), max(1, width // factor)
        self.factor = factor
        self._left = min(factor // 2, width - 1)
        self._skip = min(factor // 2, height - 1)
        """Rows of the mask before the next one that this level takes."""
        self._rows_to_come = self.shape[0]
        self._tiles = TileRows(self.shape, tile_px, np.uint8(background))

    def put(self, labels: NDArray[np.uint8], tissue: slice) -> Iterator[Tile[np.uint8]]:
        """Tiles that the next rows of the mask complete; it is background outside `tissue`."""
        factor = self.factor
        rows = labels[self._skip :: factor, self._left :: factor]
        rows = rows[: self._rows_to_come, : self.shape[1]]
        self._skip += len(rows) * factor - len(labels)
        self._rows_to_come -= len(rows)
        near = slice(tissue.start // factor, min(-(-tissue.stop // factor), self.shape[1]))
        return self._tiles.put(rows, near)


def label_levels(size_px: tuple[int, int], tile_px: int, background: int) -> list[LabelLevel]:
    """Those of a mask (width, height): each half of the last, to 512 px or less."""
    factors = [1]
    while max(1, max(size_px) // factors[-1]) > _SMALLEST_LEVEL_PX:
        factors.append(2 * factors[-1])
    return [LabelLevel(size_px, factor, tile_px, background) for factor in factors]
