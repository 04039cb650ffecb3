"""The plan of a slide: its pixel size, its tissue, and the tiles to compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.settings import TissueChoice
from sshr_deploy.runtime.slides.area import choose_level, read_area
from sshr_deploy.runtime.slides.grid import Tile, TileGrid, TileTissue
from sshr_deploy.runtime.slides.mpp import Mpp, resolve_mpp
from sshr_deploy.runtime.slides.reader import SlideReader
from sshr_deploy.runtime.slides.tissue import TissueMap, detect_tissue, thumbnail


@dataclass(frozen=True)
class SlidePlan:
    """Of one slide for one model; holds no open file."""

    mpp: Mpp
    grid: TileGrid
    """Of the mask, at the model's pixel size."""
    thumbnail: NDArray[np.uint8]  # RGB [h, w, 3]
    thumbnail_mpp_um: float
    concern: str | None
    """Reason to doubt that it is H&E; every tile counts then."""
    tissue: dict[Tile, TileTissue]
    """The tiles to compute, row by row, and where tissue is in each."""


def plan_slide(
    reader: SlideReader,
    target_mpp_um: float,
    *,
    mpp_um: float | None = None,
    force_mpp: bool = False,
    tissue: TissueChoice = TissueChoice.AUTO,
    concern_of: Callable[[NDArray[np.uint8]], str | None] = lambda _: None,
) -> SlidePlan:
    """Find a slide's pixel size, its tissue, and the tiles to compute at `target_mpp_um`.

    Args:
        reader: an open slide.
        target_mpp_um: the model's pixel size in um.
        mpp_um: the user's pixel size, see `resolve_mpp`.
        force_mpp: likewise.
        tissue: the tiles that count.
        concern_of: looks at the thumbnail, RGB [h, w, 3], and says what speaks against H&E; tissue
            is found by the colours of H&E, so every tile counts where it says something.

    Raises:
        InputError: the file is damaged, its pixel size is not known (MissingMppError), or it is too
            coarse; and what `concern_of` raises.
        UsageError: an impossible `mpp_um`.
    """
    mpp = resolve_mpp(reader, mpp_um, force=force_mpp)
    choose_level(reader, mpp, target_mpp_um)  # refuses a slide that is too coarse
    grid = TileGrid.of_slide(reader.level_sizes_px[0], mpp, target_mpp_um)
    picture, picture_mpp_um = thumbnail(reader, mpp)
    concern = concern_of(picture)
    if tissue is TissueChoice.ALL or concern is not None:
        mask = np.ones(picture.shape[:2], np.bool_)
    else:
        mask = detect_tissue(picture, picture_mpp_um)
    l0_px_per_px = picture_mpp_um / mpp.x_um, picture_mpp_um / mpp.y_um
    found = grid.tissue_by_tile(TissueMap(mask, l0_px_per_px, picture_mpp_um))
    return SlidePlan(mpp, grid, picture, picture_mpp_um, concern, found)


def read_tile(reader: SlideReader, mpp: Mpp, grid: TileGrid, tile: Tile) -> NDArray[np.uint8]:
    """The patch at a tile of a slide's grid, RGB [224, 224, 3].

    Raises:
        InputError: the file is damaged there.
    """
    return read_area(
        reader,
        mpp,
        target_mpp_um=grid.mpp_um,
        l0_x=tile.l0_x,
        l0_y=tile.l0_y,
        width_px=PATCH_PX,
        height_px=PATCH_PX,
    )
