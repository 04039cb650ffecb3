"""Lines along pixels' edges -> lines of fewer points that enclose the same areas.

An edge between two points becomes one point, while there is such an edge: beside its middle, or so
that the areas on both sides of the line stay as they are, after Kronenfeld, Stanislawski,
Buttenfield and Brockmeyer, "Simplification of polylines by segment collapse", International Journal
of Cartography 6(1), 2020. Areas lost or won are kept as debts of the points and paid by moving
them. All of it happens inside the line's sleeve, so that each line is simplified alone.
"""

from __future__ import annotations

import numpy as np

from sshr_deploy.runtime.writers.sleeves import REACH_PX, Bools, Floats, Ints, Points, Sleeves

_STRAIGHT_PX2 = 1e-9
"""Twice the area of a triangle whose middle point is not needed."""

_CREDITS_PX2 = 4.0, 0.5
"""Debt of a point at most while points become fewer: first, and for lines that cannot pay so much
in the end."""

_LOT_PX2 = 0.01
"""Part of chance in costs, so that among many that are alike some are least at once."""

_PAYMENTS = 12
"""Rounds of payment: a point that cannot pay leaves its debt to the next."""


_UNPAID_PX = 0.008
"""Debt of a line at most, a px of its length; one that owes more stays as it was. The outlines of a
region of A px are at most 2 A + 2 px long: from 10 px on, its area changes by less than 1 %."""


def simplify(x: Floats, y: Floats, is_end: Bools) -> tuple[Floats, Floats, Ints]:
    """Lines of fewer points: their x and y, and of each its index among the corners.

    A point comes from the corner of its index or from one close to it.

    Args:
        x: of the corners of all lines in turn, in pixels, [corners].
        y: likewise.
        is_end: whether a corner is an end of its line, [corners]; ends stay as they are.
    """
    return _simplified(x, y, is_end, _CREDITS_PX2)


def _simplified(
    x: Floats, y: Floats, is_end: Bools, credits_px2: tuple[float, ...]
) -> tuple[Floats, Floats, Ints]:
    """See `simplify`; lines that cannot pay their debts with any of the credits stay as before."""
    if not credits_px2 or not len(x):
        return x, y, np.arange(len(x))
    lines = _Lines(x, y, is_end, credits_px2[0])
    points, origin = lines.simplified()
    line = np.floor_divide(np.cumsum(is_end) - is_end, 2, dtype=np.int64)
    fails = lines.owes_too_much(line)
    new, old = np.flatnonzero(~fails[line[origin]]), np.flatnonzero(fails[line])
    old_x, old_y, old_origin = _simplified(x[old], y[old], is_end[old], credits_px2[1:])
    origin = np.append(origin[new], old[old_origin])
    order = np.argsort(origin)
    x, y = np.append(points.x[new], old_x), np.append(points.y[new], old_y)
    return x[order], y[order], origin[order]


class _Lines:
    """The lines as they are now."""

    def __init__(self, x: Floats, y: Floats, is_end: Bools, credit_px2: float) -> None:
        self._credit_px2 = credit_px2
        self._sleeves = Sleeves(x, y, is_end)
        self._points = self._sleeves.corners()
        self._origin = np.arange(len(x))
        self._free = ~is_end
        self._cost = np.full(len(x), np.inf)
        """Of each point's edge to the next becoming one point; infinite where it cannot."""
        self._merged = self._sleeves.corners()
        """That point."""

    def simplified(self) -> tuple[Points, Ints]:
        """Their points in the end, and of each the index of its corner."""
        touched = self._free
        while touched.any():
            self._price(touched)
            touched = self._merge()
        self._pay()
        return self._points, self._origin

    def owes_too_much(self, line: Ints) -> Bools:
        """Whether each line does; `line` are their numbers [corners]."""
        owed = np.bincount(line[self._origin], self._points.debt)
        ends = self._points.place[~self._free].reshape(-1, 2)
        return np.abs(owed) > _UNPAID_PX * (ends[:, 1] - ends[:, 0])

    def _price(self, touched: Bools) -> None:
        """Find anew what edges that have a touched point, or end beside one, would become."""
        stale = touched.copy()
        stale[1:] |= touched[:-1]
        stale[:-1] |= touched[1:]
        stale[:-2] |= touched[2:]
        self._cost[stale] = np.inf
        stale &= self._free
        stale[:-1] &= self._free[1:]
        edges = np.flatnonzero(stale)
        for same_area in (False, True):
            around = [self._points.at(edges + step) for step in (-1, 0, 1, 2)]
            point, cost = _point_of(*around, same_area=same_area)
            before, after = around[0], around[3]
            corner_x, corner_y = np.rint(point.x), np.rint(point.y)
            place, run = self._sleeves.find(corner_x, corner_y, before, after)
            fits = np.flatnonzero((place >= 0) & (np.abs(point.debt) < self._credit_px2))
            point = point._replace(place=place, run=run).at(fits)
            holds = self._sleeves.hold(before.at(fits), point)
            holds &= self._sleeves.hold(point, after.at(fits))
            fits = fits[holds]
            self._cost[edges[fits]] = cost[fits]
            self._merged.put(edges[fits], point.at(holds))
            edges = np.delete(edges, fits)

    def _merge(self) -> Bools:
        """Let the edges that cost least become points; whether each point's lines changed."""
        chosen = _least(self._cost)
        self._points.put(chosen, self._merged.at(chosen))
        touched = np.zeros(len(self._free), np.bool_)
        touched[chosen] = True
        stays = np.ones(len(self._free), np.bool_)
        stays[chosen + 1] = False
        kept = np.flatnonzero(stays)
        straight = np.flatnonzero(_straight(self._points.at(kept)) & self._free[kept])
        touched[kept[straight - 1]] = touched[kept[straight + 1]] = True
        self._points.debt[kept[straight + 1]] += self._points.debt[kept[straight]]
        kept = np.delete(kept, straight)
        self._points, self._merged = self._points.at(kept), self._merged.at(kept)
        self._cost, self._free = self._cost[kept], self._free[kept]
        self._origin = self._origin[kept]
        return touched[kept]

    def _pay(self) -> None:
        """Move points so that the areas are right again."""
        points, free = self._points, self._free
        number = np.arange(len(free))
        number -= np.maximum.accumulate(np.where(free, 0, number))
        for turn in range(_PAYMENTS):
            debtors = np.flatnonzero(free & (number % 2 == turn % 2) & (points.debt != 0))
            for part in (1.0, 0.5, 0.25):
                before, point, after = (points.at(debtors + step) for step in (-1, 0, 1))
                moved = self._moved(before, point, after, part)
                pays = self._sleeves.hold(before, moved) & self._sleeves.hold(moved, after)
                pays &= np.abs(moved.debt) < np.abs(point.debt)
                points.put(debtors[pays], moved.at(pays))
                debtors = debtors[~pays]
            step = 1 if turn % 4 < 2 else -1
            debtors = np.flatnonzero(free & (number % 2 == turn % 2))
            debtors = debtors[free[debtors + step]]
            points.debt[debtors + step] += points.debt[debtors]
            points.debt[debtors] = 0

    def _moved(self, before: Points, point: Points, after: Points, part: float) -> Points:
        """Points, moved so that they pay part of their debts, as far as their squares reach."""
        ux, uy = after.x - before.x, after.y - before.y
        way = part * point.debt / np.maximum(ux * ux + uy * uy, _STRAIGHT_PX2)
        x, y = self._sleeves.clip(point.x + uy * way, point.y - ux * way, point)
        debt = point.debt - ((x - point.x) * uy - (y - point.y) * ux)
        return point._replace(x=x, y=y, debt=debt)


def _point_of(
    before: Points, one: Points, other: Points, after: Points, *, same_area: bool
) -> tuple[Points, Floats]:
    """The point that the edge from one to the other becomes, its place aside, and the cost."""
    ux, uy = after.x - before.x, after.y - before.y
    ax, ay = one.x - before.x, one.y - before.y
    bx, by = other.x - before.x, other.y - before.y
    area = ax * by - ay * bx + bx * uy - by * ux + one.debt + other.debt
    x, y = (ax + bx) / 2, (ay + by) / 2
    if same_area:
        way = (x * uy - y * ux - area) / np.maximum(ux * ux + uy * uy, _STRAIGHT_PX2)
        x, y = x - uy * way, y + ux * way
    x, y = (_into_square(v + w) - w for v, w in ((x, before.x), (y, before.y)))
    cost = _LOT_PX2 * _lot(one)
    for px, py, qx, qy in ((ax, ay, x, y), (bx - ux, by - uy, x - ux, y - uy)):
        cost += (px * qy - py * qx) ** 2 / np.maximum(qx * qx + qy * qy, _STRAIGHT_PX2)
    debt = area - (x * uy - y * ux)
    return one._replace(x=before.x + x, y=before.y + y, debt=debt), cost


def _into_square(values: Floats) -> Floats:
    middle = np.rint(values)
    return np.clip(values, middle - REACH_PX, middle + REACH_PX)


def _straight(points: Points) -> Bools:
    """Whether each point lies on the line between its neighbours; the first and last do not."""
    straight = np.zeros(len(points.x), np.bool_)
    dx, dy = np.diff(points.x), np.diff(points.y)
    straight[1:-1] = np.abs(dx[:-1] * dy[1:] - dy[:-1] * dx[1:]) < _STRAIGHT_PX2
    return straight


def _least(cost: Floats) -> Ints:
    """Indices of costs that are less than all those up to two places away."""
    padded = np.full(len(cost) + 4, np.inf)
    padded[2:-2] = cost
    least = np.isfinite(cost)
    for shift in (0, 1, 3, 4):
        least &= cost < padded[shift : shift + len(cost)]
    return np.flatnonzero(least)


def _lot(points: Points) -> Floats:
    """Numbers from 0 to 1 that depend on the point's pixel alone and look like chance."""
    x, y = np.rint(points.x).astype(np.uint32), np.rint(points.y).astype(np.uint32)
    lot = x * np.uint32(0x9E3779B1) ^ y * np.uint32(0x85EBCA77)
    lot ^= lot >> np.uint32(15)
    lot *= np.uint32(0x2C1B3C6D)
    return (lot >> np.uint32(8)).astype(np.float64) / (1 << 24)
