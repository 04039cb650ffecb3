"""One slide from its file to its results, in reference mode."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.machine.clock import Stages
from sshr_deploy.runtime.machine.read_ahead import batches, read_ahead
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline.assembling import MaskStore
from sshr_deploy.runtime.pipeline.documents import slide_classes
from sshr_deploy.runtime.pipeline.file_names import (
    MASK_NAME,
    OVERLAY_NAME,
    REGIONS_NAME,
    SLIDE_RESULTS,
)
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.result_folders import file_sizes
from sshr_deploy.runtime.pipeline.results import (
    MaskFacts,
    SlideClass,
    SlideFacts,
    SlideResult,
    Tiles,
)
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import SlideReader, open_slide
from sshr_deploy.runtime.slides.grid import Tile
from sshr_deploy.runtime.slides.plan import SlidePlan, plan_slide, read_tile
from sshr_deploy.runtime.slides.stain import check_stain
from sshr_deploy.runtime.writers.geojson import write_geojson
from sshr_deploy.runtime.writers.ome_tiff import write_ome_tiff
from sshr_deploy.runtime.writers.overlay import write_overlay


def segment_slide(
    path: Path,
    folder: Path,
    session: Session,
    profile: Profile,
    settings: InferSettings,
    reporter: Reporter,
) -> SlideResult:
    """Compute a slide's mask and write mask, overlay and regions into `folder`.

    Memory holds one row of tiles, a few batches, a thumbnail, some hundred bytes a tile, and the
    regions of 8192 x 8192 mask pixels.

    Raises:
        InputError: the slide cannot be read, its pixel size is not known (MissingMppError), or it
            is plainly not H&E.
        OutputError: a result cannot be written.
        SessionError: the engine fails.
    """
    stages = Stages()
    with stages.stage("open"):
        reader = open_slide(path)
    with reader:
        with stages.stage("tissue"):
            plan = _plan(path, reader, profile, settings)
        reporter.input_started(path, len(plan.tissue))
        with MaskStore(folder, plan.grid, profile.num_classes) as store:
            # Closing ends the reading threads, which must not outlive the reader.
            with closing(_read(plan, reader, ahead=2 * settings.batch)) as tiles:
                for batch, labels in _label_maps(tiles, session, profile, settings.batch, stages):
                    with stages.stage("mask"):
                        _keep(batch, labels, store, profile.num_classes)
                    reporter.tiles_done(path, len(batch))
            mask = store.finish()
            classes = slide_classes(profile, store.label_counts.tolist(), plan.grid.mpp_um)
            with stages.stage("write"):
                regions = _write(folder, path.name, mask, plan, profile, classes)
            del mask
        return _result(reader, plan, classes, regions, file_sizes(folder, SLIDE_RESULTS), stages)


def _result(
    reader: SlideReader,
    plan: SlidePlan,
    classes: tuple[SlideClass, ...],
    regions: int,
    files: dict[str, int],
    stages: Stages,
) -> SlideResult:
    grid = plan.grid
    return SlideResult(
        slide=_slide_facts(reader),
        mpp=plan.mpp,
        mask=MaskFacts(width_px=grid.width_px, height_px=grid.height_px, mpp_um=grid.mpp_um),
        tiles=Tiles(computed=len(plan.tissue), total=grid.rows * grid.columns),
        stain_concern=plan.concern,
        tissue_area_mm2=round(sum(c.area_mm2 for c in classes), 9),
        classes=classes,
        regions=regions,
        files=files,
        seconds=stages.seconds(),
    )


def _plan(path: Path, reader: SlideReader, profile: Profile, settings: InferSettings) -> SlidePlan:
    return plan_slide(
        reader,
        profile.mpp_um,
        mpp_um=settings.mpp_um,
        force_mpp=settings.force_mpp,
        tissue=settings.tissue,
        concern_of=partial(check_stain, path, any_stain=settings.any_stain),
    )


def _write(
    folder: Path,
    name: str,
    mask: NDArray[np.uint8],
    plan: SlidePlan,
    profile: Profile,
    classes: Sequence[SlideClass],
) -> int:
    """Write all files of a slide; returns the number of regions."""
    grid = plan.grid
    regions = write_geojson(
        folder / REGIONS_NAME, mask, profile=profile, l0_px_per_mask_px=grid.l0_px_per_px
    )
    write_overlay(
        folder / OVERLAY_NAME,
        plan.thumbnail,
        mask,
        profile=profile,
        shares={c.name: c.share for c in classes},
        title=name,
        thumbnail_mpp_um=plan.thumbnail_mpp_um,
    )
    write_ome_tiff(folder / MASK_NAME, mask, profile=profile, mask_mpp_um=grid.mpp_um, name=name)
    return regions


def _slide_facts(reader: SlideReader) -> SlideFacts:
    width_px, height_px = reader.level_sizes_px[0]
    return SlideFacts(
        reader=reader.reader,
        width_px=width_px,
        height_px=height_px,
        levels=len(reader.level_sizes_px),
    )


class _ReadTile(NamedTuple):
    tile: Tile
    patch: NDArray[np.uint8]  # RGB [224, 224, 3]
    tissue: NDArray[np.bool_]  # [224, 224]


def _read(plan: SlidePlan, reader: SlideReader, ahead: int) -> Generator[_ReadTile, None, None]:
    """The tiles of a plan in order, read and resampled in threads."""

    def read(tile: Tile) -> _ReadTile:
        patch = read_tile(reader, plan.mpp, plan.grid, tile)
        return _ReadTile(tile, patch, plan.tissue[tile].mask())

    return read_ahead(plan.tissue, read, ahead=ahead)


def _label_maps(
    tiles: Iterable[_ReadTile], session: Session, profile: Profile, batch: int, stages: Stages
) -> Iterator[tuple[list[_ReadTile], NDArray[np.uint8]]]:
    """Tiles and their label maps [B, 224, 224], in order, `batch` at a time."""
    read = stages.each("read", batches(tiles, batch))
    keyed = ((read_tiles, np.stack([tile.patch for tile in read_tiles])) for read_tiles in read)
    for read_tiles, masks in stages.each("infer", session.stream(keyed, mask_rule(profile))):
        yield read_tiles, masks.labels


def _keep(
    batch: Sequence[_ReadTile],
    labels: NDArray[np.uint8],  # [B, 224, 224]
    store: MaskStore,
    background: int,
) -> None:
    for read, mask in zip(batch, labels, strict=True):
        mask[~read.tissue] = background
        store.put(read.tile, mask)
