"""Compares an exported graph with the PyTorch FP32 network on real patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sshr_deploy.bundle import Qualification
from sshr_deploy.errors import ExportError, UsageError
from sshr_deploy.model import SSHR, predict
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.masks import gate, reference_mask
from sshr_deploy.runtime.patches import PATCH_SUFFIXES, read_image, resize_to_patch
from sshr_deploy.runtime.sessions.session import CAM_NAMES, CamBatch, Session

MAX_PATCHES = 64
"""More patches from `--qualify` would only cost time: the figures are worst cases already."""


@dataclass(frozen=True)
class Tolerance:
    """What an artefact must reach; the figures are those of FP32 (measured: 1e-5 at width 64)."""

    cam_relative_error: float = 1e-4
    mask_agreement: float = 0.9995


@dataclass(frozen=True)
class PatchSet:
    """Real patches, and where they came from."""

    images: Sequence[NDArray[np.uint8]]  # each RGB [H, W, 3]
    source: str


def shipped_patches() -> PatchSet:
    """Six crops of a CC0 H&E slide that come with the package."""
    folder = resources.files("sshr_deploy.export").joinpath("qualification")
    with resources.as_file(folder) as path:
        return PatchSet(
            [read_image(p) for p in sorted(path.glob("*.png"))], "CMU-1-Small-Region crops (CC0)"
        )


def patches_from_folder(folder: Path) -> PatchSet:
    """The first 64 PNG and JPEG images below `folder`, by name.

    Raises:
        UsageError: there is none.
        InputError: one of them cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"--qualify {folder} is not a folder; give a folder of patch images")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PATCH_SUFFIXES)[:MAX_PATCHES]
    if not paths:
        raise UsageError(f"--qualify {folder} holds no PNG or JPEG image; give a folder of patches")
    return PatchSet([read_image(p) for p in paths], folder.name)


def torch_cams(model: SSHR, patches: NDArray[np.uint8]) -> CamBatch:
    """uint8 RGB [B, 224, 224, 3] -> CAMs of the network in its plain form, FP32 on the CPU.

    The reference of every qualification: it shares no code with the exported graph but the layers.
    """
    return CamBatch(*predict(model, patches))


def qualify(session: Session, model: SSHR, profile: Profile, patches: PatchSet) -> Qualification:
    """Run the same patches, one at a time, through both and compare what comes out.

    The figures are worst cases over the patches (see `Qualification`).

    Raises:
        SessionError: the engine fails.
    """
    cam_errors = dict.fromkeys(CAM_NAMES, 0.0)
    prob_error, gates_equal = 0.0, True
    agreement: list[tuple[int, int]] = []  # (equal pixels, pixels)
    for image in patches.images:
        patch = resize_to_patch(image)[None]
        ref, got = torch_cams(model, patch), session.infer(patch)
        for name in CAM_NAMES:
            error = relative_rms_error(getattr(got, name), getattr(ref, name))
            cam_errors[name] = max(cam_errors[name], error)
        prob_error = max(prob_error, float(np.abs(got.prob - ref.prob).max()))
        threshold = profile.gate_threshold
        gates_equal &= bool((gate(got.prob, threshold) == gate(ref.prob, threshold)).all())
        height, width = image.shape[:2]
        wanted, mask = (
            reference_mask(batch, 0, profile, height_px=height, width_px=width)
            for batch in (ref, got)
        )
        agreement.append((int((mask == wanted).sum()), mask.size))
    return Qualification(
        reference=f"PyTorch {torch.__version__} FP32 on the CPU, plain HFRM",
        engine=f"{session.info.engine}, {session.info.library}",
        patches=len(patches.images),
        source=patches.source,
        cam_relative_error=cam_errors,
        prob_max_abs_error=prob_error,
        gates_equal=gates_equal,
        mask_agreement=sum(e for e, _ in agreement) / sum(n for _, n in agreement),
        mask_agreement_worst=min(e / n for e, n in agreement),
    )


def check_qualified(found: Qualification, tolerance: Tolerance) -> None:
    """Pass only what is within the tolerance.

    Raises:
        ExportError: it is not; every figure that misses is named.
    """
    misses = [
        f"{name} is off by {error:.1e} (relative; at most {tolerance.cam_relative_error:.0e})"
        for name, error in found.cam_relative_error.items()
        if not error <= tolerance.cam_relative_error
    ]
    if not found.gates_equal:
        misses.append("a class gate differs")
    if not found.mask_agreement_worst >= tolerance.mask_agreement:
        misses.append(
            f"masks agree on {found.mask_agreement_worst:.4%} "
            f"(at least {tolerance.mask_agreement:.2%})"
        )
    if misses:
        raise ExportError(
            "the exported graph does not equal the checkpoint: "
            f"{'; '.join(misses)}; nothing was written"
        )


def relative_rms_error(got: NDArray[np.float32], ref: NDArray[np.float32]) -> float:
    """RMS(got - ref) / RMS(ref) in float64; 0 for two all-zero arrays; NaN stays NaN."""
    difference = float(np.sqrt(np.mean((got.astype(np.float64) - ref) ** 2)))
    scale = float(np.sqrt(np.mean(ref.astype(np.float64) ** 2)))
    if difference == 0:
        return 0.0
    return difference / scale if scale else float("inf")
