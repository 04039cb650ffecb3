"""Rows of a picture, from top to bottom -> its square tiles, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_Sample = TypeVar("_Sample", bound=np.generic)


class Tile(NamedTuple, Generic[_Sample]):
    """One tile, and its place in rows and columns of tiles."""

    row: int
    column: int
    pixels: NDArray[_Sample] | None
    """[..., side, side], blank past the picture; None where all of it is blank."""


class TileRows(Generic[_Sample]):
    """Cuts rows into tiles; memory holds those of one row of tiles that are not blank."""

    def __init__(self, shape: tuple[int, ...], side_px: int, blank: _Sample) -> None:
        """Of a picture [..., height, width], which is `blank` where nothing is."""
        self._height, self._width = shape[-2:]
        self._tile_shape = (*shape[:-2], side_px, side_px)
        self._side_px, self._blank = side_px, blank
        self._rows = 0
        self._open: dict[int, NDArray[_Sample]] = {}
        """Tiles that are not blank in the row of tiles under way, by column."""

    def put(self, rows: NDArray[_Sample], filled: slice) -> Iterator[Tile[_Sample]]:
        """Tiles that the next rows [..., rows, width] complete; outside `filled` all is blank."""
        while rows.shape[-2]:
            top = self._rows % self._side_px
            taken = rows[..., : self._side_px - top, :]
            rows = rows[..., taken.shape[-2] :, :]
            self._rows += taken.shape[-2]
            self._fill(taken, top, filled)
            if self._rows % self._side_px == 0 or self._rows == self._height:
                yield from self._completed()

    def _fill(self, rows: NDArray[_Sample], top: int, filled: slice) -> None:
        """Take rows that lie in one row of tiles."""
        side = self._side_px
        for column in range(filled.start // side, -(-filled.stop // side)):
            block = rows[..., column * side : (column + 1) * side]
            tile = self._open.get(column)
            if tile is None and (block != self._blank).any():
                tile = self._open[column] = np.full(self._tile_shape, self._blank)
            if tile is not None:
                tile[..., top : top + block.shape[-2], : block.shape[-1]] = block

    def _completed(self) -> Iterator[Tile[_Sample]]:
        row = (self._rows - 1) // self._side_px
        for column in range(-(-self._width // self._side_px)):
            yield Tile(row, column, self._open.pop(column, None))
