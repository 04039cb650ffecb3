"""Where on a slide the fields lie: squares larger than a patch, the core of which is kept.

Fields are laid on a raster of blocks of 56 mask pixels from the slide's top left corner. Their
cores cover every block that has tissue; they may overlap, and margins may reach past the slide.
Where the graph takes inputs of several sides, fields at the tissue's edge are trimmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import BLOCK_PX, Geometry
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.slides.tissue_map import TissueMap

Blocks = NDArray[np.bool_]  # [rows, columns]


class Field(NamedTuple):
    """A field by its core, in blocks."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def core(self) -> tuple[slice, slice]:
        """Rows and columns of blocks that it covers."""
        return (
            slice(self.row, self.row + self.rows),
            slice(self.column, self.column + self.columns),
        )


def core_sides(geometry: Geometry, *, any_side: bool) -> list[int]:
    """Sides that cores may have in blocks, the largest last; one, but for graphs of any side."""
    sides_px = range(geometry.window_px, geometry.side_px, geometry.step_px) if any_side else ()
    fitting = [side_px for side_px in sides_px if geometry.fits(side_px)]
    return [(side - 2 * geometry.margin_px) // BLOCK_PX for side in (*fitting, geometry.side_px)]


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


def place_fields(tissue: Blocks, sides: Sequence[int]) -> list[Field]:
    """Fields whose cores cover all of `tissue` with little work, by rows; every core has tissue.

    Bands of the largest core's height are filled from the first row that is left and the first
    column, each field shifted down to the first row that its columns still need, and trimmed to
    what no field before it covers. That is done from all sides (top, bottom, left, right, and
    either end), and the way with the least work is taken.

    Args:
        tissue: what is to be covered.
        sides: that cores may have, in blocks, ascending; see `core_sides`.
    """
    ways = (_trimmed(tissue, map(back, _fill(turned, sides[-1])), sides)
            for turned, back in _views(tissue))  # fmt: skip
    return sorted(min(ways, key=lambda fields: sum(map(_work, fields))))


def plain_fields(tissue: Blocks, core_blocks: int) -> list[Field]:
    """Cores edge to edge from the slide's corner, those that have tissue: what shifting saves."""
    fields = (
        Field(row, column, core_blocks, core_blocks)
        for row in range(0, tissue.shape[0], core_blocks)
        for column in range(0, tissue.shape[1], core_blocks)
    )
    return [field for field in fields if tissue[field.core].any()]


def _work(field: Field) -> int:
    """Blocks that the network computes, with a margin of one on each side."""
    return (field.rows + 2) * (field.columns + 2)


def _fill(tissue: Blocks, core_blocks: int) -> Iterator[Field]:
    left = tissue.copy()
    row = 0
    while row < len(left):
        band = left[row : row + core_blocks]
        if not band[0].any():
            row += 1
            continue
        needed = np.asarray(band.any(axis=0))
        column = 0
        while needed[column:].any():
            column += int(needed[column:].argmax())
            top = row + int(band[:, column : column + core_blocks].any(axis=1).argmax())
            field = Field(top, column, core_blocks, core_blocks)
            yield field
            left[field.core] = False
            column += core_blocks
        row += core_blocks


def _trimmed(tissue: Blocks, fields: Iterable[Field], sides: Sequence[int]) -> list[Field]:
    """The fields, each no larger than what is left for it."""
    left, found = tissue.copy(), []
    for field in fields:
        core = tuple(slice(max(0, axis.start), axis.stop) for axis in field.core)
        wanted = left[core]
        if wanted.any():
            (row, rows), (column, columns) = (
                _span(np.asarray(wanted.any(axis)), start.start, sides, size)
                for axis, start, size in zip((1, 0), core, tissue.shape, strict=True)
            )
            found.append(Field(row, column, rows, columns))
            left[found[-1].core] = False
    return found


def _span(
    wanted: NDArray[np.bool_], start: int, sides: Sequence[int], size: int
) -> tuple[int, int]:
    """First block and side of a core along one axis that covers what is wanted from `start` on.

    What would lie past the slide's edge is moved inside: there is something to see, not white.
    """
    first, last = np.flatnonzero(wanted)[[0, -1]].tolist()
    side = next(side for side in sides if side > last - first)
    return max(0, min(start + first, size - side)), side


def _views(tissue: Blocks) -> Iterator[tuple[Blocks, Callable[[Field], Field]]]:
    """The blocks turned and mirrored in all ways, each with how its fields are turned back."""
    for transposed in (False, True):
        base = tissue.T if transposed else tissue
        for flip_rows in (False, True):
            for flip_columns in (False, True):

                def back(
                    field: Field,
                    *,
                    height: int = base.shape[0] if flip_rows else 0,
                    width: int = base.shape[1] if flip_columns else 0,
                    transposed: bool = transposed,
                ) -> Field:
                    row, column, rows, columns = field
                    row = height - rows - row if height else row
                    column = width - columns - column if width else column
                    return (
                        Field(column, row, columns, rows)
                        if transposed
                        else Field(row, column, rows, columns)
                    )

                step = (-1 if flip_rows else 1, -1 if flip_columns else 1)
                yield base[:: step[0], :: step[1]], back


def _runs(wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and one past the last of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], wanted, [False])).astype(np.int8)))
    pairs: Sequence[int] = edges.tolist()
    yield from zip(pairs[::2], pairs[1::2], strict=True)
