"""Whether a session, on this machine, gives what the PyTorch FP32 network gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.manifest import IouComparison, Qualification, Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.scores import confusion_matrix, scores_from
from sshr_deploy.runtime.masks import gate, label_map, mask_rule
from sshr_deploy.runtime.reference_set import ReferenceSet
from sshr_deploy.runtime.sessions.session import CAM_NAMES, CamBatch, Session

TOLERANCES: Mapping[Precision, Tolerance] = {
    # Measured at full width: 1e-5 and 99.998 %. More is another graph, not rounding.
    Precision.FP32: Tolerance(
        mask_agreement=0.9995,
        mask_agreement_worst=0.9995,
        cam_relative_error=1e-4,
        gates_equal=True,
        miou_drop=0.001,
    ),
    Precision.FP16: Tolerance(mask_agreement=0.995, miou_drop=0.001),
    Precision.BF16: Tolerance(mask_agreement=0.985, miou_drop=0.005),
    Precision.INT8: Tolerance(mask_agreement=0.985, miou_drop=0.005),
}
"""What an artefact of each precision must reach, unless the export was told otherwise."""


def qualify(
    session: Session,
    reference: ReferenceSet,
    profile: Profile,
    *,
    on_patch: Callable[[], None] = lambda: None,
) -> Qualification:
    """Run the patches of `reference` through `session`, one at a time, and compare.

    Raises:
        SessionError: the engine fails.
    """
    rule, classes = mask_rule(profile), profile.num_classes
    cam_errors = dict.fromkeys(CAM_NAMES, 0.0)
    prob_error, equal_gates = 0.0, 0
    agreement: list[tuple[int, int]] = []  # (equal pixels, pixels)
    confusion = np.zeros((2, classes, classes + 1), np.int64)  # of the session, of the reference
    for index in range(len(reference)):
        got = session.infer(reference.patches[index : index + 1])
        for name in CAM_NAMES:
            error = relative_rms_error(getattr(got, name)[0], getattr(reference.cams, name)[index])
            cam_errors[name] = max(cam_errors[name], error)
        prob = reference.cams.prob[index]
        prob_error = max(prob_error, float(np.abs(got.prob[0] - prob).max()))
        equal_gates += np.array_equal(gate(got.prob[0], rule.threshold), gate(prob, rule.threshold))
        height, width = reference.sizes_px[index].tolist()
        sources: tuple[tuple[CamBatch, int], ...] = ((got, 0), (reference.cams, index))
        masks = [label_map(b, i, rule, height_px=height, width_px=width) for b, i in sources]
        agreement.append((int((masks[0] == masks[1]).sum()), masks[0].size))
        if reference.truth is not None:
            truth = reference.truth[index]
            confusion += np.stack([confusion_matrix(truth, mask, classes) for mask in masks])
        on_patch()
    return Qualification(
        reference=reference.made_by,
        engine=f"{session.info.engine}, {session.info.library}",
        device=session.info.device,
        patches=len(reference),
        source=reference.source,
        cam_relative_error=cam_errors,
        prob_max_abs_error=prob_error,
        gates_equal=equal_gates == len(reference),
        gate_agreement=equal_gates / len(reference),
        mask_agreement=sum(e for e, _ in agreement) / sum(n for _, n in agreement),
        mask_agreement_worst=min(e / n for e, n in agreement),
        iou=_iou(confusion) if reference.truth is not None else None,
    )


def misses(found: Qualification, tolerance: Tolerance) -> list[str]:
    """Each figure that misses the tolerance, with its bound; empty for a qualified artefact."""
    said = []
    if tolerance.cam_relative_error is not None:
        said += [
            f"{name} is off by {error:.1e} (relative; at most {tolerance.cam_relative_error:.0e})"
            for name, error in found.cam_relative_error.items()
            if not error <= tolerance.cam_relative_error
        ]
    if tolerance.gates_equal and not found.gates_equal:
        said.append("a class gate differs")
    for worst, share, least in (
        ("", found.mask_agreement, tolerance.mask_agreement),
        ("in the worst patch ", found.mask_agreement_worst, tolerance.mask_agreement_worst),
    ):
        if not share >= least:
            said.append(f"masks agree {worst}on {share:.4%} of pixels (at least {least:.2%})")
    iou, most = found.iou, tolerance.miou_drop
    if iou is not None and most is not None and not iou.drop <= most:
        said.append(f"mean IoU falls by {iou.drop:.4f} to {iou.mean_iou:.4f} (at most {most:g})")
    return said


def relative_rms_error(got: NDArray[np.float32], ref: NDArray[np.float32]) -> float:
    """RMS(got - ref) / RMS(ref) in float64; 0 for two all-zero arrays; 1e9 at most."""
    difference = float(np.sqrt(np.mean((got.astype(np.float64) - ref) ** 2)))
    scale = float(np.sqrt(np.mean(ref.astype(np.float64) ** 2)))
    if difference == 0:
        return 0.0
    return min(difference / scale, _LARGEST_ERROR) if scale else _LARGEST_ERROR


_LARGEST_ERROR = 1e9
"""Stands for infinity, which JSON does not have."""


def _iou(confusion: NDArray[np.int64]) -> IouComparison | None:
    """None where no pixel of the label maps is of a class."""
    if confusion[1].sum() == 0:
        return None
    got, ref = (scores_from(counts) for counts in confusion)
    return IouComparison(
        mean_iou=got.mean_iou,
        reference_mean_iou=ref.mean_iou,
        class_iou=got.class_iou,
        reference_class_iou=ref.class_iou,
    )
