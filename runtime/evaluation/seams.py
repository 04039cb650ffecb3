"""How far the borders of tiles show in a label map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Seams:
    """Neighbouring pixels of label maps that have different labels; counts of maps add up.

    A pair is a pixel and the one below or right of it, both of a class: pairs with background
    are not counted.
    """

    border_pairs: int = 0
    """Pairs across a border of tiles."""
    border_differing: int = 0
    inner_pairs: int = 0
    """All other pairs."""
    inner_differing: int = 0

    def __add__(self, other: Seams) -> Seams:
        return Seams(
            self.border_pairs + other.border_pairs,
            self.border_differing + other.border_differing,
            self.inner_pairs + other.inner_pairs,
            self.inner_differing + other.inner_differing,
        )

    @property
    def ratio(self) -> float | None:
        """Share of the pairs across borders that differ over that of all other pairs.

        1 where borders do not show. None where there is nothing to divide: no pair across a
        border, or no other pair that differs.
        """
        if self.border_pairs == 0 or self.inner_differing == 0:
            return None
        of_borders = self.border_differing / self.border_pairs
        return of_borders * self.inner_pairs / self.inner_differing

    @classmethod
    def of_mask(
        cls,
        mask: NDArray[np.uint8],  # [H, W]
        num_classes: int,
        *,
        rows: Iterable[int],
        columns: Iterable[int],
    ) -> Self:
        """Count in one label map, 0 to N-1 for the classes; N and above are background.

        `rows` and `columns` are the first ones behind each border, in pixels. The edges of the map
        (0, H and W) have no pairs and may be among them.
        """
        counts = np.zeros((2, 2), np.int64)  # at a border or not; pairs, those that differ
        for labels, borders in ((mask, rows), (mask.T, columns)):
            before, behind = labels[:-1], labels[1:]
            of_classes = (before < num_classes) & (behind < num_classes)
            pairs = np.count_nonzero(of_classes, axis=1)
            differing = np.count_nonzero(of_classes & (before != behind), axis=1)
            is_border = np.isin(np.arange(1, len(labels)), list(borders))
            for row, chosen in enumerate((is_border, ~is_border)):
                counts[row] += pairs[chosen].sum(), differing[chosen].sum()
        return cls(*counts.ravel().tolist())
