"""What a run would do with its inputs, found out without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.pipeline.discovery import Found, Input, fingerprint_of
from sshr_deploy.runtime.pipeline.documents import IMAGE_MPP, Context
from sshr_deploy.runtime.pipeline.endings import is_result_of
from sshr_deploy.runtime.pipeline.images import model_scale
from sshr_deploy.runtime.pipeline.patch import read_patch
from sshr_deploy.runtime.pipeline.planning import plan_units
from sshr_deploy.runtime.pipeline.result_folders import read_summary
from sshr_deploy.runtime.results.findings import Kind
from sshr_deploy.runtime.slides import Mpp, open_slide
from sshr_deploy.runtime.slides.fit import slide_fit

Fate = Literal["compute", "done", "refused"]


@dataclass(frozen=True)
class Amount:
    """Work that an input is; pixels are those of the model's scale."""

    units: int
    """Tiles or fields to compute; 1 for an image."""
    input_px: float
    """That the network takes."""
    mask_px: int
    kept_bytes: int = 0
    """Of what the network says, on the disk until the slide is finished."""


@dataclass(frozen=True)
class Preview:
    """One input, and what a run would do with it."""

    path: Path
    kind: Kind | None
    fate: Fate
    reason: str = ""
    """Why it is refused, in one line."""
    reader: str = ""
    """Library and format, or the suffix of an image."""
    size_px: tuple[int, int] | None = None
    """Width and height of level 0."""
    mpp: Mpp | None = None
    concern: str | None = None
    """Reason to doubt that it is H&E."""
    misfit: str | None = None
    """How its tissue is far from what the network knows."""
    tissue_mm2: float | None = None
    """Area to compute."""
    amount: Amount | None = None
    plan_s: float = 0.0
    """Opening it and finding its tissue took so long; for an image, reading it."""
    item: Input | None = field(default=None, repr=False)


def previews(found: Found, out: Path, context: Context) -> Iterator[Preview]:
    """What a run with this context would do with each input, and with what cannot be read.

    Slides are opened and their tissue is found, images are read.
    """
    for failure in found.failures:
        yield Preview(failure.path, failure.kind, "refused", failure.reason)
    for item in found.inputs:
        try:
            yield _preview(item, out, context)
        except InputError as error:
            reason = context.wording(str(error))
            yield Preview(item.path, item.kind, "refused", reason, item=item)


def _preview(item: Input, out: Path, context: Context) -> Preview:
    if _is_done(item, out, context):
        return Preview(item.path, item.kind, "done", item=item)
    return (_slide if item.kind == "slide" else _image)(item, context)


def _is_done(item: Input, out: Path, context: Context) -> bool:
    """Whether an earlier run did it; refuses to replace the result of another input."""
    folder = out / item.relative
    summary = None if context.settings.overwrite else read_summary(folder)
    if summary is None:
        return False
    key = context.key(fingerprint_of(item.path), item.relative, summary)
    outputs = context.settings.outputs
    return is_result_of(item, folder, summary, outputs, same_key=summary.key == key)


def _slide(item: Input, context: Context) -> Preview:
    watch = Stopwatch()
    with open_slide(item.path) as reader:
        units = plan_units(reader, item.path, context, item.relative)
        plan = units.plan
        fit = slide_fit(context.bundle, reader, plan)
        name, size_px = reader.reader, reader.level_sizes_px[0]
    count = len(units.places)
    amount = Amount(
        count,
        sum(map(units.input_px, units.places)),
        plan.grid.width_px * plan.grid.height_px,
        units.kept_bytes,
    )
    return Preview(
        item.path,
        item.kind,
        "compute",
        reader=name,
        size_px=size_px,
        mpp=plan.mpp,
        concern=plan.concern,
        misfit=fit.words if fit is not None and fit.verdict == "far" else None,
        tissue_mm2=count * units.kept_px * (plan.grid.mpp_um / 1000) ** 2,
        amount=amount,
        plan_s=watch.seconds(),
        item=item,
    )


def _image(item: Input, context: Context) -> Preview:
    watch, profile = Stopwatch(), context.profile
    job = read_patch(item.path, Path(), profile, context.settings, item.relative)
    height, width = job.rgb.shape[:2]
    scale, um = model_scale(profile, job.given.um), job.given.um
    return Preview(
        item.path,
        item.kind,
        "compute",
        reader=item.path.suffix.lower().lstrip("."),
        size_px=(width, height),
        mpp=None if um is None else Mpp(um, um, f"{job.given.source} {IMAGE_MPP}"),
        concern=job.stain_concern,
        tissue_mm2=None if um is None else width * height * (um / 1000) ** 2,
        amount=Amount(1, width * height * scale**2, width * height),
        plan_s=watch.seconds(),
        item=item,
    )
