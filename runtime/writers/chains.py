"""Rings of regions as chains between junctions, which neighbours share, and simplified so."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.writers.rings import Rings
from sshr_deploy.runtime.writers.simplify import simplify

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_CHAIN_EDGES = 1 << 12
"""Of a chain at most; longer ones are cut."""

_BLOCK_POINTS = 1 << 17
"""Of the chains simplified in one go, about."""


def simplified(rings: Rings) -> Rings:
    """Rings of fewer points, none further than `sleeves.MAX_SHIFT_PX` from the pixels' edges.

    Junctions stay. What lies between two of them is simplified alone and in one direction, so that
    the regions on both sides get the same points, whenever each is written. Rings begin at their
    first junction; one without any keeps its first corner.
    """
    rings = _without_repeats(rings)
    x, y, ring = [], [], []
    for block in _blocks(_chains_of(rings)):
        index, count, edge = block.points()
        is_end = (edge == 0) | (edge == np.repeat(block.edges, count))
        new_x, new_y, origin = simplify(rings.x[index], rings.y[index], is_end)
        chain = np.repeat(np.arange(len(count)), count)[origin]
        order = _along_rings(chain, block.is_reversed)
        x.append(new_x[order])
        y.append(new_y[order])
        ring.append(block.ring[chain[order]])
    counts = np.bincount(np.concatenate(ring), minlength=len(rings.ends))
    points = np.concatenate(x), np.concatenate(y)
    return Rings(*points, np.zeros(len(points[0]), np.bool_), np.cumsum(counts))


class _Chains(NamedTuple):
    """Pieces of rings, in turn, from one point that stays to the next."""

    ring: Ints
    ring_start: Ints
    ring_length: Ints
    first: Ints
    """Where it begins among the points of its ring, in its own direction."""
    edges: Ints
    is_reversed: Bools
    """Its own direction is not that of the ring."""

    def at(self, which: Ints | slice) -> _Chains:
        """Some of them."""
        return _Chains(
            self.ring[which],
            self.ring_start[which],
            self.ring_length[which],
            self.first[which],
            self.edges[which],
            self.is_reversed[which],
        )

    def points(self) -> tuple[Ints, Ints, Ints]:
        """Of all chains in turn: indices of their points; their counts; and numbers from 0 on."""
        counts = self.edges + 1
        edge = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.point(edge, np.repeat(np.arange(len(counts)), counts)), counts, edge

    def point(self, edge: Ints, chain: Ints | slice = slice(None)) -> Ints:
        """Index of the point so many edges from the start of each chain."""
        step = np.where(self.is_reversed[chain], -edge, edge)
        around = (self.first[chain] + step) % self.ring_length[chain]
        return self.ring_start[chain] + around


def _without_repeats(rings: Rings) -> Rings:
    """Rings with one point for each junction on a straight side."""
    repeats = np.append(False, (np.diff(rings.x) == 0) & (np.diff(rings.y) == 0))
    repeats[rings.starts] = False
    x, y, is_junction, ends = rings
    ends = ends - np.cumsum(repeats)[ends - 1]
    return Rings(x[~repeats], y[~repeats], is_junction[~repeats], ends)


def _chains_of(rings: Rings) -> _Chains:
    starts, lengths = rings.starts, np.diff(rings.ends, prepend=0)
    stays = rings.is_junction.copy()
    stays[starts[~np.logical_or.reduceat(stays, starts)]] = True
    first = np.flatnonzero(stays)
    ring = np.searchsorted(rings.ends, first, "right")
    is_last = np.append(np.diff(ring) > 0, True)
    of_ring = np.searchsorted(ring, ring)
    edges = np.append(first[1:], 0) - first
    edges[is_last] = (first[of_ring] + lengths[ring] - first)[is_last]
    forward = _Chains(
        ring,
        starts[ring],
        lengths[ring],
        first - starts[ring],
        edges,
        np.zeros(len(ring), np.bool_),
    )
    return _cut(forward._replace(is_reversed=_runs_backward(rings, forward)))


def _runs_backward(rings: Rings, chains: _Chains) -> Bools:
    """Whether each chain's own direction, the same from both sides of it, is not its ring's."""
    place = rings.y * (1 << 20) + rings.x
    begin, end = place[chains.point(np.zeros_like(chains.edges))], place[chains.point(chains.edges)]
    second = place[chains.point(np.ones_like(chains.edges))]
    last_but_one = place[chains.point(chains.edges - 1)]
    backward: Bools = (begin > end) | ((begin == end) & (second > last_but_one))
    return backward


def _cut(chains: _Chains) -> _Chains:
    """Chains in their own directions, long ones as some."""
    parts = -(-chains.edges // _CHAIN_EDGES)
    chain = np.repeat(np.arange(len(parts)), parts)
    part = np.arange(len(chain)) - (np.cumsum(parts) - parts)[chain]
    ring, ring_start, ring_length, first, edges, is_reversed = chains.at(chain)
    part = np.where(is_reversed, parts[chain] - 1 - part, part)
    skipped = part * _CHAIN_EDGES
    first = np.where(is_reversed, first + edges - skipped, first + skipped)
    edges = np.minimum(edges - skipped, _CHAIN_EDGES)
    return _Chains(ring, ring_start, ring_length, first, edges, is_reversed)


def _blocks(chains: _Chains) -> Iterator[_Chains]:
    """The same chains, some at a time."""
    block = np.cumsum(chains.edges + 1) // _BLOCK_POINTS
    bounds = np.flatnonzero(np.diff(block, prepend=-1, append=-1))
    for start, end in pairwise(bounds.tolist()):
        yield chains.at(slice(start, end))


def _along_rings(chain: Ints, is_reversed: Bools) -> Ints:
    """Indices of the points of chains in the direction of their rings, without the last of each."""
    counts = np.bincount(chain)
    ends = np.cumsum(counts)
    kept = np.arange(len(chain)) != (ends - 1)[chain]
    within = np.arange(len(chain)) - (ends - counts)[chain]
    order = np.where(is_reversed[chain], ends[chain] - 1 - within, np.arange(len(chain)))
    kept_order: Ints = order[kept]
    return kept_order
