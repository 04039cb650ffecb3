"""One image (PNG, JPEG) from its file to its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine.clock import Stages
from sshr_deploy.runtime.patches import MIN_SIDE_PX, check_rgb, read_image
from sshr_deploy.runtime.pipeline.documents import IMAGE_MPP, patch_classes
from sshr_deploy.runtime.pipeline.image_work import Prediction
from sshr_deploy.runtime.pipeline.images import is_large, model_scale
from sshr_deploy.runtime.pipeline.result_folders import file_sizes
from sshr_deploy.runtime.pixel_sizes import GivenMpp
from sshr_deploy.runtime.results.file_names import (
    OVERLAY_NAME,
    OVERLAY_SMALL_NAME,
    PATCH_MASK_NAME,
    PATCH_RESULTS,
    THUMBNAIL_NAME,
)
from sshr_deploy.runtime.results.findings import MaskFacts, PatchResult, Tiles
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import Mpp, check_mpp
from sshr_deploy.runtime.slides.area import LEVEL_TOLERANCE, MAX_ENLARGEMENT
from sshr_deploy.runtime.slides.stain import check_stain
from sshr_deploy.runtime.writers.overlay import write_label_png, write_overlay, write_thumbnail


@dataclass(frozen=True)
class PatchJob:
    """One image that was read: its pixels and the folder of its results."""

    path: Path
    rgb: NDArray[np.uint8]  # [H, W, 3]
    folder: Path
    stain_concern: str | None
    """Reason to doubt that it is H&E, where `any_stain` let it pass."""
    given: GivenMpp
    """Its pixel size by the user."""


def read_patch(
    path: Path, folder: Path, profile: Profile, settings: InferSettings, place: Path | None = None
) -> PatchJob:
    """Read an image that can be segmented; its results go to `folder`.

    Its pixel size is that given for its `place` among the inputs, or where there is none its name.

    Raises:
        InputError: it cannot be read (see `read_image`), is no H&E (see `check_stain`), or at the
            user's pixel size is too coarse or too small for the model.
    """
    rgb = read_image(path)
    concern = check_stain(path, rgb, any_stain=settings.any_stain)
    given = settings.mpp_of(place or Path(path.name))
    _check_scale(path, rgb.shape[:2], given.um, profile.mpp_um)
    return PatchJob(path, rgb, folder, concern, given)


def check_pixels(
    rgb: NDArray[np.uint8], mpp_um: float | None, profile: Profile
) -> NDArray[np.uint8]:
    """The same pixels, if they are an image that the model can segment.

    Raises:
        UsageError: `mpp_um` is no pixel size.
        InputError: see `check_rgb`; or too coarse or too small for the model.
    """
    check_mpp(mpp_um, force=False)
    _check_scale("the image", check_rgb(rgb).shape[:2], mpp_um, profile.mpp_um)
    return rgb


def finish_patch(
    job: PatchJob, prediction: Prediction, profile: Profile, settings: InferSettings
) -> PatchResult:
    """Write label map, overlay and thumbnail of an image.

    Areas are None without a pixel size by the user: an image file states none.

    Raises:
        OutputError: a result cannot be written.
    """
    stages = Stages()
    mask, mpp_um = prediction.mask, job.given.um
    height, width = mask.shape
    counts = np.bincount(mask.ravel(), minlength=profile.num_classes + 1).tolist()
    classes = patch_classes(profile, counts, mpp_um, prediction)
    with stages.stage("write"):
        write_label_png(job.folder / PATCH_MASK_NAME, mask, profile=profile)
        write_thumbnail(job.folder / THUMBNAIL_NAME, job.rgb)
        write_overlay(
            job.folder / OVERLAY_NAME,
            job.rgb,
            mask,
            profile=profile,
            shares={c.name: c.share for c in classes},
            title=job.path.name,
            mpp_um=mpp_um,
            share_of="image",
            path_small=job.folder / OVERLAY_SMALL_NAME,
        )
    tissue_mm2 = None if mpp_um is None else round(sum(c.area_mm2 or 0.0 for c in classes), 9)
    return PatchResult(
        mpp=None if mpp_um is None else Mpp(mpp_um, mpp_um, f"{job.given.source} {IMAGE_MPP}"),
        mask=MaskFacts(width_px=width, height_px=height, mpp_um=mpp_um),
        tiles=Tiles(computed=prediction.parts, total=prediction.parts),
        large=settings.large if is_large(height, width, model_scale(profile, mpp_um)) else None,
        stain_concern=job.stain_concern,
        tissue_area_mm2=tissue_mm2,
        classes=classes,
        files=file_sizes(job.folder, PATCH_RESULTS),
        seconds=_seconds(prediction, stages.seconds()),
    )


def _check_scale(
    path: Path | str, size_px: tuple[int, ...], mpp_um: float | None, model_mpp_um: float
) -> None:
    if mpp_um is None:
        return
    if mpp_um > MAX_ENLARGEMENT * model_mpp_um * (1 + LEVEL_TOLERANCE):
        raise InputError(
            f"{path} is too coarse for this model: its pixels are {mpp_um:.4g} um by `mpp`, the "
            f"model needs {model_mpp_um:.4g}; give a finer image, or its true pixel size"
        )
    height, width = (side * mpp_um / model_mpp_um for side in size_px)
    if min(height, width) < MIN_SIDE_PX:
        raise InputError(
            f"{path} is {width:.0f} x {height:.0f} px at the model's {model_mpp_um:.4g} um (`mpp` "
            f"{mpp_um:.4g}); give an image of at least {MIN_SIDE_PX} such px on each side"
        )


def _seconds(prediction: Prediction, written: dict[str, float]) -> dict[str, float]:
    total = prediction.infer_s + prediction.mask_s + written["total"]
    return {
        "infer": round(prediction.infer_s, 4),
        "mask": round(prediction.mask_s, 4),
        "write": written["write"],
        "total": round(total, 4),
    }
