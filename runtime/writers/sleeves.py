"""Where simplified lines may pass: inside the unit squares around the corners of pixels' edges.

Squares tile the plane, and each is of one line, but for those around the ends. So lines that stay
in their squares never cross others, which need not be known. With one point a square at most, in
turn, a line does not cross itself either. Two squares in turn share a side, called a gate here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

REACH_PX = 0.494
"""How far lines pass from the middles of gates and squares at most, in x and in y: the rest, to
the sides of the squares at 0.5, is more than the rounding of the written coordinates. Steps of n px
become straight only where it is less than 0.12 / n or so."""

MAX_SHIFT_PX = 0.7
"""From the pixels' edges to a line at most: at a corner's outer side, half a square's diagonal."""


class Points(NamedTuple):
    """Points of lines, in turn."""

    x: Floats
    y: Floats
    place: Ints
    """Number, along all lines, of the pixel corner whose square it is in."""
    run: Ints
    """Number of the run which that corner is on."""
    debt: Floats
    """Twice the area, in px2, that the line should have there to its left and has not."""

    def at(self, which: Ints | Bools) -> Points:
        """Some of them, copied."""
        return Points(
            self.x[which], self.y[which], self.place[which], self.run[which], self.debt[which]
        )

    def put(self, which: Ints, points: Points) -> None:
        """Set some of them."""
        for values, new in zip(self, points, strict=True):
            values[which] = new


class Sleeves:
    """The squares of lines along pixels' edges, as straight runs from one corner to the next."""

    def __init__(self, x: Floats, y: Floats, is_end: Bools) -> None:
        """Corners of all lines in turn, in pixels, and whether each is an end; all [corners]."""
        self._x, self._y = x, y
        dx, dy = np.diff(x, append=x[-1]), np.diff(y, append=y[-1])
        between = is_end & np.append(is_end[1:], True)
        between &= np.cumsum(is_end) % 2 == 0
        dx[between] = dy[between] = 0
        self._dx, self._dy = np.sign(dx), np.sign(dy)
        steps = np.where(between, 1, np.abs(dx) + np.abs(dy))
        self._start = np.append(0, np.cumsum(steps).astype(np.int64))
        """[runs + 1]: number of pixel corners before each."""

    def corners(self) -> Points:
        """The lines as they are."""
        count = len(self._x)
        return Points(
            self._x.copy(),
            self._y.copy(),
            self._start[:-1].copy(),
            np.arange(count),
            np.zeros(count),
        )

    def clip(self, x: Floats, y: Floats, points: Points) -> tuple[Floats, Floats]:
        """The nearest to x and y in the squares of points."""
        along = points.place - self._start[points.run]
        middle_x = self._x[points.run] + along * self._dx[points.run]
        middle_y = self._y[points.run] + along * self._dy[points.run]
        return (
            np.clip(x, middle_x - REACH_PX, middle_x + REACH_PX),
            np.clip(y, middle_y - REACH_PX, middle_y + REACH_PX),
        )

    def find(self, x: Ints, y: Ints, before: Points, after: Points) -> tuple[Ints, Ints]:
        """Places of pixel corners (x, y) and their runs, strictly between two points.

        The place is -1 for those that are not passed there.
        """
        place, place_run = np.full(len(x), -1), np.zeros(len(x), np.int64)
        which, run = _ranges(before.run, after.run)
        dx, dy, start = self._dx[run], self._dy[run], self._start[run]
        from_x, from_y = x[which] - self._x[run], y[which] - self._y[run]
        number = start + (from_x * dx + from_y * dy).astype(np.int64)
        hit = (from_x * dy == from_y * dx) & (start <= number) & (number < self._start[run + 1])
        hit &= (before.place[which] < number) & (number < after.place[which]) & (dx != dy)
        place[which[hit]], place_run[which[hit]] = number[hit], run[hit]
        return place, place_run

    def hold(self, one: Points, other: Points) -> Bools:
        """Whether straight lines pass all gates from one point's square to the other's.

        Those of a run lie in line: all are passed where the first and the last are.
        """
        which, run = _ranges(one.run, other.run)
        start, dx, dy = self._start[run], self._dx[run], self._dy[run]
        first = np.maximum(start, one.place[which])
        last = np.minimum(self._start[run + 1], other.place[which]) - 1
        from_x, from_y = one.x[which] - self._x[run], one.y[which] - self._y[run]
        along, across = from_x * dx + from_y * dy, from_x * dy - from_y * dx
        way_x, way_y = (other.x - one.x)[which], (other.y - one.y)[which]
        ahead, aside = way_x * dx + way_y * dy, way_x * dy - way_y * dx
        holds = ahead > 0
        slope = np.divide(aside, ahead, out=np.zeros(len(which)), where=holds)
        for gate in (first, last):
            way = gate - start + 0.5 - along
            holds &= (way >= 0) & (way <= ahead) & (np.abs(across + slope * way) <= REACH_PX)
        holds |= first > last
        return np.logical_and.reduceat(holds, np.flatnonzero(np.diff(which, prepend=-1)))


def _ranges(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All numbers from first to last, range after range, and of each the index of its range."""
    counts = last - first + 1
    which = np.repeat(np.arange(len(first)), counts)
    begins = np.cumsum(counts) - counts
    return which, np.arange(len(which)) - (begins - first)[which]
