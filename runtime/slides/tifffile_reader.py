"""TIFF files that OpenSlide refuses: flat, striped, OME pyramids in sub-directories."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.reader import (
    clipped_box,
    downsamples_of,
    mapped_read_errors,
    white,
)
from sshr_deploy.runtime.slides.tiff_level import TiffLevel, tiff_level
from sshr_deploy.runtime.slides.tiff_metadata import (
    check_pages_complete,
    ome_magnification,
    tiff_mpp_um,
)

_CACHE_BYTES = 128 << 20
"""Decoded chunks kept: a row of 256-px tiles of a slide 174,000 px wide."""
_MAX_ASPECT_CHANGE = 0.02
"""A level whose sides shrink by factors more than this apart is another picture, not a level."""

# tifffile logs what it works around; damage that matters is raised here, not printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TifffileReader(Closing):
    """A `SlideReader` on tifffile: reads and decodes only the chunks a region touches.

    Bytes are read under a lock, chunks are decoded outside it, so threads decode side by side.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check that it is complete and 8-bit RGB or grey.

        Raises:
            InputError: it is neither; other exceptions of the parser are mapped by `open_slide`.
        """
        self.path = path
        check_pages_complete(path)
        self._tiff: tifffile.TiffFile | None = tifffile.TiffFile(path)
        try:
            self._levels = _levels(path, self._tiff)
            base = self._levels[0]
            kind = "ome" if self._tiff.is_ome else "imagej" if self._tiff.is_imagej else "tiff"
            self.reader = f"tifffile {tifffile.__version__} ({kind})"
            self.level_sizes_px: tuple[tuple[int, int], ...] = tuple(
                (level.width_px, level.height_px) for level in self._levels
            )
            self.level_downsamples = downsamples_of(self.level_sizes_px)
            self.file_mpp_um = tiff_mpp_um(self._tiff, base.page.keyframe, self.level_sizes_px[0])
            self.file_magnification = ome_magnification(self._tiff)
        except BaseException:
            self._tiff.close()
            raise
        self._file_lock = Lock()
        self._cache_lock = Lock()
        self._cache: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0

    def read_region(
        self, level: int, l_x: int, l_y: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        """See `SlideReader.read_region`."""
        if self._tiff is None:
            raise InputError(f"{self.path} was closed before its level {level} was read")
        grid = self._levels[level]
        out = white(height_px, width_px)
        box = clipped_box((grid.width_px, grid.height_px), l_x, l_y, width_px, height_px)
        if box is None:
            return out
        x0, y0, x1, y1 = box
        tall, wide = grid.chunk_height_px, grid.chunk_width_px
        for row in range(y0 // tall, (y1 - 1) // tall + 1):
            for column in range(x0 // wide, (x1 - 1) // wide + 1):
                chunk = self._chunk(level, row, column)
                top, left = row * tall, column * wide
                ya, yb = max(y0, top), min(y1, top + chunk.shape[0])
                xa, xb = max(x0, left), min(x1, left + chunk.shape[1])
                out[ya - l_y : yb - l_y, xa - l_x : xb - l_x] = chunk[
                    ya - top : yb - top, xa - left : xb - left
                ]
        return out

    def _chunk(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        key = (level, row, column)
        with self._cache_lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        grid = self._levels[level]
        with mapped_read_errors(
            self.path,
            f"cannot be read at level {level}, x {column * grid.chunk_width_px} "
            f"y {row * grid.chunk_height_px}",
            "the file is damaged or incomplete, copy it again",
        ):
            chunk = grid.read_chunk(row, column, self._file_lock)
        with self._cache_lock:
            if key not in self._cache:
                self._cache[key] = chunk
                self._cached_bytes += chunk.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return chunk

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._tiff is not None:
            self._tiff.close()
            self._tiff = None
            self._cache.clear()


def _levels(path: Path, tiff: tifffile.TiffFile) -> list[TiffLevel]:
    """The levels of the largest image in the file (others are labels, macros, thumbnails)."""
    series = max(tiff.series, key=_pixels)
    levels: list[TiffLevel] = []
    for image in series.levels:
        pages: list[Any] = list(image.pages)
        if len(pages) != 1:
            raise InputError(
                f"{path} has {len(pages)} planes ({image.axes}, channels or a stack); "
                "SSHR needs 8-bit RGB brightfield"
            )
        level = tiff_level(path, pages[0])
        if not levels or _is_coarser(levels[0], levels[-1], level):
            levels.append(level)
    return levels


def _is_coarser(base: TiffLevel, previous: TiffLevel, level: TiffLevel) -> bool:
    smaller = level.width_px < previous.width_px and level.height_px < previous.height_px
    across, down = base.width_px / level.width_px, base.height_px / level.height_px
    # one pixel of rounding more than the tolerance, for the smallest levels
    slack = _MAX_ASPECT_CHANGE + 1 / min(level.width_px, level.height_px)
    return smaller and abs(across / down - 1) <= slack


def _pixels(series: tifffile.TiffPageSeries) -> int:
    keyframe: Any = series.keyframe
    return int(keyframe.imagewidth) * int(keyframe.imagelength)
