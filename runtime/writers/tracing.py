"""Bands of a mask -> the corners of its connected regions, as soon as each is complete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.writers.bands import tissue_columns
from sshr_deploy.runtime.writers.rings import Corners, Outlines, pack, region_key, regions_of
from sshr_deploy.runtime.writers.runs import Indices, Runs

_STRIP_PX = 1 << 20
"""Pixels looked at in one go: enough for NumPy, few enough for the memory."""


class RegionTracer:
    """Finds 4-connected regions of one label each; memory holds the corners of open ones alone.

    A strip of rows is traced together with the row above it, so that a corner is met once wherever
    bands meet. That row's runs also tell which of the strip's regions go on from there.
    """

    def __init__(self, width_px: int, background: int) -> None:
        self._background = background
        self._y = 0
        self._row = np.full(width_px, background, np.uint8)
        """The last one so far."""
        self._row_regions: Indices = np.empty(0, np.intp)
        """Of each run in that row, the index in `_open`."""
        self._open: list[list[Corners]] = []
        """Corners of the regions that reach that row."""

    def put(self, labels: NDArray[np.uint8]) -> Iterator[Outlines]:
        """Regions that the next rows, uint8 [rows, width_px], show to be complete."""
        spans = [tissue_columns(rows, self._background) for rows in (self._row[None], labels)]
        left = min((span.start for span in spans if span.stop), default=0)
        right = max(span.stop for span in spans)
        rows = max(1, _STRIP_PX // (right - left)) if right else len(labels)
        for top in range(0, len(labels), rows):
            strip = labels[top : top + rows]
            if right:
                framed = np.full((1 + len(strip), right - left + 2), self._background, np.uint8)
                framed[0, 1:-1] = self._row[left:right]
                framed[1:, 1:-1] = strip[:, left:right]
                yield self._trace(framed, left - 1)
            self._row = strip[-1].copy()
            self._y += len(strip)

    def finish(self) -> Iterator[Outlines]:
        """Regions that reach the last row."""
        return self.put(np.full((1, len(self._row)), self._background, np.uint8))

    def _trace(self, strip: NDArray[np.uint8], x: int) -> Outlines:
        """Regions that end in a strip [1 + rows, columns] framed by background, its left at `x`."""
        runs = Runs(strip, self._background)
        regions = runs.regions(self._row_regions)
        labels = np.empty(int(regions.max(initial=-1)) + 1, np.uint8)
        labels[regions] = runs.labels
        pieces = self._earlier_pieces(regions)
        corners = self._corners(strip, runs, regions, x)
        still_open, self._row_regions = np.unique(regions[runs.in_last_row()], return_inverse=True)
        bounds = np.searchsorted(corners, region_key(np.stack([still_open, still_open + 1])))
        for region, start, end in zip(still_open.tolist(), *bounds.tolist(), strict=True):
            if start < end:
                pieces.setdefault(region, []).append(corners[start:end] - region_key(region))
        self._open = [pieces.pop(region) for region in still_open.tolist()]

        complete = [corners[~np.isin(regions_of(corners), still_open)]]
        for region, earlier in pieces.items():
            complete += [piece | region_key(region) for piece in earlier]
        return Outlines(np.concatenate(complete), labels)

    def _earlier_pieces(self, regions: Indices) -> dict[int, list[Corners]]:
        """Corners from above the strip, by number of its regions."""
        pieces: dict[int, list[Corners]] = {}
        _, first_runs = np.unique(self._row_regions, return_index=True)
        for region, earlier in zip(regions[first_runs].tolist(), self._open, strict=True):
            shorter, longer = sorted((earlier, pieces.get(region, [])), key=len)
            longer += shorter
            pieces[region] = longer
        self._open = []
        return pieces

    def _corners(self, strip: NDArray[np.uint8], runs: Runs, regions: Indices, x: int) -> Corners:
        """Corners below the strip's first row, sorted."""
        across = strip[1:] != strip[:-1]
        upright = strip[:, 1:] != strip[:, :-1]
        turns = (across[:, 1:] | across[:, :-1]) & (upright[1:] | upright[:-1])
        row, column = np.divmod(np.flatnonzero(turns), turns.shape[1])
        width = strip.shape[1]
        pixels = row * width + column + np.array([[0], [1], [width], [width + 1]])
        labels = strip.reshape(-1)[pixels]  # [4, places], in the order of `Corners`
        beside, above, opposite = (labels != labels[np.arange(4) ^ step] for step in (1, 2, 3))
        is_corner = (beside == above) & (beside | opposite) & (labels < self._background)
        pixel, place = np.nonzero(is_corner)
        region = regions[runs.of(pixels[is_corner])]
        corners = pack(x + 1 + column[place], self._y + row[place], pixel, region)
        corners.sort()
        return corners
