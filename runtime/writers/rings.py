"""Corners of regions -> their rings.

Edges run along pixels, so a ring is known from its corners alone: of those of a region in one row,
from left to right, the first two are the ends of an edge, the next two of another, and so on; the
same goes for columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.int64]
"""Packed corners: `region << 41 | y << 22 | x << 3 | pixel << 1 | junction`, to sort in this order.

x and y in pixels from the mask's top left. `pixel` says which of the four pixels around the corner
is the region's: 0 north-west, 1 north-east, 2 south-west, 3 south-east. Where three are the
region's, it is the middle one. `junction` is 1 where three or four borders meet. One that lies on a
straight side of a region may be among its corners as well: twice, once with each of its pixels.
"""

MAX_SIDE_PX = (1 << 19) - 1
"""Of a mask: half a metre at 1 um a pixel."""

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
    prob_sums: NDArray[np.int64]
    """By region: of the probability of its class over its pixels, in `tracing.PROB_UNIT`."""


class Rings(NamedTuple):
    """Closed lines through points in turn, one after the other; the first is not repeated."""

    x: NDArray[np.float64]  # [points], in pixels
    y: NDArray[np.float64]
    is_junction: NDArray[np.bool_]
    ends: NDArray[np.int64]
    """[rings]: where in the points each ends."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """[rings]: where in the points each begins."""
        return np.append(0, self.ends[:-1])

    @property
    def following(self) -> NDArray[np.int64]:
        """[points]: index of the next point of the ring."""
        following = np.arange(1, len(self.x) + 1)
        following[self.ends - 1] = self.starts
        return following


class Regions(NamedTuple):
    """Complete regions: the outer ring of each, then its holes from top to bottom."""

    labels: NDArray[np.uint8]  # [regions]
    prob_sums: NDArray[np.int64]
    """[regions]: as in `Outlines`."""
    rings: Rings
    ring_ends: NDArray[np.int64]
    """[regions]: where in the rings those of each end."""

    def sums(self, of_points: NDArray[np.float64]) -> NDArray[np.float64]:
        """[regions]: of numbers [points]."""
        of_rings = np.add.reduceat(of_points, self.rings.starts)
        return np.add.reduceat(of_rings, np.append(0, self.ring_ends[:-1]))

    def areas_px2(self) -> NDArray[np.float64]:
        """[regions]: within the outer rings, without the holes."""
        x, y, _, _ = self.rings
        following = self.rings.following
        return np.abs(self.sums(x * y[following] - x[following] * y)) / 2

    def perimeters_px(self) -> NDArray[np.float64]:
        """[regions]: lengths of all their rings."""
        x, y, _, _ = self.rings
        following = self.rings.following
        return self.sums(np.hypot(x - x[following], y - y[following]))

    def only(self, kept: NDArray[np.bool_]) -> Regions:
        """Some of them, by a mask [regions]."""
        counts = np.diff(self.ring_ends, prepend=0)
        ring_kept = np.repeat(kept, counts)
        lengths = np.diff(self.rings.ends, prepend=0)
        points = np.repeat(ring_kept, lengths)
        x, y, is_junction, _ = self.rings
        ends = np.cumsum(lengths[ring_kept])
        rings = Rings(x[points], y[points], is_junction[points], ends)
        return Regions(self.labels[kept], self.prob_sums[kept], rings, np.cumsum(counts[kept]))


def pack(
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    pixel: NDArray[np.int64],
    junction: NDArray[np.bool_],
    region: NDArray[np.int64] | int,
) -> Corners:
    """Corners at (x, y), in pixels."""
    return region_key(region) | (y << 22) | (x << 3) | (pixel << 1) | junction


def region_key(region: NDArray[np.int64] | int) -> Corners:
    """What the corners of a region begin with: at most any of them, above all those before."""
    return np.asarray(region, np.int64) << 41


def regions_of(corners: Corners) -> NDArray[np.int64]:
    """Number of each corner's region."""
    return corners >> 41


def joined(pieces: Sequence[Outlines]) -> Outlines:
    """Regions of some outlines, in turn."""
    before = np.cumsum([0, *(len(outlines.labels) for outlines in pieces)])[:-1]
    corners = [
        outlines.corners + region_key(first) for outlines, first in zip(pieces, before, strict=True)
    ]
    labels, prob_sums = (np.concatenate(values) for values in list(zip(*pieces, strict=True))[1:])
    return Outlines(np.concatenate(corners), labels, prob_sums)


def rings_of(outlines: Outlines) -> Regions:
    """Regions by their lowest row, then by their first corner in reading order.

    A ring begins at its first corner in reading order; the outer one goes down from there, holes go
    right. The corners are sorted in place.
    """
    corners = outlines.corners
    corners.sort()
    bounds = np.searchsorted(corners, region_key(np.arange(len(outlines.labels) + 1)))
    regions = np.flatnonzero(np.diff(bounds))
    first, last = corners[bounds[regions]], corners[bounds[regions + 1] - 1]
    regions = regions[np.lexsort((_x(first), _y(first), _y(last)))]
    path, ends, ring_ends = _walk(corners, bounds[regions].tolist(), bounds[regions + 1].tolist())
    corners = corners[path]
    x, y = _x(corners).astype(np.float64), _y(corners).astype(np.float64)
    rings = Rings(x, y, (corners & 1).astype(np.bool_), ends)
    return Regions(outlines.labels[regions], outlines.prob_sums[regions], rings, ring_ends)


def _x(corners: Corners) -> NDArray[np.int64]:
    return (corners >> 3) & MAX_SIDE_PX


def _y(corners: Corners) -> NDArray[np.int64]:
    return (corners >> 22) & MAX_SIDE_PX


def _vertical_ends(corners: Corners) -> memoryview:
    """The other end of each corner's vertical edge; that of its horizontal edge is `corner ^ 1`."""
    by_column = regions_of(corners)  # in place from here: there may be millions
    by_column <<= 19
    by_column |= _x(corners)
    by_column <<= 19
    by_column |= _y(corners)
    by_column <<= 2
    by_column |= _UP_BEFORE_DOWN[(corners >> 1) & 3]
    order = by_column.argsort()
    del by_column
    ends = np.empty(len(order), np.int32)
    ends[order[::2]] = order[1::2]
    ends[order[1::2]] = order[::2]
    return ends.data


def _walk(
    corners: Corners, starts: list[int], ends: list[int]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Indices of corners in turn, where in them each ring ends, and where each region's rings do.

    The corners of a region are those from `starts` to `ends`.
    """
    vertical = _vertical_ends(corners)
    walked = bytearray(len(corners))
    path, path_ends, ring_ends = array("i"), array("q"), array("q")
    for start, end in zip(starts, ends, strict=True):
        first, is_outer = start, True
        while first >= 0:
            corner = first
            while not walked[corner]:
                other = vertical[corner] if is_outer else corner ^ 1
                path.append(corner)
                path.append(other)
                walked[corner] = walked[other] = 1
                corner = other ^ 1 if is_outer else vertical[other]
            path_ends.append(len(path))
            first, is_outer = walked.find(0, first, end), False
        ring_ends.append(len(path_ends))
    return (
        np.frombuffer(path, np.int32),
        np.frombuffer(path_ends, np.int64),
        np.frombuffer(ring_ends, np.int64),
    )
