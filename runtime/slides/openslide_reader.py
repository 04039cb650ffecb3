"""Slides that OpenSlide opens."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.reader import (
    clipped_box,
    downsamples_of,
    mapped_read_errors,
    over_white,
    white,
)

_CACHE_BYTES = 128 << 20
"""Decoded tiles kept (OpenSlide's default is 32 MiB): a row of 256-px tiles, 4 bytes a pixel, of a
slide 131,000 px wide, so that reading in row bands decodes each tile once."""


class OpenSlideReader(Closing):
    """A `SlideReader` on OpenSlide, which is thread-safe by itself.

    After the first failed read OpenSlide refuses all others of that handle with the same message.
    Where its own factor of a level is not whole (2.0005), it interpolates by up to a quarter of
    that level's pixel: its positions are whole level-0 pixels.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            openslide.OpenSlideError: as OpenSlide says it; `open_slide` maps it.
        """
        self.path = path
        self._slide: openslide.OpenSlide | None = openslide.OpenSlide(path)
        self._slide.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
        properties = self._slide.properties
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.reader = f"openslide {openslide.__library_version__} ({self.vendor})"
        self.level_sizes_px: tuple[tuple[int, int], ...] = self._slide.level_dimensions
        self.level_downsamples = downsamples_of(self.level_sizes_px)
        self._own_downsamples = self._slide.level_downsamples
        self.file_mpp_um = _mpp(
            properties.get(openslide.PROPERTY_NAME_MPP_X),
            properties.get(openslide.PROPERTY_NAME_MPP_Y),
        )
        self.file_magnification = _magnification(
            properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        )

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
        factor = self._own_downsamples[level]
        with mapped_read_errors(
            self.path,
            f"cannot be read at level {level}, x {x0} y {y0}",
            "the file is damaged or incomplete, copy it again",
        ):
            image = self._slide.read_region(
                (round(x0 * factor), round(y0 * factor)), level, (x1 - x0, y1 - y0)
            )
            rgba = np.asarray(image)
        inside = _flatten(rgba)
        if inside.shape == out.shape:
            return inside
        out[y0 - l_y : y1 - l_y, x0 - l_x : x1 - l_x] = inside
        return out

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def _flatten(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if cv2.extractChannel(rgba, 3).min() == 255:  # scanned all over, as nearly always
        return cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB).astype(np.uint8, copy=False)
    return over_white(rgba[..., :3], rgba[..., 3])


def _mpp(x: str | None, y: str | None) -> tuple[float, float] | None:
    try:
        return float(x or ""), float(y or "")
    except ValueError:
        return None


def _magnification(power: str | None) -> float | None:
    try:
        value = float(power or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
