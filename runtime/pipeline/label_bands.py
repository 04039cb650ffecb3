"""A slide's kept results -> its labels, in bands of rows from top to bottom.

Memory holds one band of labels and what the store has of the rows that it needs; where there is no
tissue nothing is read and nothing computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import BLOCK_CELLS, BLOCK_PX, CELL_PX, PATCH_PX
from sshr_deploy.runtime.contract import CAM_NAMES, FieldRule
from sshr_deploy.runtime.field_labels import LevelScales, Scales, cell_scores, labels_of
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.slides.fields import Field
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.slides.plan import FieldPlan, SlidePlan
from sshr_deploy.runtime.writers.bands import BAND_PX, Band

_BAND_CELLS = BAND_PX // CELL_PX

_FieldRows = Mapping[Field, tuple[int, NDArray[np.float16]]]
"""Of each field that is in a band: its first row of cells there, and [rows, 4 N, columns]."""


def tile_record(labels: NDArray[np.uint8], prob: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Labels [224, 224] of a tile, and below them a row with its probabilities [N] as float16."""
    record = np.zeros((PATCH_PX + 1, PATCH_PX), np.uint8)
    record[:PATCH_PX] = labels
    record[PATCH_PX].view(np.float16)[: len(prob)] = prob
    return record


def tile_bands(plan: SlidePlan, store: UnitStore, classes: int) -> Iterator[Band]:
    """Bands of a slide whose tiles are in `store`, each a `tile_record`.

    Raises:
        OutputError: the store cannot be read.
    """
    rows = defaultdict(list)
    for tile, tissue in plan.tissue.items():
        rows[tile.t_row].append((tile, tissue))
    for y, empty in _empty_bands(plan.grid, classes):
        bottom = y + len(empty)
        among = range(y // PATCH_PX, -(-bottom // PATCH_PX))
        if not any(rows[row] for row in among):
            yield Band(empty)
            continue
        band, prob = empty.copy(), _no_prob(empty, classes)
        for row in among:
            top = row * PATCH_PX
            first, last = max(y, top) - top, min(bottom, top + PATCH_PX) - top
            for tile, tissue in rows[row]:
                x = tile.t_column * PATCH_PX
                target = band[top + first - y : top + last - y, x : x + PATCH_PX]
                labels = store.rows((row, tile.t_column), first, last)
                inside = tissue.mask()[first:last, : target.shape[1]]
                np.copyto(target, labels[:, : target.shape[1]], where=inside)
                row_of_prob = store.rows((row, tile.t_column), PATCH_PX, PATCH_PX + 1)
                cells = prob[:, (top + first - y) // CELL_PX : -(-(top + last - y) // CELL_PX)]
                cells = cells[:, :, x // CELL_PX : (x + PATCH_PX) // CELL_PX]
                cells[:] = row_of_prob.view(np.float16)[0, :classes, None, None]
        yield Band(band, prob)


@dataclass(frozen=True)
class FieldBands:
    """Labels of a slide whose CAMs and probabilities by field are in `store`.

    A record is float16 [rows, 4 N, columns] of a core's cells: the rows, then the three CAMs and
    the probabilities of N classes, then the columns. Where cores overlap the last one counts.
    """

    plan: FieldPlan
    store: UnitStore
    classes: int

    def scales(self, percentile: float, check_stop: Callable[[], None] = lambda: None) -> Scales:
        """Scale of each level over the slide's tissue; every cell counts once.

        A cell is tissue where the pixel at its middle is. `check_stop` is called for each band;
        what it raises ends it.

        Raises:
            OutputError: the store cannot be read.
        """
        scales = LevelScales()
        for y in range(0, self.plan.grid.height_px, BAND_PX):
            check_stop()
            parts = self._tissue_parts(y)
            rows = self._rows(y, halo=0) if parts else {}
            for x in parts:
                maps, covered = self._part(rows, y, x, halo=0)
                height, width = covered.shape
                inside = covered & self._tissue(y, x, height, width, CELL_PX)
                scales.add(maps[: len(CAM_NAMES)], inside)
        return scales.scales(percentile)

    def bands(self, rule: FieldRule, scales: Scales) -> Iterator[Band]:
        """Bands of the slide, background outside of tissue.

        Raises:
            OutputError: the store cannot be read.
        """
        for y, empty in _empty_bands(self.plan.grid, self.classes):
            parts = self._tissue_parts(y)
            if not parts:
                yield Band(empty)
                continue
            band, prob = empty.copy(), _no_prob(empty, self.classes)
            rows = self._rows(y, halo=1)
            for x in parts:
                part = band[:, x : x + BAND_PX]
                labels, part_prob = self._part_band(rows, y, x, rule, scales)
                inside = self._tissue(y, x, part.shape[0], part.shape[1], 1)
                np.copyto(part, labels[: part.shape[0], : part.shape[1]], where=inside)
                cells = prob[:, :, x // CELL_PX : x // CELL_PX + _BAND_CELLS]
                cells[:] = part_prob[:, : cells.shape[1], : cells.shape[2]]
            yield Band(band, prob)

    def _part_band(
        self, rows: _FieldRows, y: int, x: int, rule: FieldRule, scales: Scales
    ) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
        """Labels of a part, and its probabilities by cell; both may reach past its right and
        lower edge."""
        maps, covered = self._part(rows, y, x, halo=1)
        prob = maps[len(CAM_NAMES)]
        scores = cell_scores(maps[: len(CAM_NAMES)], prob, scales, rule)
        scores[:, ~covered] = 0  # without tissue: adds nothing to any class beside it
        above, left = int(y > 0), int(x > 0)
        return labels_of(scores)[CELL_PX * above :, CELL_PX * left :], prob[:, above:, left:]

    def _rows(self, y: int, halo: int) -> _FieldRows:
        """What the fields have of a band, with `halo` cells more above and below."""
        top, bottom = y // CELL_PX - halo, y // CELL_PX + _BAND_CELLS + halo
        found = {}
        for field in self.plan.fields:
            start = field.row * BLOCK_CELLS
            first, last = max(top, start), min(bottom, start + field.rows * BLOCK_CELLS)
            if first < last:
                read = self.store.rows(field, first - start, last - start)
                found[field] = first, read.view(np.float16)
        return found

    def _part(
        self, rows: _FieldRows, y: int, x: int, halo: int
    ) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Maps [4, N, h, w] of a part of 512 x 512 px, and the cells [h, w] that they have.

        With `halo` cells more on each side, but none past the slide's top and left edge.
        """
        top, left = max(0, y // CELL_PX - halo), max(0, x // CELL_PX - halo)
        bottom, right = (side // CELL_PX + _BAND_CELLS + halo for side in (y, x))
        height, width = (
            min(end, -(-side // CELL_PX)) - start
            for start, end, side in (
                (top, bottom, self.plan.grid.height_px),
                (left, right, self.plan.grid.width_px),
            )
        )
        maps = np.zeros((height, 4 * self.classes, width), np.float16)
        covered = np.zeros((height, width), np.bool_)
        for field, (first, cells) in rows.items():
            start = field.column * BLOCK_CELLS
            a, b = max(left, start), min(left + width, start + cells.shape[2])
            if a < b:
                count = min(len(cells), top + height - first)
                place = slice(first - top, first - top + count)
                maps[place, :, a - left : b - left] = cells[:count, :, a - start : b - start]
                covered[place, a - left : b - left] = True
        by_class = maps.transpose(1, 0, 2).reshape(4, self.classes, height, width)
        return by_class, covered

    def _tissue_parts(self, y: int) -> list[int]:
        """Left edges of the parts of a band that have tissue."""
        band = self.plan.blocks[y // BLOCK_PX : (y + BAND_PX - 1) // BLOCK_PX + 1]
        blocks = np.asarray(band.any(axis=0))
        return [
            x
            for x in range(0, self.plan.grid.width_px, BAND_PX)
            if blocks[x // BLOCK_PX : (x + BAND_PX - 1) // BLOCK_PX + 1].any()
        ]

    def _tissue(self, y: int, x: int, height: int, width: int, step_px: int) -> NDArray[np.bool_]:
        """Tissue of a part, [height, width], sampled at every `step_px`."""
        x_scale, y_scale = self.plan.grid.l0_px_per_px
        place = (x * x_scale, y * y_scale, width * step_px * x_scale, height * step_px * y_scale)
        even = self.plan.tissue_map.is_even(*place)
        if even is not None:
            return np.full((height, width), even)
        return self.plan.tissue_map.window(*place, width, height)


def _no_prob(labels: NDArray[np.uint8], classes: int) -> NDArray[np.float16]:
    """[N, cell rows, cell columns] of a band."""
    rows, columns = (-(-side // CELL_PX) for side in labels.shape)
    return np.zeros((classes, rows, columns), np.float16)


def _empty_bands(grid: TileGrid, background: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """First row of each band, and a band of background that takes a row's memory; read-only."""
    row = np.full(grid.width_px, background, np.uint8)
    for y in range(0, grid.height_px, BAND_PX):
        yield y, np.broadcast_to(row, (min(BAND_PX, grid.height_px - y), grid.width_px))
