"""Where on a slide the fields lie: squares larger than a patch, the core of which is kept.

Fields are laid on a raster of blocks of 56 mask pixels from the slide's top left corner. Their
cores cover every block that has tissue; they may overlap, and margins may reach past the slide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import BLOCK_PX
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.slides.tissue import TissueMap

Blocks = NDArray[np.bool_]  # [rows, columns]


class Field(NamedTuple):
    """A field by the first block of its core."""

    row: int
    column: int


def tissue_blocks(grid: TileGrid, tissue: TissueMap) -> Blocks:
    """The blocks of a slide's mask that hold at least one pixel of tissue, bool [rows, columns].

    Most blocks are told at once from the thumbnail's own pixels; those at the tissue's edge are
    asked for pixel by pixel, a run of them at a time.
    """
    rows, columns = (-(-side // BLOCK_PX) for side in (grid.height_px, grid.width_px))
    x_step, y_step = (BLOCK_PX * scale for scale in grid.l0_px_per_px)
    found, certain = tissue.even_rectangles((x_step, y_step), rows, columns)
    for row in np.flatnonzero(~certain.all(axis=1)).tolist():
        for first, last in _runs(~certain[row]):
            count = last - first
            inside = tissue.window(
                first * x_step, row * y_step, count * x_step, y_step, count * BLOCK_PX, BLOCK_PX
            )
            inside[grid.height_px - row * BLOCK_PX :] = False
            inside[:, grid.width_px - first * BLOCK_PX :] = False
            found[row, first:last] = inside.reshape(BLOCK_PX, count, BLOCK_PX).any(axis=(0, 2))
    return found


def place_fields(tissue: Blocks, core_blocks: int) -> list[Field]:
    """Few fields whose cores of `core_blocks` by `core_blocks` cover all of `tissue`, by rows.

    Every core has tissue. Bands of `core_blocks` rows are filled from the first row that is left
    and the first column, each field shifted down to the first row that its columns still need.
    That is done from all sides (top, bottom, left, right, and either end), and the way with the
    fewest fields is taken.
    """
    best: list[Field] | None = None
    for turned, back in _views(tissue, core_blocks):
        fields = [back(field) for field in _fill(turned, core_blocks)]
        if best is None or len(fields) < len(best):
            best = fields
    assert best is not None
    return sorted(best)


def plain_fields(tissue: Blocks, core_blocks: int) -> list[Field]:
    """Cores edge to edge from the slide's corner, those that have tissue: what shifting saves."""
    return [
        Field(row, column)
        for row in range(0, tissue.shape[0], core_blocks)
        for column in range(0, tissue.shape[1], core_blocks)
        if tissue[row : row + core_blocks, column : column + core_blocks].any()
    ]


def _fill(tissue: Blocks, core_blocks: int) -> Iterator[Field]:
    left = tissue.copy()
    rows, columns = left.shape
    row = 0
    while row < rows:
        band = left[row : row + core_blocks]
        if not band[0].any():
            row += 1
            continue
        needed = np.asarray(band.any(axis=0))
        column = 0
        while needed[column:].any():
            column += int(needed[column:].argmax())
            top = row + int(band[:, column : column + core_blocks].any(axis=1).argmax())
            # What would lie past the slide's edge is moved inside: it sees the slide, not white.
            field = Field(
                max(0, min(top, rows - core_blocks)), max(0, min(column, columns - core_blocks))
            )
            yield field
            place = (
                slice(field.row, field.row + core_blocks),
                slice(field.column, field.column + core_blocks),
            )
            left[place] = False
            column += core_blocks
        row += core_blocks


def _views(tissue: Blocks, core_blocks: int) -> Iterator[tuple[Blocks, Callable[[Field], Field]]]:
    """The blocks turned and mirrored in all ways, each with how its fields are turned back."""
    for transposed in (False, True):
        base = tissue.T if transposed else tissue
        for flip_rows in (False, True):
            for flip_columns in (False, True):
                rows, columns = base.shape

                def back(
                    field: Field,
                    *,
                    rows: int = rows if flip_rows else 0,
                    columns: int = columns if flip_columns else 0,
                    transposed: bool = transposed,
                ) -> Field:
                    row, column = field
                    if rows:
                        row = max(0, rows - core_blocks - row)
                    if columns:
                        column = max(0, columns - core_blocks - column)
                    return Field(column, row) if transposed else Field(row, column)

                step = (-1 if flip_rows else 1, -1 if flip_columns else 1)
                yield base[:: step[0], :: step[1]], back


def _runs(wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and one past the last of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], wanted, [False])).astype(np.int8)))
    pairs: Sequence[int] = edges.tolist()
    yield from zip(pairs[::2], pairs[1::2], strict=True)
