"""Scores of networks when another scanner or stain made the images (`benchmark robustness`).

Every perturbation of a fixed set is made to every image of a split, the same for each network, so
that two networks, or one before and after adaptation, differ by the network alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.benchmarks.perturbations import CLEAN, PERTURBATIONS, Perturbation
from sshr_deploy.errors import UsageError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.split import TruthImage
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.settings import LargeImages, Mode

SCHEMA_VERSION = 1
"""Of the document; it rises where a reader would misread an older one."""


@dataclass(frozen=True)
class Subject:
    """A network that is scored."""

    name: str
    """As tables and the picture call it."""
    session: Session
    fields: Callable[[], Session] | None
    """Gives that of large images in seamless mode."""
    profile: Profile
    facts: dict[str, Any]
    """Which network it is, for the document."""
    batch: int


def measure_robustness(
    split: Path,
    images: Sequence[TruthImage],
    subjects: Sequence[Subject],
    *,
    mode: Mode,
    large: LargeImages = LargeImages.TILES,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Scores of each network under each perturbation, the clean images first; fractions 0 to 1.

    "lost_mean_iou" is that of the clean images less that of the row, "gained_mean_iou" and
    "gained_class_iou" those of the row less the first network's in the same row; a class value is
    None where the class occurs neither in the truth nor in the prediction.

    Args:
        split: where the images come from, for the document.
        images: of `read_split`.
        subjects: the networks, of the same classes.
        mode: how large images are taken.
        large: whether they are cut in reference mode.
        perturbations: the first is `CLEAN`.
        on_image: called after each image, of each perturbation and network.

    Raises:
        UsageError: the networks' classes differ.
        InputError: an image cannot be read any more.
        SessionError: an engine fails.
    """
    check_classes(subjects)
    assert perturbations[0] is CLEAN
    environment = describe_environment()
    models: list[dict[str, Any]] = []
    for subject in subjects:
        rows = [
            _row(subject, images, one, mode, large, lambda _: on_image()) for one in perturbations
        ]
        first = models[0]["rows"] if models else rows
        for row, beside in zip(rows, first, strict=True):
            row["lost_mean_iou"] = rows[0]["mean_iou"] - row["mean_iou"]
            row["gained_mean_iou"] = row["mean_iou"] - beside["mean_iou"]
            row["gained_class_iou"] = [
                None if iou is None or other is None else iou - other
                for iou, other in zip(row["class_iou"], beside["class_iou"], strict=True)
            ]
        models.append(
            {
                "name": subject.name,
                **subject.facts,
                "batch": subject.batch,
                "engine": asdict(subject.session.info),
                "rows": rows,
            }
        )
    profile = subjects[0].profile
    return {
        "benchmark": "robustness",
        "schema_version": SCHEMA_VERSION,
        "measured_utc": now_utc(),
        "environment": environment,
        "split": {"path": str(split), "images": len(images)},
        "profile": profile.model_dump(mode="json"),
        "classes": list(profile.class_names),
        "settings": {"mode": mode.value, "large": large.value},
        "perturbations": [
            {"name": one.name, "words": one.words, "scale": one.scale} for one in perturbations
        ],
        "models": models,
    }


def check_classes(subjects: Sequence[Subject]) -> None:
    """Refuse networks whose label maps cannot be compared.

    Raises:
        UsageError: the classes of two of them differ.
    """
    first = subjects[0]
    for other in subjects[1:]:
        if other.profile.class_names != first.profile.class_names:
            theirs, ours = (", ".join(one.profile.class_names) for one in (other, first))
            raise UsageError(
                f"{other.name} has the classes {theirs}, {first.name} {ours}; give networks of one "
                "set of classes"
            )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell them all apart.

    Raises:
        UsageError: a path occurs twice.
    """
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(path for index, path in enumerate(paths) if parts[index] in parts[:index])
    raise UsageError(f"{twice} is given twice; give each model once")


def _row(
    subject: Subject,
    images: Sequence[TruthImage],
    perturbation: Perturbation,
    mode: Mode,
    large: LargeImages,
    on_image: Callable[[TruthImage], None],
) -> dict[str, Any]:
    found = evaluate_split(
        images,
        subject.session,
        subject.profile,
        fields=subject.fields if mode is Mode.SEAMLESS else None,
        large=large,
        batch=subject.batch,
        samples=0,
        change=perturbation.apply_to_truth,
        on_image=on_image,
    )
    scores = found.tally.scores()
    return {
        "perturbation": perturbation.name,
        "mean_iou": scores.mean_iou,
        "class_iou": list(scores.class_iou),
        "mean_dice": scores.mean_dice,
        "pixel_accuracy": scores.pixel_accuracy,
        "confusion": found.tally.confusion.tolist(),
        "seconds": round(found.seconds, 3),
    }
