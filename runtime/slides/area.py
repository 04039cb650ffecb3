"""Pixels of a wanted size from any place of a slide."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.mpp import Mpp
from sshr_deploy.runtime.slides.reader import SlideReader

LEVEL_TOLERANCE = 0.01
"""A level up to 1 % coarser than wanted is used as it is: scanners' 0.2520 um is meant as 0.25."""
MAX_ENLARGEMENT = 2.0
"""Beyond this the cell detail the network was trained on is not in the slide."""


def read_area(
    reader: SlideReader,
    mpp: Mpp,
    *,
    target_mpp_um: float,
    l0_x: float,
    l0_y: float,
    width_px: int,
    height_px: int,
) -> NDArray[np.uint8]:
    """Read width_px x height_px pixels of target_mpp_um each, corner at level-0 (l0_x, l0_y).

    The coarsest level that is not coarser than the target is read, in the whole-pixel rectangle
    nearest to the wanted one: each side is off by at most half a pixel of that level, whatever its
    neighbours are. It is averaged by area where it shrinks and bilinear where it grows.

    Returns:
        RGB, [height_px, width_px, 3]; white outside the slide.

    Raises:
        InputError: the file is damaged there, or too coarse (enlarging more than 2x).
    """
    level = choose_level(reader, mpp, target_mpp_um)
    downsample = reader.level_downsamples[level]
    x, columns = _span(l0_x / downsample, width_px * target_mpp_um / (mpp.x_um * downsample))
    y, rows = _span(l0_y / downsample, height_px * target_mpp_um / (mpp.y_um * downsample))
    return resample(reader.read_region(level, x, y, columns, rows), width_px, height_px)


def choose_level(reader: SlideReader, mpp: Mpp, target_mpp_um: float) -> int:
    """Index of the coarsest level whose pixels are at most 1 % larger than the target's.

    Raises:
        InputError: even the finest level would have to be enlarged more than 2x.
    """
    finest_um = max(mpp.x_um, mpp.y_um)
    if finest_um > MAX_ENLARGEMENT * target_mpp_um * (1 + LEVEL_TOLERANCE):
        fix = (
            "if the file states a wrong pixel size, give the true one with `mpp` and `force_mpp`"
            if mpp.source == "file"
            else f"the size comes from {mpp.source}: check it"
        )
        raise InputError(
            f"{reader.path} is too coarse for this model: its finest level is {finest_um:.4g} "
            f"um/px, the model needs {target_mpp_um:.4g}; {fix}"
        )
    limit_um = target_mpp_um * (1 + LEVEL_TOLERANCE)
    fitting = [
        index
        for index, downsample in enumerate(reader.level_downsamples)
        if finest_um * downsample <= limit_um
    ]
    return max(fitting, default=0, key=lambda index: reader.level_downsamples[index])


def resample(rgb: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Resize [H, W, 3] to [height_px, width_px, 3]: each axis by area averaging or bilinear."""
    rows, columns = rgb.shape[:2]
    shrunk = (min(columns, width_px), min(rows, height_px))
    if shrunk != (columns, rows):
        rgb = cv2.resize(rgb, shrunk, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if shrunk != (width_px, height_px):
        rgb = cv2.resize(rgb, (width_px, height_px), interpolation=cv2.INTER_LINEAR).astype(
            np.uint8, copy=False
        )
    return rgb


def _span(start: float, length: float) -> tuple[int, int]:
    """First pixel and number of pixels nearest to [start, start + length)."""
    first = math.floor(start + 0.5)
    return first, max(1, math.floor(start + length + 0.5) - first)
