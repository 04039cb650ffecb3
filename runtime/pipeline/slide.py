"""One slide from its file to its results, in reference mode."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import PATCH_PX, MaskRule, Session
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline.assembling import MaskStore
from sshr_deploy.runtime.pipeline.documents import class_table
from sshr_deploy.runtime.pipeline.file_names import (
    MASK_NAME,
    OVERLAY_NAME,
    REGIONS_NAME,
    SLIDE_RESULTS,
)
from sshr_deploy.runtime.progress import Reporter, Stages
from sshr_deploy.runtime.settings import InferSettings, TissueChoice
from sshr_deploy.runtime.slides import (
    Mpp,
    SlideReader,
    choose_level,
    open_slide,
    read_area,
    resolve_mpp,
)
from sshr_deploy.runtime.slides.grid import Tile, TileGrid
from sshr_deploy.runtime.slides.stain import check_stain
from sshr_deploy.runtime.slides.tissue import TissueMap, detect_tissue, thumbnail
from sshr_deploy.runtime.writers.geojson import write_geojson
from sshr_deploy.runtime.writers.ome_tiff import write_ome_tiff
from sshr_deploy.runtime.writers.overlay import write_overlay

_READERS = 2  # threads that read and resample ahead of the engine


def segment_slide(
    path: Path,
    folder: Path,
    session: Session,
    profile: Profile,
    settings: InferSettings,
    reporter: Reporter,
) -> dict[str, Any]:
    """Compute a slide's mask and write mask, overlay and regions into `folder`.

    Returns what `summary.json` says of the slide. Memory holds one row of tiles,
    a few batches, a thumbnail, and the regions of 8192 x 8192 mask pixels.

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
        mpp = resolve_mpp(reader, settings.mpp_um, force=settings.force_mpp)
        choose_level(reader, mpp, profile.mpp_um)  # refuses a slide that is too coarse
        grid = TileGrid.of_slide(reader.level_sizes_px[0], mpp, profile.mpp_um)
        with stages.stage("tissue"):
            picture = _Picture(*thumbnail(reader, mpp))
            concern = check_stain(path, picture.rgb, any_stain=settings.any_stain)
            # tissue is found by the colours of H&E, so without them every tile counts
            choice = settings.tissue if concern is None else TissueChoice.ALL
            tissue = _tissue_map(picture, mpp, choice)
            tiles = grid.tiles_with_tissue(tissue)
        reporter.input_started(path, len(tiles))
        with MaskStore(folder, grid, profile.num_classes) as store:
            # Closing ends the reading threads, which must not outlive the reader.
            with closing(
                _read_ahead(reader, mpp, profile.mpp_um, tiles, 2 * settings.batch)
            ) as patches:
                batches = _batches(patches, settings.batch, stages)
                for batch, labels in _label_maps(batches, session, mask_rule(profile), stages):
                    with stages.stage("mask"):
                        _keep(batch, labels, grid, tissue, store, profile.num_classes)
                    reporter.tiles_done(len(batch))
            mask = store.finish()
            classes = class_table(profile, store.label_counts.tolist(), grid.mpp_um)
            with stages.stage("write"):
                regions = _write(folder, path.name, mask, grid, picture, profile, classes)
            del mask
    return {
        "slide": _slide_facts(reader),
        "mpp": asdict(mpp),
        "mask": {"width_px": grid.width_px, "height_px": grid.height_px, "mpp_um": grid.mpp_um},
        "tiles": {"computed": len(tiles), "total": grid.rows * grid.columns},
        "stain_concern": concern,
        "tissue_area_mm2": round(sum(c["area_mm2"] for c in classes), 9),
        "classes": classes,
        "regions": regions,
        "files": list(SLIDE_RESULTS),
        "seconds": stages.seconds(),
    }


class _Picture(NamedTuple):
    rgb: NDArray[np.uint8]  # [h, w, 3]
    mpp_um: float


def _write(
    folder: Path,
    name: str,
    mask: NDArray[np.uint8],
    grid: TileGrid,
    picture: _Picture,
    profile: Profile,
    classes: list[dict[str, Any]],
) -> int:
    regions = write_geojson(
        folder / REGIONS_NAME, mask, profile=profile, l0_px_per_mask_px=grid.l0_px_per_px
    )
    write_overlay(
        folder / OVERLAY_NAME,
        picture.rgb,
        mask,
        profile=profile,
        shares={c["name"]: c["share"] for c in classes},
        title=name,
        thumbnail_mpp_um=picture.mpp_um,
    )
    write_ome_tiff(folder / MASK_NAME, mask, profile=profile, mask_mpp_um=grid.mpp_um, name=name)
    return regions


def _slide_facts(reader: SlideReader) -> dict[str, Any]:
    width_px, height_px = reader.level_sizes_px[0]
    return {
        "reader": reader.reader,
        "width_px": width_px,
        "height_px": height_px,
        "levels": len(reader.level_sizes_px),
    }


def _tissue_map(picture: _Picture, mpp: Mpp, choice: TissueChoice) -> TissueMap:
    l0_px_per_px = picture.mpp_um / mpp.x_um, picture.mpp_um / mpp.y_um
    if choice is TissueChoice.ALL:
        tissue = np.ones(picture.rgb.shape[:2], bool)
    else:
        tissue = detect_tissue(picture.rgb, picture.mpp_um)
    return TissueMap(tissue, l0_px_per_px, picture.mpp_um)


def _read_ahead(
    reader: SlideReader, mpp: Mpp, target_mpp_um: float, tiles: Iterable[Tile], ahead: int
) -> Generator[tuple[Tile, NDArray[np.uint8]], None, None]:
    """(tile, RGB [224, 224, 3]) in order; up to `ahead` tiles are read in advance."""

    def read(tile: Tile) -> NDArray[np.uint8]:
        return read_area(
            reader,
            mpp,
            target_mpp_um=target_mpp_um,
            l0_x=tile.l0_x,
            l0_y=tile.l0_y,
            width_px=PATCH_PX,
            height_px=PATCH_PX,
        )

    pending: deque[tuple[Tile, Future[NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        try:
            for tile in tiles:
                pending.append((tile, pool.submit(read, tile)))
                if len(pending) > ahead:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batches(
    patches: Iterator[tuple[Tile, NDArray[np.uint8]]], size: int, stages: Stages
) -> Iterator[list[tuple[Tile, NDArray[np.uint8]]]]:
    while True:
        batch: list[tuple[Tile, NDArray[np.uint8]]] = []
        with stages.stage("read"):
            for item in patches:
                batch.append(item)
                if len(batch) == size:
                    break
        if not batch:
            return
        yield batch


def _label_maps(
    batches: Iterator[list[tuple[Tile, NDArray[np.uint8]]]],
    session: Session,
    rule: MaskRule,
    stages: Stages,
) -> Iterator[tuple[list[Tile], NDArray[np.uint8]]]:
    """Tiles and their labels [B, 224, 224], in order; the session may be batches ahead."""
    keyed = (
        ([tile for tile, _ in batch], np.stack([patch for _, patch in batch])) for batch in batches
    )
    results = session.stream(keyed, rule)
    while True:
        with stages.stage("infer"):
            result = next(results, None)
        if result is None:
            return
        tiles, masks = result
        yield tiles, masks.labels


def _keep(
    tiles: Sequence[Tile],
    labels: NDArray[np.uint8],  # [B, 224, 224]
    grid: TileGrid,
    tissue: TissueMap,
    store: MaskStore,
    background: int,
) -> None:
    for tile, mask in zip(tiles, labels, strict=True):
        mask[~grid.tissue_in(tile, tissue)] = background
        store.put(tile, mask)
