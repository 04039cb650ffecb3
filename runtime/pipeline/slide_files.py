"""The result files of a slide, written from the bands of its mask."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.profiles import Profile
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
class Written:
    """What was counted while the files were written."""

    classes: tuple[SlideClass, ...]
    regions: int
    warnings: tuple[SlideWarning, ...]
    """Also on the overlay."""


def write_slide_files(
    folder: Path,
    slide: Path,
    identity: SlideIdentity | None,
    plan: SlideSurvey,
    view: SlideView,
    bands: Iterable[Band],
    profile: Profile,
    outputs: Outputs,
    checks: SlideChecks,
) -> Written:
    """Write all result files of a slide into `folder`, but for its summary.

    Its pictures show what `view` does; its DICOM Segmentation needs `identity`.

    Raises:
        OutputError: one of them cannot be written.
        InputError: one that is asked for cannot be made of this slide.
    """
    grid = plan.grid
    size_px = grid.width_px, grid.height_px
    counts = LabelCounts(background=profile.num_classes)
    picked = LabelPicker(size_px, view.rgb.shape[:2], view.box)
    with ExitStack() as stack:
        regions = stack.enter_context(
            regions_sink(
                folder / REGIONS_NAME,
                MaskScale(size_px, grid.mpp_um, grid.l0_px_per_px),
                profile=profile,
                outputs=outputs,
            )
        )
        mask = stack.enter_context(
            ome_tiff_sink(
                folder / MASK_NAME,
                size_px,
                profile=profile,
                mask_mpp_um=grid.mpp_um,
                name=slide.name,
            )
        )
        requested = requested_sinks(stack, folder, slide.name, identity, grid, profile, outputs)
        feed(bands, [counts, picked, mask], [regions, *requested])
    classes = slide_classes(profile, counts.counts.tolist(), grid.mpp_um)
    warnings = checks.warnings(classes)
    write_overlay(
        folder / OVERLAY_NAME,
        view.rgb,
        picked.labels,
        profile=profile,
        shares={c.name: c.share for c in classes},
        title=slide.name,
        mpp_um=view.mpp_um,
        box=view.box,
        notes=[warning.text for warning in warnings],
        path_2x=folder / OVERLAY_2X_NAME,
        path_small=folder / OVERLAY_SMALL_NAME,
    )
    write_thumbnail(folder / THUMBNAIL_NAME, view.rgb)
    return Written(classes, regions.count, warnings)
