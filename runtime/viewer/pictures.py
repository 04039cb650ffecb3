"""Pixels of an input, cut into tiles on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.patches import read_image
from sshr_deploy.runtime.pipeline.discovery import fingerprint_of
from sshr_deploy.runtime.slides import Mpp, SlideReader, open_slide
from sshr_deploy.runtime.slides.area import read_in_blocks, resample
from sshr_deploy.runtime.slides.opening import companions
from sshr_deploy.runtime.slides.reader import mapped_read_errors
from sshr_deploy.runtime.viewer.pyramid import Pyramid, TileBox

_MAX_SHRINK = 8
"""A tile is shrunk from at most so many times its side; coarser ones would take seconds."""

_IN_PIXELS = Mpp(1.0, 1.0, "pixels")


class Picture(Protocol):
    """Pixels of a slide or an image; tiles may be read from any thread."""

    first_level: int
    """The coarsest level that has tiles."""

    def tile(self, box: TileBox) -> NDArray[np.uint8]:
        """RGB, [height_px, width_px, 3].

        Raises:
            InputError: the file is damaged there.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class SlidePicture(Closing):
    """A slide by one of the product's readers."""

    def __init__(self, reader: SlideReader) -> None:
        """Own `reader`."""
        self._reader = reader
        coarsest = max(reader.level_downsamples)
        self.first_level = Pyramid(*reader.level_sizes_px[0]).level_of(coarsest * _MAX_SHRINK)

    def tile(self, box: TileBox) -> NDArray[np.uint8]:
        """See `Picture.tile`."""
        return read_in_blocks(
            self._reader,
            _IN_PIXELS,
            target_mpp_um=box.step,
            width_px=box.width_px,
            height_px=box.height_px,
            l0_x=box.x_px * box.step,
            l0_y=box.y_px * box.step,
        )

    def close(self) -> None:
        """Close the slide; a second call does nothing."""
        self._reader.close()


class ImagePicture(Closing):
    """An image (PNG, JPEG), held in memory: 75 MB at most."""

    first_level = 0

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        """Show `rgb`, [H, W, 3]."""
        self._rgb = rgb

    def tile(self, box: TileBox) -> NDArray[np.uint8]:
        """See `Picture.tile`."""
        step = box.step
        rows = slice(box.y_px * step, (box.y_px + box.height_px) * step)
        columns = slice(box.x_px * step, (box.x_px + box.width_px) * step)
        return resample(self._rgb[rows, columns], box.width_px, box.height_px)

    def close(self) -> None:
        """Nothing is open."""


def open_picture(
    path: Path, kind: str, size_px: tuple[int, int], fingerprint: str | None = None
) -> Picture:
    """Pixels of the input at `path`.

    Raises:
        InputError: it is not there, cannot be read, or another file took its place: it does not
            have `size_px` (width, height), or another `fingerprint`.
    """
    with mapped_read_errors(path, "cannot be read", "see that you may read it and its folder"):
        is_there = path.exists()
    if not is_there:
        raise InputError(f"{path} is not there any more")
    # That of a slide with files beside it changes with their times, so also where it was copied.
    if fingerprint is not None and not companions(path) and fingerprint_of(path) != fingerprint:
        raise InputError(f"{path} is not the file that was segmented; run infer on it again")
    if kind == "patch":
        rgb = read_image(path)
        _check_size(path, (rgb.shape[1], rgb.shape[0]), size_px)
        return ImagePicture(rgb)
    reader = open_slide(path)
    try:
        _check_size(path, reader.level_sizes_px[0], size_px)
        return SlidePicture(reader)
    except BaseException:
        reader.close()
        raise


def _check_size(path: Path, size_px: tuple[int, int], wanted_px: tuple[int, int]) -> None:
    if size_px != wanted_px:
        raise InputError(
            f"{path} has {size_px[0]} x {size_px[1]} px, what was segmented had {wanted_px[0]} x "
            f"{wanted_px[1]}; run infer on it again"
        )
