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
"""Packed corners: `region << 42 | y << 22 | x << 2 | pixel`, so that they sort in this order.

x and y in pixels from the mask's top left. `pixel` says which of the four pixels around the corner
is the region's: 0 north-west, 1 north-east, 2 south-west, 3 south-east. Where three are the
region's, it is the middle one.
"""

MAX_SIDE_PX = (1 << 20) - 1
"""Of a mask: a metre at 1 um a pixel."""

_UP_BEFORE_DOWN = np.array([3, 1, 2, 0])
"""Order, by `pixel`, of two corners of one region at one place, where it touches itself.

In a row they are in the order of `pixel`. North-west (left edge) then south-east (right edge) in
the row, and the other way round in the column, pairs the left edge with the lower one: the rings
part there, as those of valid polygons must. North-east and south-west likewise.
"""


class Outlines(NamedTuple):
    """Complete regions: all their corners, in any order."""

    corners: Corners  # [C]
    labels: NDArray[np.uint8]  # by region


class Ring(NamedTuple):
    """Closed line through corners in turn; the first is not repeated."""

    x: NDArray[np.int32]  # [corners], in pixels
    y: NDArray[np.int32]


def pack(
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    pixel: NDArray[np.int64],
    region: NDArray[np.int64] | int,
) -> Corners:
    """Corners at (x, y), in pixels."""
    return region_key(region) | (y << 22) | (x << 2) | pixel


def region_key(region: NDArray[np.int64] | int) -> Corners:
    """What the corners of a region begin with: at most any of them, above all those before."""
    return np.asarray(region, np.int64) << 42


def regions_of(corners: Corners) -> NDArray[np.int64]:
    """Number of each corner's region."""
    return corners >> 42


def rings_of(outlines: Outlines) -> Iterator[tuple[int, list[Ring]]]:
    """Label and rings of each region: the outer one, then its holes from top to bottom.

    Regions come by their lowest row, then by their first corner in reading order. A ring begins at
    its first corner in reading order; the outer one goes down from there, holes go right. The
    corners are sorted in place.
    """
    corners = outlines.corners
    corners.sort()
    bounds = np.searchsorted(corners, region_key(np.arange(len(outlines.labels) + 1)))
    regions = np.flatnonzero(np.diff(bounds))
    first, last = corners[bounds[regions]], corners[bounds[regions + 1] - 1]
    regions = regions[np.lexsort((_x(first), _y(first), _y(last)))]
    path, ring_ends = _walk(corners, bounds[regions].tolist(), bounds[regions + 1].tolist())
    x, y = _x(corners)[path].astype(np.int32), _y(corners)[path].astype(np.int32)
    start = 0
    for label, ends in zip(outlines.labels[regions].tolist(), ring_ends, strict=True):
        starts = [start, *ends[:-1]]
        yield label, [Ring(x[a:b], y[a:b]) for a, b in zip(starts, ends, strict=True)]
        start = ends[-1]


def _x(corners: Corners) -> NDArray[np.int64]:
    return (corners >> 2) & MAX_SIDE_PX


def _y(corners: Corners) -> NDArray[np.int64]:
    return (corners >> 22) & MAX_SIDE_PX


def _vertical_ends(corners: Corners) -> memoryview:
    """The other end of each corner's vertical edge; that of its horizontal edge is `corner ^ 1`."""
    by_column = regions_of(corners)  # in place from here: there may be millions
    by_column <<= 20
    by_column |= _x(corners)
    by_column <<= 20
    by_column |= _y(corners)
    by_column <<= 2
    by_column |= _UP_BEFORE_DOWN[corners & 3]
    order = by_column.argsort()
    del by_column
    ends = np.empty(len(order), np.int32)
    ends[order[::2]] = order[1::2]
    ends[order[1::2]] = order[::2]
    return ends.data


def _walk(
    corners: Corners, starts: list[int], ends: list[int]
) -> tuple[NDArray[np.int32], list[list[int]]]:
    """Indices of corners in turn, ring after ring, and where in them each region's rings end.

    The corners of a region are those from `starts` to `ends`.
    """
    vertical = _vertical_ends(corners)
    walked = bytearray(len(corners))
    path = array("i")
    ring_ends = []
    for start, end in zip(starts, ends, strict=True):
        ring_ends.append(list[int]())
        first, is_outer = start, True
        while first >= 0:
            corner = first
            while not walked[corner]:
                other = vertical[corner] if is_outer else corner ^ 1
                path.append(corner)
                path.append(other)
                walked[corner] = walked[other] = 1
                corner = other ^ 1 if is_outer else vertical[other]
            ring_ends[-1].append(len(path))
            first, is_outer = walked.find(0, first, end), False
    return np.frombuffer(path, np.int32), ring_ends
