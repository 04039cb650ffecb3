"""Corners of regions -> their rings.

Edges run along pixels, so a ring is known from its corners alone: of those of a region in one row,
from left to right, the first two are the ends of an edge, the next two of another, and so on; the
same goes for columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.int64]
"""Packed corners: `y << 33 | x << 2 | pixel`, x and y in pixels from the mask's top left.

`pixel` says which of the four pixels around the corner is the region's: 0 north-west, 1
north-east, 2 south-west, 3 south-east. Where three are the region's, it is the middle one.
"""

_X = (1 << 31) - 1
_UP_BEFORE_DOWN = np.array([3, 1, 2, 0])
"""Order, by `pixel`, of two corners of one region at one place, where it touches itself.

In a row they are in the order of `pixel`. North-west (left edge) then south-east (right edge) in
the row, and the other way round in the column, pairs the left edge with the lower one: the rings
part there, as those of valid polygons must. North-east and south-west likewise.
"""


class Ring(NamedTuple):
    """Closed line through corners in turn; the first is not repeated."""

    x: NDArray[np.int64]  # [corners]
    y: NDArray[np.int64]


class Outlines(NamedTuple):
    """All corners of some regions, in any order."""

    corners: Corners  # [C]
    regions: NDArray[np.intp]  # [C], whose each corner is: an index of `labels`
    labels: NDArray[np.uint8]  # by region


def pack(x: NDArray[np.int64], y: NDArray[np.int64], pixel: NDArray[np.int64]) -> Corners:
    """Corners at (x, y)."""
    return (y << 33) | (x << 2) | pixel


def rings_of(outlines: Outlines) -> Iterator[tuple[int, list[Ring]]]:
    """Label and rings of each region: the outer one, then its holes from top to bottom.

    Regions come by their lowest row, then by their first corner in reading order. A ring begins at
    its first corner in reading order; the outer one goes down from there, holes go right.
    """
    order = np.lexsort((outlines.corners, outlines.regions))
    corners, regions = outlines.corners[order], outlines.regions[order]
    del order
    x, y = (corners >> 2) & _X, corners >> 33
    below = _vertical_ends(x, y, corners & 3, regions)
    starts = np.flatnonzero(np.diff(regions, prepend=-1))
    ends = np.append(starts[1:], len(regions))
    walked = bytearray(len(regions))
    for region in np.lexsort((corners[starts], y[ends - 1])) if len(starts) else ():
        start, end = int(starts[region]), int(ends[region])
        paths = _paths(below, walked, start, end)
        yield int(outlines.labels[regions[start]]), [Ring(x[path], y[path]) for path in paths]


def _vertical_ends(
    x: NDArray[np.int64], y: NDArray[np.int64], pixel: NDArray[np.int64], regions: NDArray[np.intp]
) -> memoryview:
    """The other end of each corner's vertical edge; that of its horizontal edge is `corner ^ 1`."""
    order = np.lexsort((pack(y, x, _UP_BEFORE_DOWN[pixel]), regions))
    ends = np.empty_like(order)
    ends[order[::2]] = order[1::2]
    ends[order[1::2]] = order[::2]
    return ends.data


def _paths(
    vertical: memoryview, walked: bytearray, start: int, end: int
) -> Iterator[NDArray[np.int64]]:
    """Corners of each ring, in turn, of the region whose corners are `start` to `end`."""
    first, is_outer = start, True
    while first >= 0:
        path = array("q")
        corner = first
        while not walked[corner]:
            other = vertical[corner] if is_outer else corner ^ 1
            path.append(corner)
            path.append(other)
            walked[corner] = walked[other] = 1
            corner = other ^ 1 if is_outer else vertical[other]
        yield np.frombuffer(path, np.int64)
        first, is_outer = walked.find(0, first, end), False
