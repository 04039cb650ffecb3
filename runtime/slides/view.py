"""The part of a slide that its pictures show: the tissue, with a little glass around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MARGIN = 0.04
"""Glass around the tissue, as a fraction of the longer side of both."""
_MIN_GAIN = 0.1
"""Fraction of the slide that a crop has to leave out: less is not worth a picture of a part."""


@dataclass(frozen=True)
class Box:
    """A rectangle of a slide, as fractions of its width and height from the top left corner."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the slide."""
        return self == Box()

    def of(self, width: int, height: int) -> tuple[slice, slice]:
        """Rows and columns of a picture of the whole slide of that size, at least one of each."""
        left, right = round(self.left * width), round(self.right * width)
        top, bottom = round(self.top * height), round(self.bottom * height)
        return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def box_around(tissue: NDArray[np.bool_]) -> Box:
    """Box of the tissue in a mask [h, w] of a slide, with a margin; all of it where there is none.

    Its edges lie on those of the mask's pixels.
    """
    rows, columns = np.flatnonzero(tissue.any(1)), np.flatnonzero(tissue.any(0))
    if not len(rows):
        return Box()
    height, width = tissue.shape
    long_px = max(np.ptp(rows), np.ptp(columns)) + 1
    margin_px = max(1, round(_MARGIN * float(long_px)))
    left, right = max(0, columns[0] - margin_px), min(width, columns[-1] + 1 + margin_px)
    top, bottom = max(0, rows[0] - margin_px), min(height, rows[-1] + 1 + margin_px)
    if (right - left) * (bottom - top) > (1 - _MIN_GAIN) * tissue.size:
        return Box()
    return Box(
        *(float(edge) for edge in (left / width, top / height, right / width, bottom / height))
    )
