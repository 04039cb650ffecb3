"""Pixels of a wanted size from any place of a slide."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.machine.read_ahead import read_ahead
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.slides.mpp import Mpp
from sshr_deploy.runtime.slides.reader import SlideReader

LEVEL_TOLERANCE = 0.01
"""A level up to 1 % coarser than wanted is used as it is: scanners' 0.2520 um is meant as 0.25."""
MAX_ENLARGEMENT = 2.0
"""Beyond this the cell detail the network was trained on is not in the slide."""
_BLOCK_SOURCE_PX = 16 << 20
"""Pixels of a level in a block (64 MiB as RGBA), which matters for single-level slides."""
_BLOCKS_AT_ONCE = 4
"""Most blocks in memory, however many cores there are."""


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


def read_in_blocks(
    reader: SlideReader,
    mpp: Mpp,
    *,
    target_mpp_um: float,
    width_px: int,
    height_px: int,
    l0_x: float = 0.0,
    l0_y: float = 0.0,
    check_stop: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """`read_area` of a large area, in blocks so that memory stays small.

    Up to four threads read a block each, none more than there are cores. `check_stop` is called
    here before the first block and after each; what it raises ends the reading.
    """
    out = np.empty((height_px, width_px, 3), np.uint8)
    l0_per_px = (target_mpp_um / mpp.x_um, target_mpp_um / mpp.y_um)
    downsample = reader.level_downsamples[choose_level(reader, mpp, target_mpp_um)]
    step = max(16, int(math.sqrt(_BLOCK_SOURCE_PX) * downsample / max(l0_per_px)))

    def read(corner: tuple[int, int]) -> None:
        x, y = corner
        high, wide = min(step, height_px - y), min(step, width_px - x)
        out[y : y + high, x : x + wide] = read_area(
            reader,
            mpp,
            target_mpp_um=target_mpp_um,
            l0_x=l0_x + x * l0_per_px[0],
            l0_y=l0_y + y * l0_per_px[1],
            width_px=wide,
            height_px=high,
        )

    corners = [(x, y) for y in range(0, height_px, step) for x in range(0, width_px, step)]
    threads = min(usable_cores(), _BLOCKS_AT_ONCE)
    check_stop()
    with closing(read_ahead(corners, read, ahead=threads, threads=threads)) as blocks:
        for _ in blocks:
            check_stop()
    return out


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
