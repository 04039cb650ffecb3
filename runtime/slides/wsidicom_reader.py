"""DICOM slides that OpenSlide does not open: JPEG-LS, RLE, high-throughput JPEG 2000, ..."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import wsidicom
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.dicom_series import magnification, volume_files
from sshr_deploy.runtime.slides.reader import (
    clipped_box,
    downsamples_of,
    mapped_read_errors,
    white,
)


class WsidicomReader(Closing):
    """A `SlideReader` on wsidicom, which locks each file while it reads a frame of it.

    Of several focal planes the middle one is read. Tiles that were not scanned are white.
    """

    def __init__(self, path: Path, companions: Iterable[Path]) -> None:
        """Open the slide whose files are `path` and its `companions`.

        Raises:
            InputError: files are missing, or it is not one scan in 8-bit RGB; other exceptions of
                the library are mapped by `open_slide`.
        """
        self.path = path
        files = volume_files([path, *companions])
        settings = wsidicom.Settings(strict_tile_size_check=False)
        self._slide: wsidicom.WsiDicom | None = wsidicom.WsiDicom.open(files, settings=settings)
        try:
            _check(path, self._slide, len(files))
            levels = self._slide.pyramid.levels
            self.reader = f"wsidicom {wsidicom.__version__} (dicom)"
            self._numbers = [level.level for level in levels]
            self.level_sizes_px: tuple[tuple[int, int], ...] = tuple(
                (level.size.width, level.size.height) for level in levels
            )
            self.level_downsamples = downsamples_of(self.level_sizes_px)
            mpp = self._slide.mpp
            self.file_mpp_um: tuple[float, float] | None = mpp.width, mpp.height
            self.file_magnification = magnification(files[0])
        except BaseException:
            self._slide.close()
            raise

    def read_region(
        self, level: int, l_x: int, l_y: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        """See `SlideReader.read_region`."""
        if self._slide is None:
            raise InputError(f"{self.path} was closed before its level {level} was read")
        out = white(height_px, width_px)
        box = clipped_box(self.level_sizes_px[level], l_x, l_y, width_px, height_px)
        if box is None:
            return out
        x0, y0, x1, y1 = box
        with mapped_read_errors(
            self.path,
            f"cannot be read at level {level}, x {x0} y {y0}",
            "a file of it is damaged or incomplete, copy them again",
        ):
            out[y0 - l_y : y1 - l_y, x0 - l_x : x1 - l_x] = self._slide.read_region(
                (x0, y0), self._numbers[level], (x1 - x0, y1 - y0), as_array=True
            )
        return out

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def _check(path: Path, slide: wsidicom.WsiDicom, files: int) -> None:
    """Refuse what would be read wrongly or in part."""
    opened = len(slide.files or ())
    if opened != files:  # the library leaves out what it cannot read
        raise InputError(
            f"{path} is a slide of {files} files, of which {files - opened} cannot be read; copy "
            "them again"
        )
    if len(slide.pyramids) != 1:
        raise InputError(
            f"{path} holds {len(slide.pyramids)} scans of different places; export each as a slide"
        )
