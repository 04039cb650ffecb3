"""Where a slide carries tissue, decided on a thumbnail, so that empty glass is never computed.

Stain is told from glass and dirt by colour in optical density: haematoxylin and eosin both absorb
green more than blue, glass, dust, bubbles and black ink absorb all colours alike, green ink absorbs
green least, blue ink red most. Red and faded blue ink have the colours of blood and nuclei; they
are told by their lack of texture, being out of focus.

Thresholds were set on lung, skin, artery, fat and kidney H&E from several scanners.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.slides.area import read_in_blocks
from sshr_deploy.runtime.slides.mpp import Mpp
from sshr_deploy.runtime.slides.reader import SlideReader

THUMBNAIL_MPP_UM = 2.0
"""Finest thumbnail: nuclei (6-10 um) still show, and finer would not move the tissue edge."""
MAX_THUMBNAIL_PX = 4096
"""Longest side of a thumbnail: at most 48 MiB of RGB."""

_SMOOTHING_UM = 4.0
"""Gaussian sigma before colours are judged: half a nucleus, evens out JPEG noise."""
_MIN_STAIN_OD = 0.05
"""Green minus blue optical density of stain: glass and dirt stay below 0.02, tissue above 0.1."""
_MIN_STAIN_SHARE = 0.18
"""The same over green density: black and dark ink below 0.15, H&E (1st percentile) above 0.23."""
_MAX_RED_SHARE = 1.25
"""Red over green density: haematoxylin reaches 1.15, blue ink begins at 1.3."""
_RED_SLACK_OD = 0.03
"""Added to that limit, so that the ratio is not judged where both densities are nearly nothing."""
_INK_MAX_STAIN_SHARE = 0.28
"""Red ink lies at 0.15-0.28 of (green - blue) / green; so does blood, hence the texture test."""
_INK_MIN_RED_SHARE = 1.0
"""Blue ink that fades out comes down to 1.1 of red over green density; nuclei seldom reach 1.0."""
_INK_MIN_OD = 0.25
"""Fainter colour is left to the reach below: its hue is too uncertain."""
_INK_MAX_TEXTURE = 0.09
"""Local contrast over density: ink, out of focus, 0.01-0.09; tissue above 0.1 at 2 and 6 um/px."""
_TEXTURE_SCALE_UM = 8.0
_TEXTURE_WINDOW_UM = 24.0
_INK_REACH_UM = 40.0
"""Ink fades out over about this distance around the strokes found."""
_CLOSING_UM = 16.0
"""Gaps narrower than this, such as clefts between cells, count as tissue."""
_MIN_AREA_UM2 = 2000.0
"""Specks smaller than a disc of 50 um are dust or single cells; as small holes are filled."""

_GLASS_MIN_LEVEL = 200
_GLASS_MAX_TINT = 15
_GLASS_MIN_SHARE = 0.005
"""Bright (0-255), nearly neutral pixels are glass where they make up this share of a picture."""
_DEFAULT_WHITE = 240.0


def thumbnail(
    reader: SlideReader, mpp: Mpp, check_stop: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.uint8], float]:
    """A picture of the whole slide, read in blocks so that memory stays small.

    `check_stop` is called before each block; what it raises ends the reading.

    Returns:
        RGB [h, w, 3] and its pixel size in um: 2.0, or what makes the longest side 4096 px, or the
        slide's own where that is coarser.

    Raises:
        InputError: the file is damaged.
    """
    width, height = reader.level_sizes_px[0]
    extent_um = (width * mpp.x_um, height * mpp.y_um)
    mpp_um = max(THUMBNAIL_MPP_UM, max(extent_um) / MAX_THUMBNAIL_PX, mpp.x_um, mpp.y_um)
    columns, rows = (max(1, math.ceil(side / mpp_um - 0.01)) for side in extent_um)
    picture = read_in_blocks(
        reader, mpp, target_mpp_um=mpp_um, width_px=columns, height_px=rows, check_stop=check_stop
    )
    return picture, mpp_um


def detect_tissue(rgb: NDArray[np.uint8], mpp_um: float) -> NDArray[np.bool_]:
    """Stained tissue in an RGB picture [h, w, 3] with pixels of mpp_um; returns [h, w].

    Nothing depends on there being both tissue and glass: a picture may be all of either. Ink under
    which cells can be seen counts as tissue; large red blood pools in focus do too.
    """
    white = _white_level(rgb)
    red, green, blue = (_density(rgb[..., c], white[c], mpp_um) for c in range(3))
    stain = green - blue
    stained = (
        (stain > _MIN_STAIN_OD)
        & (stain > _MIN_STAIN_SHARE * green)
        & (red < _MAX_RED_SHARE * green + _RED_SLACK_OD)
    )
    doubtful = stained & (
        (stain < _INK_MAX_STAIN_SHARE * green) | (red > _INK_MIN_RED_SHARE * green)
    )
    if (doubtful & (green > _INK_MIN_OD)).any():
        stained &= ~_ink(rgb[..., 1], white[1], green, doubtful, mpp_um)
    return _tidy(stained, mpp_um)


def _white_level(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Level of clear glass by channel: the median of the brighter half of what may be glass."""
    red, green, blue = (rgb[..., channel] for channel in range(3))  # rgb.min(axis=2) is 10 x slower
    darkest = np.minimum(np.minimum(red, green), blue)
    brightest = np.maximum(np.maximum(red, green), blue)
    glass = (darkest >= _GLASS_MIN_LEVEL) & (brightest - darkest <= _GLASS_MAX_TINT)
    if glass.mean() < _GLASS_MIN_SHARE:
        return np.full(3, _DEFAULT_WHITE, np.float32)
    bright = glass & (darkest >= _median(darkest, glass))
    return np.array([_median(rgb[..., c], bright) for c in range(3)], np.float32)


def _median(channel: NDArray[np.uint8], mask: NDArray[np.bool_]) -> int:
    """Median from a histogram: np.median would copy a thumbnail to float64."""
    counts = cv2.calcHist([channel], [0], mask.astype(np.uint8), [256], [0, 256])
    total = np.cumsum(counts, dtype=np.float64)
    return int(np.searchsorted(total, total[-1] / 2))


def _density(
    channel: NDArray[np.uint8], white: np.float32, mpp_um: float, sigma_um: float = _SMOOTHING_UM
) -> NDArray[np.float32]:
    """Optical density (natural logarithm) of a smoothed channel, 0 at the level of glass."""
    level = _blur(channel.astype(np.float32), sigma_um / mpp_um)
    level = level + 1
    np.divide(white + 1, level, out=level)
    np.log(level, out=level)
    return level


def _ink(
    channel: NDArray[np.uint8],
    white: np.float32,
    green: NDArray[np.float32],
    doubtful: NDArray[np.bool_],
    mpp_um: float,
) -> NDArray[np.bool_]:
    """Places of doubtful colour without texture, and the doubtful fringe around them."""
    sharp = _density(channel, white, mpp_um, sigma_um=0.0)
    detail = sharp - _blur(sharp, _TEXTURE_SCALE_UM / mpp_um)
    texture = np.sqrt(_blur(detail * detail, _TEXTURE_WINDOW_UM / mpp_um))
    smooth = texture < _INK_MAX_TEXTURE * green
    strokes: NDArray[np.bool_] = doubtful & smooth & (green > _INK_MIN_OD)
    if not strokes.any():
        return strokes
    near = cv2.dilate(strokes.astype(np.uint8), _disc(2 * _INK_REACH_UM / mpp_um)) > 0
    ink: NDArray[np.bool_] = strokes | (near & doubtful)
    return ink


def _tidy(stained: NDArray[np.bool_], mpp_um: float) -> NDArray[np.bool_]:
    """Close narrow gaps, drop specks, fill small holes."""
    closed = cv2.morphologyEx(
        stained.astype(np.uint8), cv2.MORPH_CLOSE, _disc(_CLOSING_UM / mpp_um)
    )
    min_px = _MIN_AREA_UM2 / mpp_um**2
    tissue = _without_small_parts(closed > 0, min_px)
    return ~_without_small_parts(~tissue, min_px)


def _without_small_parts(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    """Drop 8-connected parts of fewer than min_px pixels; parts cut by the border count too."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def _blur(values: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    if sigma_px < 0.3:  # a kernel of one pixel
        return values
    return cv2.GaussianBlur(values, (0, 0), sigma_px).astype(np.float32, copy=False)


def _disc(diameter_px: float) -> NDArray[np.uint8]:
    side = 2 * round(diameter_px / 2) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8, copy=False)
