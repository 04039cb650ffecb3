"""Whether a picture can be H&E at all, so that no other stain is segmented as if it were.

The network was trained on brightfield H&E: light that passes the glass is white, haematoxylin
absorbs red and green, eosin green. Both absorb green more than blue, which neither grey, inverted
or fluorescent pictures nor DAB (brown, which absorbs blue most) do. Stain vectors in optical
density: Ruifrok and Johnston, "Quantification of histochemical staining by color deconvolution",
Analytical and Quantitative Cytology and Histology 23 (2001), table 1.

Only what is plainly something else is refused; red and blue in each other's place, haematoxylin
alone and faint brown pass. Glass, dirt, ink and pictures with next to nothing
on them are no concern: they hold no tissue to segment. The limits were set on 240 pictures of
lung, skin, artery, fat and kidney H&E, as they are, tinted, with gamma 0.7 and 1.4, JPEG quality
30, stained 0.4 to 2 times as strongly, and on what was made of them: inverted, grey, fluorescent,
eosin replaced by DAB. The worst values on either side stand beside each limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError

HAEMATOXYLIN_OD = (0.65, 0.70, 0.29)
EOSIN_OD = (0.07, 0.99, 0.11)
"""Optical density of each stain in red, green and blue, from that table."""

_LONGEST_SIDE_PX = 1024
"""Pictures are shrunk to this: colour needs no detail, and a biopsy of 1 mm keeps 30 px or more."""
_SMOOTHING_PX = 1.0
"""Gaussian sigma after that: the noise of JPEG and cameras has hues of its own."""
_MIN_SHARE = 0.002
"""Of the picture's pixels: with fewer to judge there is no tissue to speak of."""

_GLASS_MIN_LEVEL = 180
_GLASS_MAX_TINT = 45
_GLASS_SHARE = 0.005
"""Bright (0-255) and pale: glass, tinted by up to 12 % between channels, or the palest tissue.
A picture with this share of it is brightfield, however much of it is black fill or ink."""
_DEFAULT_WHITE = 240.0

_MIN_BRIGHT_LUMINANCE = 64.0
"""90th percentile, levels: H&E 129 and above, 71 stained twice as strongly; DAPI 58 and below."""
_DARK_LUMINANCE = 40.0
_DARK_SHARE = 0.25
"""Darker pixels (levels) are a background where they make up this share and the rest is no H&E."""

_GREY_LUMINANCE = (8.0, 128.0)
"""Levels of what is neither black fill nor glass."""
_PALE_LUMINANCE = (8.0, 200.0)
_MIN_PALE_SHARE = 0.05
"""The same in a picture without dark tones, where this share of it absorbs at all: the spread is 57
and above in H&E, 24 where that is stained 0.4 times as strongly."""
_MIN_PALE_RANGE = 15.0
"""Levels of luminance, 5th to 95th percentile: less is dim glass; tissue in light grey (130 and
above) has 47 or more."""
_GREY_MAX_SPREAD = 4.0
"""Levels between the channels, 99th percentile of the pixels of those levels: H&E 60 and above (30
where altered), a coverslip's edge 19, grey pictures 0, in JPEG too."""

_MIN_OD = 0.3
"""Natural optical density of the strongest channel from which a hue can be told."""
_MIN_SPREAD = 20.0
"""Levels between the channels from which a hue can be told."""
_MAX_LUMINANCE = 200.0
"""Levels; above it a tint is that of the glass or the camera."""
_MIN_STAIN_OD = 0.05
_MIN_STAIN_SHARE = 0.18
_MAX_RED_SHARE = 1.25
"""Hue of haematoxylin and eosin, as `tissue.py` tells it from dirt and ink."""
_MIN_HE_SHARE = 0.10
_MIN_BACKGROUND_SHARE = 0.2
_MIN_COLOURED_SHARE = 0.02
"""Of the coloured pixels where there is less glass than this: H&E 0.87 and above, inverted 0.00 in
the median. With more glass they may be those of ink, which the tissue detection leaves out,
and with fewer coloured pixels than the last of these shares those of dirt on tinted glass."""

_EOSIN_MAX_RED_SHARE = 0.75
"""Red over green density: eosin 0.07, haematoxylin 0.93, their even mixture 0.43."""
_BROWN_MIN_OD = 0.05
"""Blue minus green density of DAB's brown, where haematoxylin and eosin have less than nothing."""
_MIN_BROWN_SHARE = 0.03
_MIN_BROWN_OVER_EOSIN = 2.0
_MIN_HAEMATOXYLIN_SHARE = 0.02
_BROWN_ALONE_SHARE = 0.15
"""An immunostain has brown, next to no pink, and blue nuclei. Pigment and brown ink fail one of
the three: melanin lies in pink tissue, ink on no nuclei. Without nuclei brown has to cover the last
of these shares, of all pixels. Brown of H&E: 0.0004 of the coloured pixels at most, 0.14 in red ink
with the eosin taken out; of the immunostains 0.13 in the median."""


def check_stain(path: Path, rgb: NDArray[np.uint8], *, any_stain: bool) -> str | None:
    """Refuse a picture that is plainly not H&E.

    Args:
        path: names the picture in the error.
        rgb: [H, W, 3] uint8, a patch image or a slide's thumbnail.
        any_stain: let it pass.

    Returns:
        The reason against H&E where `any_stain` let it pass, else None.

    Raises:
        InputError: it is not H&E, and `any_stain` is not set.
    """
    concern = stain_concern(rgb)
    if concern is not None and not any_stain:
        raise InputError(
            f"{path} does not look like H&E: {concern}; "
            "give H&E, or `any_stain` to segment it all the same"
        )
    return concern


def stain_concern(rgb: NDArray[np.uint8]) -> str | None:
    """Reason against brightfield H&E in a picture [H, W, 3], in a few words; None if there is none.

    A picture without tissue (glass, dirt, pen marks on glass) gives None.
    """
    look = _look(rgb)
    if look.glass < _GLASS_SHARE and (
        look.bright_luminance < _MIN_BRIGHT_LUMINANCE
        or (look.dark > _DARK_SHARE and look.he < _DARK_SHARE)
    ):
        return "its background is dark, as in fluorescence or an empty picture"
    if (look.deep >= _MIN_SHARE and look.deep_spread <= _GREY_MAX_SPREAD) or (
        look.pale >= _MIN_PALE_SHARE
        and look.pale_spread <= _GREY_MAX_SPREAD
        and look.luminance_range >= _MIN_PALE_RANGE
    ):
        return "it has no colours, only greys"
    if look.coloured < _MIN_SHARE:
        return None
    if (
        look.glass < _MIN_BACKGROUND_SHARE
        and look.he < _MIN_HE_SHARE
        and look.coloured >= _MIN_COLOURED_SHARE
    ):
        return "its colours are not those of haematoxylin and eosin"
    if look.brown >= max(_MIN_BROWN_SHARE, _MIN_BROWN_OVER_EOSIN * look.eosin) and (
        look.haematoxylin >= _MIN_HAEMATOXYLIN_SHARE
        or look.brown * look.coloured >= _BROWN_ALONE_SHARE
    ):
        return "it is brown and blue without pink, as immunostains (IHC, DAB) are"
    return None


@dataclass(frozen=True)
class _Look:
    """Measures for `stain_concern`; shares 0 to 1, luminance and spread in levels (0-255)."""

    glass: float
    dark: float
    bright_luminance: float
    deep: float
    """Share of pixels within `_GREY_LUMINANCE`."""
    deep_spread: float
    """Between their channels, 99th percentile."""
    pale: float
    pale_spread: float
    """The same within `_PALE_LUMINANCE`."""
    luminance_range: float
    coloured: float
    """Share of pixels that absorb and have a hue; the shares below are of these."""
    he: float
    eosin: float
    haematoxylin: float
    brown: float


def _look(rgb: NDArray[np.uint8]) -> _Look:
    rgb = _shrunk(rgb)
    luminance = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    r, g, b = (rgb[..., channel] for channel in range(3))  # rgb.min(axis=2) is 10 x slower
    lowest = np.minimum(np.minimum(r, g), b)
    spread = np.maximum(np.maximum(r, g), b) - lowest
    glass = (lowest >= _GLASS_MIN_LEVEL) & (spread <= _GLASS_MAX_TINT)
    deep, pale = (
        (luminance >= low) & (luminance < high) for low, high in (_GREY_LUMINANCE, _PALE_LUMINANCE)
    )
    red, green, blue = _densities(rgb, _white_level(rgb, luminance, glass))
    coloured = (
        (np.maximum(np.maximum(red, green), blue) > _MIN_OD)
        & (spread >= _MIN_SPREAD)
        & (luminance < _MAX_LUMINANCE)
    )
    he = (
        (green - blue > np.maximum(_MIN_STAIN_OD, _MIN_STAIN_SHARE * green))
        & (red < _MAX_RED_SHARE * green)
        & coloured
    )
    eosin = he & (red < _EOSIN_MAX_RED_SHARE * green)
    brown = (blue - green > _BROWN_MIN_OD) & (blue > red) & coloured
    count = max(1, int(coloured.sum()))
    return _Look(
        glass=float(glass.mean()),
        dark=float((luminance < _DARK_LUMINANCE).mean()),
        bright_luminance=float(np.percentile(luminance, 90)),
        deep=float(deep.mean()),
        deep_spread=_high_percentile(spread[deep]),
        pale=float(pale.mean()),
        pale_spread=_high_percentile(spread[pale]),
        luminance_range=float(np.subtract(*np.percentile(luminance, (95, 5)))),
        coloured=float(coloured.mean()),
        he=int(he.sum()) / count,
        eosin=int(eosin.sum()) / count,
        haematoxylin=int((he & ~eosin).sum()) / count,
        brown=int(brown.sum()) / count,
    )


def _high_percentile(values: NDArray[np.uint8]) -> float:
    return float(np.percentile(values, 99)) if values.size else 0.0


def _shrunk(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    factor = _LONGEST_SIDE_PX / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return cv2.GaussianBlur(rgb, (0, 0), _SMOOTHING_PX).astype(np.uint8, copy=False)


def _white_level(
    rgb: NDArray[np.uint8], luminance: NDArray[np.uint8], glass: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Level of clear glass by channel: the median of the brighter half of what may be glass."""
    if glass.mean() < _GLASS_SHARE:
        return np.full(3, _DEFAULT_WHITE, np.float32)
    bright = glass & (luminance >= np.median(luminance[glass]))
    white: NDArray[np.float32] = np.median(rgb[bright], axis=0).astype(np.float32)
    return white


def _densities(
    rgb: NDArray[np.uint8], white: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Natural optical densities of red, green and blue, [h, w] each; 0 at the level of glass."""
    levels = np.arange(256, dtype=np.float32)
    table = np.log((white[:, None] + 1) / (levels + 1)).astype(np.float32)  # [3, 256]
    return table[0][rgb[..., 0]], table[1][rgb[..., 1]], table[2][rgb[..., 2]]
