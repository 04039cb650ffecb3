"""Single tiles of our own TIFF files, whose values are no colours."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.slides.reader import mapped_read_errors

_KEPT_TILES = 64
"""Decoded tiles of a file in memory: 16 MB of a mask."""


class TiffPages(Closing):
    """The first series of a tiled TIFF; tiles may be read from any thread."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            InputError: it is missing or no tiled TIFF.
        """
        self._path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, ...], NDArray[Any]] = OrderedDict()
        with mapped_read_errors(path, "cannot be read", "run infer on the input again"):
            self._tiff = tifffile.TiffFile(path)
            try:
                self.levels: list[list[Any]] = [
                    list(level.pages) for level in self._tiff.series[0].levels
                ]
                """Pages of each level, finest first."""
                if not all(page.keyframe.is_tiled for pages in self.levels for page in pages):
                    raise ValueError("it is not tiled")
            except BaseException:
                self._tiff.close()
                raise

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the finest level."""
        return self.level_size_px(0)

    def level_size_px(self, level: int) -> tuple[int, int]:
        """Width and height of a level."""
        keyframe = self.levels[level][0].keyframe
        return int(keyframe.imagewidth), int(keyframe.imagelength)

    @property
    def colormap(self) -> NDArray[np.uint16] | None:
        """Palette, [3, 256]."""
        colormap: NDArray[np.uint16] | None = self.levels[0][0].keyframe.colormap
        return colormap

    def region(
        self, level: int, x0: int, y0: int, x1: int, y1: int, plane: int = 0
    ) -> NDArray[Any]:
        """Values from (x0, y0) to before (x1, y1), [rows, columns], which lie inside the level."""
        keyframe = self.levels[level][0].keyframe
        wide, tall = int(keyframe.tilewidth), int(keyframe.tilelength)
        out = np.empty((y1 - y0, x1 - x0), keyframe.dtype)
        for row in range(y0 // tall, (y1 - 1) // tall + 1):
            for column in range(x0 // wide, (x1 - 1) // wide + 1):
                top, left = row * tall, column * wide
                ya, yb = max(y0, top), min(y1, top + tall)
                xa, xb = max(x0, left), min(x1, left + wide)
                tile = self._tile(level, plane, row, column)
                out[ya - y0 : yb - y0, xa - x0 : xb - x0] = tile[
                    ya - top : yb - top, xa - left : xb - left
                ]
        return out

    def _tile(self, level: int, plane: int, row: int, column: int) -> NDArray[Any]:
        key = level, plane, row, column
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with mapped_read_errors(
            self._path,
            f"cannot be read at level {level}, tile {column}, {row}",
            "the file is damaged or incomplete, run infer on the input again",
        ):
            tile = self._decoded(*key)
        with self._lock:
            self._kept[key] = tile
            while len(self._kept) > _KEPT_TILES:
                self._kept.popitem(last=False)
        return tile

    def _decoded(self, level: int, plane: int, row: int, column: int) -> NDArray[Any]:
        pages = self.levels[level]
        page = pages[plane] if len(pages) > 1 else pages[0]
        keyframe = page.keyframe
        width, height = self.level_size_px(level)
        across, down = -(-width // keyframe.tilewidth), -(-height // keyframe.tilelength)
        index = row * across + column + (plane * across * down if len(pages) == 1 else 0)
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return np.zeros((keyframe.tilelength, keyframe.tilewidth), keyframe.dtype)
        with self._lock:
            self._tiff.filehandle.seek(offset)
            data = self._tiff.filehandle.read(count)
        if len(data) < count:
            raise EOFError("the file ends in the middle of a tile")
        tile: NDArray[Any] = keyframe.decode(data, index, _fullsize=True)[0]
        return tile.reshape(keyframe.tilelength, keyframe.tilewidth)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._tiff.close()
        self._kept.clear()
