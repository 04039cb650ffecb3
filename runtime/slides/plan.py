"""The plan of a slide: its pixel size, its tissue, and the tiles or fields to compute."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import BLOCK_PX, PATCH_PX, Geometry
from sshr_deploy.runtime.machine.beside import beside
from sshr_deploy.runtime.pixel_sizes import NOT_GIVEN, GivenMpp
from sshr_deploy.runtime.settings import TissueChoice
from sshr_deploy.runtime.slides.area import choose_level, read_area
from sshr_deploy.runtime.slides.fields import Blocks, Field, core_sides, place_fields, tissue_blocks
from sshr_deploy.runtime.slides.grid import Tile, TileGrid, TileTissue
from sshr_deploy.runtime.slides.mpp import Mpp, resolve_mpp
from sshr_deploy.runtime.slides.reader import SlideReader
from sshr_deploy.runtime.slides.tissue import detect_tissue, thumbnail
from sshr_deploy.runtime.slides.tissue_map import TissueMap


@dataclass(frozen=True)
class SlideSurvey:
    """Of one slide for one model; holds no open file."""

    mpp: Mpp
    grid: TileGrid
    """Of the mask, at the model's pixel size."""
    thumbnail: NDArray[np.uint8]  # RGB [h, w, 3]
    thumbnail_mpp_um: float
    concern: str | None
    """Reason to doubt that it is H&E; everything counts as tissue then."""
    tissue_map: TissueMap


@dataclass(frozen=True)
class SlidePlan(SlideSurvey):
    """The tiles of a slide that are to be computed."""

    tissue: dict[Tile, TileTissue]
    """The tiles to compute, row by row, and where tissue is in each."""


@dataclass(frozen=True)
class FieldPlan(SlideSurvey):
    """The fields of a slide that are to be computed."""

    geometry: Geometry
    blocks: Blocks
    """Blocks of 56 px with tissue, [rows, columns]."""
    fields: list[Field]
    """By rows."""


def survey_slide(
    reader: SlideReader,
    target_mpp_um: float,
    *,
    given: GivenMpp = NOT_GIVEN,
    tissue: TissueChoice = TissueChoice.AUTO,
    concern_of: Callable[[NDArray[np.uint8]], str | None] = lambda _: None,
    check_stop: Callable[[], None] = lambda: None,
) -> SlideSurvey:
    """Find a slide's pixel size and its tissue.

    Args:
        reader: an open slide.
        target_mpp_um: the model's pixel size in um.
        given: the user's pixel size, see `resolve_mpp`.
        tissue: what counts as tissue.
        concern_of: looks at the thumbnail, RGB [h, w, 3], and says what speaks against H&E; tissue
            is found by the colours of H&E, so everything counts where it says something.
        check_stop: called often; what it raises ends the survey.

    Raises:
        InputError: the file is damaged, its pixel size is not known (MissingMppError), or it is too
            coarse; and what `concern_of` raises.
        UsageError: an impossible pixel size is given.
    """
    mpp = resolve_mpp(reader, given.um, force=given.force, source=given.source)
    choose_level(reader, mpp, target_mpp_um)  # refuses a slide that is too coarse
    grid = TileGrid.of_slide(reader.level_sizes_px[0], mpp, target_mpp_um)
    picture, picture_mpp_um = thumbnail(reader, mpp, check_stop)
    check_stop()
    found: Future[NDArray[np.bool_]] | None = None
    with beside() as begin:
        if tissue is not TissueChoice.ALL:
            found = begin(lambda _: detect_tissue(picture, picture_mpp_um))
        concern = concern_of(picture)
    check_stop()
    if found is None or concern is not None:
        mask = np.ones(picture.shape[:2], np.bool_)
    else:
        mask = found.result()
    l0_px_per_px = picture_mpp_um / mpp.x_um, picture_mpp_um / mpp.y_um
    tissue_map = TissueMap(mask, l0_px_per_px, picture_mpp_um)
    return SlideSurvey(mpp, grid, picture, picture_mpp_um, concern, tissue_map)


def plan_tiles(survey: SlideSurvey) -> SlidePlan:
    """The tiles with tissue."""
    return SlidePlan(**vars(survey), tissue=survey.grid.tissue_by_tile(survey.tissue_map))


def plan_fields(survey: SlideSurvey, geometry: Geometry, *, any_side: bool = False) -> FieldPlan:
    """The fields of `geometry` whose cores cover all tissue; with `any_side` also smaller ones."""
    blocks = tissue_blocks(survey.grid, survey.tissue_map)
    fields = place_fields(blocks, core_sides(geometry, any_side=any_side))
    return FieldPlan(**vars(survey), geometry=geometry, blocks=blocks, fields=fields)


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


def read_field(reader: SlideReader, plan: FieldPlan, field: Field) -> NDArray[np.uint8]:
    """A field of a plan with its margins, RGB [height_px, width_px, 3]; white past the slide.

    Raises:
        InputError: the file is damaged there.
    """
    x_scale, y_scale = plan.grid.l0_px_per_px
    margin_px = plan.geometry.margin_px
    return read_area(
        reader,
        plan.mpp,
        target_mpp_um=plan.grid.mpp_um,
        l0_x=(field.column * BLOCK_PX - margin_px) * x_scale,
        l0_y=(field.row * BLOCK_PX - margin_px) * y_scale,
        width_px=field.columns * BLOCK_PX + 2 * margin_px,
        height_px=field.rows * BLOCK_PX + 2 * margin_px,
    )
