"""Tiles -> the slide's mask, in a file, one band of tile rows in memory at a time."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import partial_name
from sshr_deploy.closing import Closing
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.slides.grid import Tile, TileGrid


class MaskStore(Closing):
    """Label map of a slide in a temporary file; tiles arrive row by row.

    Rows are appended with plain writes, so that a full disk is an error here; a memory map of a
    file with holes would kill the process instead. Pixels that no tile covers are background.

    Used as a context manager: the file is gone afterwards.
    """

    def __init__(self, folder: Path, grid: TileGrid, background: int) -> None:
        """Open a temporary file in `folder`, which must exist.

        Raises:
            OutputError: it cannot be made.
        """
        self.grid = grid
        self.background = background
        self.label_counts = np.zeros(background + 1, np.int64)
        """Pixels of each label, 0 to N, in the rows written so far."""
        self._row = 0
        self._band = self._empty_band()
        self._array: np.memmap[tuple[int, int], np.dtype[np.uint8]] | None = None
        self._path = folder / partial_name("mask")
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {error.strerror}; choose another `out`"
            ) from error

    def put(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Place a tile's labels, uint8 [224, 224]; rows of tiles must not go back.

        Raises:
            OutputError: the disk is full.
        """
        self._flush_bands(tile.t_row)
        x = tile.t_column * PATCH_PX
        target = self._band[:, x : x + PATCH_PX]
        target[:] = labels[:, : target.shape[1]]

    def finish(self) -> NDArray[np.uint8]:
        """The whole mask, uint8 [height_px, width_px], read-only and backed by the file.

        Raises:
            OutputError: the disk is full.
        """
        self._flush_bands(self.grid.rows)
        try:
            self._file.close()
        except OSError as error:
            raise self._failure(error) from error
        shape = (self.grid.height_px, self.grid.width_px)
        self._array = np.memmap(self._path, np.uint8, "r", shape=shape)
        return self._array

    def close(self) -> None:
        """Delete the file; the array that `finish` gave must not be used any more."""
        self._array = None
        with suppress(OSError):  # what is still buffered is of no use; it must not hide an error
            self._file.close()
        with suppress(OSError):  # Windows keeps a file that somebody still maps
            self._path.unlink(missing_ok=True)

    def _empty_band(self) -> NDArray[np.uint8]:
        return np.full((PATCH_PX, self.grid.width_px), self.background, np.uint8)

    def _flush_bands(self, until_row: int) -> None:
        while self._row < until_row:
            rows = self._band[: self.grid.height_px - self._row * PATCH_PX]
            self.label_counts += np.bincount(rows.ravel(), minlength=self.background + 1)
            try:
                self._file.write(rows.tobytes())
            except OSError as error:
                raise self._failure(error) from error
            self._row += 1
            self._band = self._empty_band()

    def _failure(self, error: OSError) -> OutputError:
        folder = self._path.parent
        return OutputError(
            f"cannot write to {folder}: {error.strerror}; free space or choose another `out`"
        )
