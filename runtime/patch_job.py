"""Patch images, a batch at a time, exactly as the published inference does them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.masks import gate, reference_mask
from sshr_deploy.runtime.names import OVERLAY_NAME, PATCH_MASK_NAME, PATCH_RESULTS
from sshr_deploy.runtime.progress import Stages
from sshr_deploy.runtime.sessions import CamBatch, Session
from sshr_deploy.runtime.summary import class_table
from sshr_deploy.runtime.writers.overlay import blend, write_label_png, write_rgb_png


@dataclass(frozen=True)
class PatchJob:
    """One patch image that was read: its pixels and the folder of its results."""

    rgb: NDArray[np.uint8]  # [H, W, 3]
    patch: NDArray[np.uint8]  # [224, 224, 3]
    folder: Path


def infer_patches(jobs: Sequence[PatchJob], session: Session) -> tuple[CamBatch, float]:
    """CAMs of a batch of images, and the seconds each took.

    Raises:
        SessionError: the engine fails.
    """
    start = time.perf_counter()
    cams = session.infer(np.stack([job.patch for job in jobs]))
    return cams, (time.perf_counter() - start) / len(jobs)


def finish_patch(
    job: PatchJob, cams: CamBatch, index: int, profile: Profile, infer_s: float
) -> dict[str, Any]:
    """Write label map and overlay of image `index` of a batch.

    Returns what `summary.json` says. Areas are None: an image file states no pixel size.

    Raises:
        OutputError: a result cannot be written.
    """
    stages = Stages()
    height, width = job.rgb.shape[:2]
    with stages.stage("mask"):
        mask = reference_mask(
            cams,
            index,
            profile,
            height_px=height,
            width_px=width,
        )
    with stages.stage("write"):
        write_label_png(job.folder / PATCH_MASK_NAME, mask, profile=profile)
        write_rgb_png(job.folder / OVERLAY_NAME, blend(job.rgb, mask, profile))
    counts = np.bincount(mask.ravel(), minlength=profile.num_classes + 1)
    on = gate(cams.prob[index], profile.gate_threshold)
    classes = class_table(profile, counts.tolist(), mpp_um=None)
    for entry, prob, is_on in zip(classes, cams.prob[index].tolist(), on.tolist(), strict=True):
        entry |= {"probability": prob, "on": is_on}
    seconds = stages.seconds()
    total = seconds.pop("total") + infer_s
    return {
        "mask": {"width_px": width, "height_px": height, "mpp_um": None},
        "tissue_area_mm2": None,
        "classes": classes,
        "files": list(PATCH_RESULTS),
        "seconds": {"infer": round(infer_s, 4), **seconds, "total": round(total, 4)},
    }
