"""The result files of a slide, written from the bands of its mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine.beside import Check, beside
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.pipeline.documents import slide_classes
from sshr_deploy.runtime.pipeline.requested_files import requested_sinks
from sshr_deploy.runtime.pipeline.slide_checks import SlideChecks
from sshr_deploy.runtime.results.file_names import (
    MASK_NAME,
    OVERLAY_2X_NAME,
    OVERLAY_NAME,
    OVERLAY_SMALL_NAME,
    REGIONS_NAME,
    THUMBNAIL_NAME,
)
from sshr_deploy.runtime.results.findings import SlideClass, SlideWarning
from sshr_deploy.runtime.slides.dicom_source import SlideIdentity
from sshr_deploy.runtime.slides.plan import SlideSurvey
from sshr_deploy.runtime.slides.view import SlideView
from sshr_deploy.runtime.writers.bands import Band, LabelCounts, feed
from sshr_deploy.runtime.writers.geojson import MaskScale, regions_sink
from sshr_deploy.runtime.writers.ome_tiff import ome_tiff_sink
from sshr_deploy.runtime.writers.overlay import LabelPicker, write_overlay, write_thumbnail


@dataclass(frozen=True)
class SlideJob:
    """A slide that is planned, and the folder of its results."""

    path: Path
    folder: Path
    identity: SlideIdentity | None
    """For its DICOM Segmentation; None where none is asked for."""
    plan: SlideSurvey
    checks: SlideChecks
    view: SlideView
    """What its pictures show."""


@dataclass(frozen=True)
class Written:
    """What was counted while the files were written."""

    classes: tuple[SlideClass, ...]
    regions: int
    warnings: tuple[SlideWarning, ...]
    """Also on the overlay."""


def write_slide_files(
    job: SlideJob,
    picture: Callable[[Check], NDArray[np.uint8]],
    bands: Iterable[Band],
    profile: Profile,
    outputs: Outputs,
    check_stop: Check = lambda: None,
) -> Written:
    """Write all result files of a slide into its folder, but for its summary.

    `picture` gives the pixels of the job's view, RGB [height_px, width_px, 3]. It is called in a
    thread of its own beside the bands, and the pictures are written there beside the last regions;
    `check_stop` is called there too, and what it raises ends it.

    Raises:
        OutputError: one of them cannot be written.
        InputError: one that is asked for cannot be made of this slide.
    """
    grid, name, view = job.plan.grid, job.path.name, job.view
    size_px = grid.width_px, grid.height_px
    counts = LabelCounts(background=profile.num_classes)
    picked = LabelPicker(size_px, (view.height_px, view.width_px), view.box)
    scale = MaskScale(size_px, grid.mpp_um, grid.l0_px_per_px)
    outlines = regions_sink(job.folder / REGIONS_NAME, scale, profile=profile, outputs=outputs)
    labels = ome_tiff_sink(
        job.folder / MASK_NAME, size_px, profile=profile, mask_mpp_um=grid.mpp_um, name=name
    )
    with beside(check_stop) as begin, ExitStack() as stack:  # which finishes its files first
        pixels = begin(picture)
        regions, mask = stack.enter_context(outlines), stack.enter_context(labels)
        requested = requested_sinks(stack, job.folder, name, job.identity, grid, profile, outputs)
        feed(bands, [counts, picked, mask], [regions, *requested])
        classes = slide_classes(profile, counts.counts.tolist(), grid.mpp_um)
        warnings = job.checks.warnings(classes)
        begin(partial(_write_pictures, job, pixels, picked.labels, profile, classes, warnings))
    return Written(classes, regions.count, warnings)


def _write_pictures(
    job: SlideJob,
    pixels: Future[NDArray[np.uint8]],  # [h, w, 3] of the view
    labels: NDArray[np.uint8],  # [h, w]
    profile: Profile,
    classes: tuple[SlideClass, ...],
    warnings: tuple[SlideWarning, ...],
    check_stop: Check,
) -> None:
    rgb = pixels.result()
    write_overlay(
        job.folder / OVERLAY_NAME,
        rgb,
        labels,
        profile=profile,
        shares={c.name: c.share for c in classes},
        title=job.path.name,
        mpp_um=job.view.mpp_um,
        box=job.view.box,
        notes=[warning.text for warning in warnings],
        path_2x=job.folder / OVERLAY_2X_NAME,
        path_small=job.folder / OVERLAY_SMALL_NAME,
        check_stop=check_stop,
    )
    write_thumbnail(job.folder / THUMBNAIL_NAME, rgb)
