"""Stretches of one label in the rows of a mask, and which of them hang together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


class Runs:
    """Stretches of one tissue label in the rows of a strip framed by columns of background.

    Pixels are named by their flat index in the strip.
    """

    def __init__(self, strip: NDArray[np.uint8], background: int) -> None:
        """Find them in a strip, uint8 [rows, columns]."""
        self._labels = strip.reshape(-1)
        self._columns = strip.shape[1]
        changes = 1 + np.flatnonzero(self._labels[1:] != self._labels[:-1])
        is_tissue = self._labels[changes] < background
        self._starts: Indices = changes[is_tissue]
        self._ends: Indices = changes[np.flatnonzero(is_tissue) + 1]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """[runs]."""
        return self._labels[self._starts]

    @property
    def spans(self) -> tuple[Indices, Indices, Indices]:
        """[runs] each: row, first column, and the column after the last."""
        rows, first = np.divmod(self._starts, self._columns)
        return rows, first, self._ends - rows * self._columns

    def of(self, pixels: Indices) -> Indices:
        """The run of each pixel, which must be of tissue."""
        return np.searchsorted(self._starts, pixels, "right") - 1

    def in_last_row(self) -> slice:
        """The runs there."""
        first = self._labels.size - self._columns
        return slice(int(np.searchsorted(self._starts, first)), len(self._starts))

    def regions(self, first_row: Indices) -> Indices:
        """Number, 0 upwards, of the 4-connected region of each run.

        Args:
            first_row: for each run of the first row, the region that it is known to belong to.
        """
        _, firsts, known = np.unique(first_row, return_index=True, return_inverse=True)
        pairs = [(np.arange(len(first_row)), firsts[known]), *self._touching()]
        joined = [np.concatenate(side) for side in zip(*pairs, strict=True)]
        return connected(len(self._starts), joined[0], joined[1])

    def _touching(self) -> list[tuple[Indices, Indices]]:
        """Runs of one label that overlap in neighbouring rows; one of the two starts there."""
        pairs = []
        for step in (-self._columns, self._columns):
            there = self._starts + step
            runs = np.flatnonzero((there >= 0) & (there < self._labels.size))
            runs = runs[self._labels[there[runs]] == self._labels[self._starts[runs]]]
            pairs.append((runs, self.of(there[runs])))
        return pairs


def connected(count: int, one: Indices, other: Indices) -> Indices:
    """Components of a graph of `count` nodes whose edges join `one` and `other`, from 0 upwards.

    Each root takes the smallest root beside it until no edge joins two of them.
    """
    root = np.arange(count)
    while one.size:
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while (root[root] != root).any():
            root = root[root]
    is_root = root == np.arange(count)
    number: Indices = np.cumsum(is_root)[root] - 1
    return number
