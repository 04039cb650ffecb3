"""The result files of a slide, written from the bands of its mask."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.pipeline.documents import slide_classes
from sshr_deploy.runtime.results.file_names import MASK_NAME, OVERLAY_NAME, REGIONS_NAME
from sshr_deploy.runtime.results.findings import SlideClass
from sshr_deploy.runtime.slides.plan import SlideSurvey
from sshr_deploy.runtime.writers.bands import Band, LabelCounts, feed
from sshr_deploy.runtime.writers.geojson import MaskScale, regions_sink
from sshr_deploy.runtime.writers.ome_tiff import ome_tiff_sink
from sshr_deploy.runtime.writers.overlay import LabelPicker, write_overlay


@dataclass(frozen=True)
class Written:
    """What was counted while the files were written."""

    classes: tuple[SlideClass, ...]
    regions: int


def write_slide_files(
    folder: Path,
    slide: Path,
    plan: SlideSurvey,
    bands: Iterable[Band],
    profile: Profile,
    outputs: Outputs,
) -> Written:
    """Write all result files of a slide into `folder`, but for its summary.

    Raises:
        OutputError: one of them cannot be written.
    """
    grid = plan.grid
    size_px = grid.width_px, grid.height_px
    counts = LabelCounts(background=profile.num_classes)
    picked = LabelPicker(size_px, plan.thumbnail.shape[:2])
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
        feed(bands, [counts, picked, mask], [regions])
    classes = slide_classes(profile, counts.counts.tolist(), grid.mpp_um)
    write_overlay(
        folder / OVERLAY_NAME,
        plan.thumbnail,
        picked.labels,
        profile=profile,
        shares={c.name: c.share for c in classes},
        title=slide.name,
        thumbnail_mpp_um=plan.thumbnail_mpp_um,
    )
    return Written(classes, regions.count)
