"""Pictures of a mask: the overlay on a slide's thumbnail or an image, and an image's labels."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.atomic import atomic_path
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.writers.legend import LegendEntry, draw_legend

_OPACITY = 0.45
_BOUNDARY_SHADE = 0.55
_ROWS = 256
"""Tinted at a time, so that it takes little memory."""
_THUMBNAIL_PX = 320
_THUMBNAIL_QUALITY = 85
"""Of JPEG: some 15 KB, of which a page shows hundreds."""


class LabelPicker:
    """The labels of a mask at another size, picked as its rows come: the nearest pixel of each."""

    def __init__(self, size_px: tuple[int, int], shape: tuple[int, int]) -> None:
        """Pick from a mask of `size_px` (width, height) for a picture of `shape` (height, width).

        Either may be the larger.
        """
        self.labels = np.zeros(shape, np.uint8)
        """[height, width] of the picture; whole once all rows have come."""
        self._rows, self._columns = (
            ((np.arange(length) + 0.5) * length_px / length).astype(np.intp)
            for length, length_px in zip(shape, reversed(size_px), strict=True)
        )
        self._y = 0

    def put(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows of the mask, uint8 [rows, width_px]."""
        first, last = np.searchsorted(self._rows, [self._y, self._y + len(labels)])
        rows = self._rows[first:last] - self._y
        self.labels[first:last] = labels[rows[:, None], self._columns]
        self._y += len(labels)


def write_overlay(
    path: Path,
    thumbnail: NDArray[np.uint8],  # [h, w, 3]
    mask: NDArray[np.uint8],  # [H, W]
    *,
    profile: Profile,
    shares: Mapping[str, float | None],
    title: str,
    thumbnail_mpp_um: float | None,
    share_of: str = "tissue",
) -> None:
    """Write a PNG: the thumbnail with the classes' colours over the tissue, a legend strip below.

    The mask covers the same area as the thumbnail and is brought to its size (nearest pixel), as
    `LabelPicker` does it band by band.
    Background pixels keep the thumbnail's colours; a thin darker line runs along the classes'
    boundaries. The strip holds the title, a scale bar where the pixel size is known, and each
    class's name, colour and share. It is wider than the thumbnail where names need it.

    Args:
        path: file to write; replaced when it exists.
        thumbnail: [h, w, 3] uint8 RGB.
        mask: [H, W] uint8, labels 0 to N-1, N background; may be a memory map, it is only read.
        profile: class names and colours.
        shares: by class name, its fraction (0 to 1) of the area of `share_of`; absent or None
            shows no number.
        title: text above the legend, shortened to fit.
        thumbnail_mpp_um: um per thumbnail pixel; None where it is not known.
        share_of: what the shares are fractions of, "tissue" or "image".

    Raises:
        OutputError: the file cannot be written.
    """
    height, width = thumbnail.shape[:2]
    picture = blend(thumbnail, _resize_labels(mask, height, width), profile)
    entries = [LegendEntry(c.name, c.rgb, shares.get(c.name)) for c in profile.classes]
    legend = draw_legend(
        entries, title=title, width_px=width, mpp_um=thumbnail_mpp_um, share_of=share_of
    )
    sheet = Image.new("RGB", (max(width, legend.width), height + legend.height), "white")
    sheet.paste(Image.fromarray(picture), ((sheet.width - width) // 2, 0))
    sheet.paste(legend, (0, height))
    _save_png(sheet, path)


def write_label_png(path: Path, mask: NDArray[np.uint8], *, profile: Profile) -> None:
    """Write a palette PNG whose pixel values are the labels, coloured as the profile says.

    Args:
        path: file to write; replaced when it exists.
        mask: [H, W] uint8, labels 0 to N-1, N background.
        profile: class colours.

    Raises:
        ValueError: the mask holds a label above N, which the palette has no colour for.
        OutputError: the file cannot be written.
    """
    if mask.size and int(mask.max()) > profile.num_classes:
        raise ValueError(f"label {int(mask.max())} in a mask of {profile.num_classes} classes")
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette([channel for rgb in profile.palette for channel in rgb])
    _save_png(image, path)


def write_thumbnail(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write a JPEG of a picture [h, w, 3], at most 320 px on its longer side.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, _THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    encoded = io.BytesIO()  # saved to a file, Pillow's JPEG does not notice that a disk is full
    Image.fromarray(small).save(encoded, format="JPEG", quality=_THUMBNAIL_QUALITY)
    with atomic_path(path) as partial:
        partial.write_bytes(encoded.getvalue())


def blend(
    thumbnail: NDArray[np.uint8],  # [h, w, 3]
    labels: NDArray[np.uint8],  # [h, w]
    profile: Profile,
) -> NDArray[np.uint8]:
    """Tint a thumbnail by class: 45% colour, boundaries at 55% of the class's brightness.

    Args:
        thumbnail: [h, w, 3] uint8 RGB.
        labels: [h, w] uint8, N background.
        profile: class colours.

    Returns:
        [h, w, 3] uint8; background pixels are those of `thumbnail`.
    """
    levels = np.arange(256, dtype=np.uint8)[:, None]
    tables = np.tile(levels, (profile.num_classes + 1, 1, 3))  # of each label, level and channel
    colors = np.asarray(profile.palette, np.float32)[: profile.num_classes]
    tables[:-1] = np.rint((1 - _OPACITY) * levels + _OPACITY * colors[:, None])
    picture = np.empty_like(thumbnail)
    for rows in (slice(y, y + _ROWS) for y in range(0, len(labels), _ROWS)):
        for channel in range(3):
            picture[rows, :, channel] = tables[labels[rows], thumbnail[rows, :, channel], channel]
    tissue = labels < profile.num_classes
    boundary = _boundaries(labels, tissue) & tissue
    picture[boundary] = np.rint(_BOUNDARY_SHADE * colors).astype(np.uint8)[labels[boundary]]
    return picture


def _resize_labels(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    picker = LabelPicker((mask.shape[1], mask.shape[0]), (height, width))
    picker.put(mask)
    return picker.labels


def _boundaries(labels: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels before a change of label, and those after it where tissue begins."""
    boundary = np.zeros(labels.shape, bool)
    line_px = math.ceil(max(labels.shape) / 1600)
    for lines, inside, marked in (
        (labels, tissue, boundary),
        (labels.T, tissue.T, boundary.T),
    ):
        for shift in range(1, line_px + 1):
            change = lines[:-shift] != lines[shift:]
            marked[:-shift] |= change
            marked[shift:] |= change & ~inside[:-shift]
    return boundary


def _save_png(image: Image.Image, path: Path) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        image.save(file, format="PNG")
