"""Bands of a mask -> the corners of its connected regions, as soon as each is complete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import CELL_PX
from sshr_deploy.runtime.writers.bands import tissue_columns
from sshr_deploy.runtime.writers.rings import Corners, Outlines, pack, region_key, regions_of
from sshr_deploy.runtime.writers.runs import Indices, Runs

PROB_UNIT = 2.0**-24
"""Of sums of probabilities: every float16 is a whole number of it, so that sums are exact."""

_STRIP_PX = 1 << 20
"""Pixels looked at in one go: enough for NumPy, few enough for the memory."""


class RegionTracer:
    """Finds 4-connected regions of one label each; memory holds the corners of open ones alone.

    A strip of rows is traced together with the row above it, so that a corner is met once wherever
    bands meet. That row's runs also tell which of the strip's regions go on from there.
    """

    def __init__(self, width_px: int, background: int, *, junctions: bool = False) -> None:
        """Trace a mask of `width_px`, with the junctions on straight sides if asked for them."""
        self._background = background
        self._junctions = junctions
        self._y = 0
        self._row = np.full(width_px, background, np.uint8)
        """The last one so far."""
        self._row_regions: Indices = np.empty(0, np.intp)
        """Of each run in that row, the index in `_open`."""
        self._open: list[list[Corners]] = []
        """Corners of the regions that reach that row."""
        self._open_sums = np.zeros(0, np.int64)
        """Of their probabilities, in `PROB_UNIT`."""

    def put(
        self, labels: NDArray[np.uint8], prob: NDArray[np.float16] | None = None
    ) -> Iterator[Outlines]:
        """Regions that the next rows, uint8 [rows, width_px], show to be complete.

        `prob` are the probabilities behind them, as in a `Band`.
        """
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
                cells = None if prob is None else _Cells(prob, top, len(strip), left)
                yield self._trace(framed, left - 1, cells)
            self._row = strip[-1].copy()
            self._y += len(strip)

    def finish(self) -> Iterator[Outlines]:
        """Regions that reach the last row."""
        return self.put(np.full((1, len(self._row)), self._background, np.uint8))

    def _trace(self, strip: NDArray[np.uint8], x: int, cells: _Cells | None) -> Outlines:
        """Regions that end in a strip [1 + rows, columns] framed by background, its left at `x`."""
        runs = Runs(strip, self._background)
        regions = runs.regions(self._row_regions)
        labels = np.empty(int(regions.max(initial=-1)) + 1, np.uint8)
        labels[regions] = runs.labels
        sums = self._sums(runs, regions, len(labels), cells)
        pieces = self._earlier_pieces(regions)
        corners = self._corners(strip, runs, regions, x)
        still_open, self._row_regions = np.unique(regions[runs.in_last_row()], return_inverse=True)
        bounds = np.searchsorted(corners, region_key(np.stack([still_open, still_open + 1])))
        for region, start, end in zip(still_open.tolist(), *bounds.tolist(), strict=True):
            if start < end:
                pieces.setdefault(region, []).append(corners[start:end] - region_key(region))
        self._open = [pieces.pop(region) for region in still_open.tolist()]
        self._open_sums = sums[still_open]

        is_complete = np.ones(len(labels), np.bool_)
        is_complete[still_open] = False
        number = np.cumsum(is_complete) - 1
        region_of = regions_of(corners)
        ended = is_complete[region_of]
        complete = [corners[ended] + region_key((number[region_of] - region_of)[ended])]
        for region, earlier in pieces.items():
            complete += [piece | region_key(number[region]) for piece in earlier]
        return Outlines(np.concatenate(complete), labels[is_complete], sums[is_complete])

    def _sums(
        self, runs: Runs, regions: Indices, count: int, cells: _Cells | None
    ) -> NDArray[np.int64]:
        """Of the probabilities of each of `count` regions so far, in `PROB_UNIT`."""
        sums = np.zeros(count, np.int64)
        _, first_runs = np.unique(self._row_regions, return_index=True)
        np.add.at(sums, regions[first_runs], self._open_sums)
        if cells is not None:
            of_runs = cells.sums(runs)
            sums += np.bincount(regions, of_runs, count).astype(np.int64)
        return sums

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
        borders = beside[0].astype(np.int8) + beside[2] + above[0] + above[1]
        is_junction = borders > 2
        is_corner = (beside == above) & (beside | opposite)
        if self._junctions:
            is_corner |= is_junction & (beside != above)
        is_corner &= labels < self._background
        pixel, place = np.nonzero(is_corner)
        region = regions[runs.of(pixels[is_corner])]
        corners = pack(
            x + 1 + column[place], self._y + row[place], pixel, is_junction[place], region
        )
        corners.sort()
        return corners


class _Cells:
    """Probabilities of the cells of a strip, summed from its left to any pixel."""

    def __init__(self, prob: NDArray[np.float16], top: int, rows: int, left: int) -> None:
        """Take those of a band [N, rows / 8, columns / 8] for `rows` from `top` on."""
        self._first = top // CELL_PX
        self._top, self._left = top, left
        cells = prob[:, self._first : (top + rows - 1) // CELL_PX + 1]
        self._units = cells.astype(np.float64) / PROB_UNIT
        before = np.zeros((*cells.shape[:2], cells.shape[2] + 1))
        np.cumsum(CELL_PX * self._units, axis=2, out=before[:, :, 1:])
        self._before = before

    def sums(self, runs: Runs) -> NDArray[np.float64]:
        """[runs]: of the probability of each one's label over its pixels below the first row."""
        row, start, end = runs.spans
        label = runs.labels
        cell_row = np.maximum(self._top + row - 1, 0) // CELL_PX - self._first
        cell_row = np.maximum(cell_row, 0)
        until = [self._until(label, cell_row, self._left - 1 + column) for column in (start, end)]
        return np.where(row > 0, until[1] - until[0], 0.0)

    def _until(self, label: NDArray[np.uint8], row: Indices, x: Indices) -> NDArray[np.float64]:
        cell, rest = np.divmod(x, CELL_PX)
        inside = np.minimum(cell, self._units.shape[2] - 1)
        part = np.where(rest > 0, rest * self._units[label, row, inside], 0.0)
        return self._before[label, row, cell] + part
