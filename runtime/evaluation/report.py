"""The figures of an evaluation as one JSON document."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.evaluation.evaluate import Evaluation
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.processor import library_versions, processor_name
from sshr_deploy.runtime.settings import LargeImages, Mode
from sshr_deploy.scores import LABEL_THRESHOLD, Tally
from sshr_deploy.version import __version__

_LIBRARIES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "opencv-python-headless",
    "pillow",
)


def report(
    evaluation: Evaluation,
    profile: Profile,
    engine: SessionInfo,
    model: dict[str, Any],
    *,
    split: str,
    mode: Mode,
    large: LargeImages,
    batch: int,
    reference: Evaluation | None = None,
) -> dict[str, Any]:
    """All figures and what they were taken with, ready for JSON; fractions 0 to 1.

    `reference` is an evaluation of the same images in reference mode, whose figures then stand
    beside those of `mode`.

    `model` says which network it was. A class's "iou" and "dice" are None where it occurs neither
    in the truth nor in the prediction; for "seam_ratio" see `Seams.ratio`.

    Raises:
        DatasetError: the split's masks hold background only.
    """
    tally = evaluation.tally
    beside = {} if reference is None else {"reference": _figures(reference, profile)}
    return {
        "evaluated_utc": now_utc(),
        "sshr_deploy": __version__,
        "split": {
            "path": split,
            "images": tally.images,
            "scored_pixels": int(tally.confusion.sum()),
        },
        "model": model,
        "profile": profile.model_dump(mode="json"),
        "settings": {
            "mode": mode.value,
            "large": large.value,
            "batch": batch,
            "label_threshold": LABEL_THRESHOLD,
        },
        **_figures(evaluation, profile),
        **beside,
        "engine": asdict(engine),
        "machine": _machine(),
        "libraries": library_versions(_LIBRARIES),
    }


def _figures(evaluation: Evaluation, profile: Profile) -> dict[str, Any]:
    tally, names = evaluation.tally, [tissue.name for tissue in profile.classes]
    return {
        "scores": _score_entries(evaluation),
        "classes": _class_entries(tally, names),
        "confusion": {
            "rows_truth": names,
            "columns_prediction": [*names, "background"],
            "pixels": tally.confusion.tolist(),
        },
        "seconds": round(evaluation.seconds, 3),
    }


def _score_entries(evaluation: Evaluation) -> dict[str, float | None]:
    tally = evaluation.tally
    scores = tally.scores()
    return {
        "mean_iou": scores.mean_iou,
        "mean_dice": scores.mean_dice,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
        "label_accuracy": tally.label_accuracy,
        "exact_match": tally.exact_match,
        "seam_ratio": evaluation.seams.ratio,
    }


def _machine() -> dict[str, str]:
    return {
        "processor": processor_name(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def _class_entries(tally: Tally, names: Sequence[str]) -> list[dict[str, Any]]:
    scores = tally.scores()
    pixels = tally.confusion.sum(1).tolist()
    return [
        {
            "label": label,
            "name": name,
            "iou": scores.class_iou[label],
            "dice": scores.class_dice[label],
            "truth_pixels": pixels[label],
            "truth_share": pixels[label] / sum(pixels),
            "label_accuracy": int(tally.label_hits[label]) / tally.images,
        }
        for label, name in enumerate(names)
    ]
