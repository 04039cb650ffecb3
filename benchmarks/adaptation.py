"""Adaptation to unlabelled tissue on a split with label maps, each image left out in turn.

    python -m sshr_deploy.benchmarks.adaptation CHECKPOINT DATASET_DIR --json FILE

Needs the extra `train`. Statistics for an image come from the patches of all others, changed in the
same way; then the image is scored. Rows: the network as trained, with precise statistics (those of
all training patches, not augmented), and adapted from there by each setting. Where the recipe kept
batch norms frozen, "precise" is left out, since it would unfreeze them. Last, the trap: adapted to
training patches of one class alone.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.benchmarks.perturbations import PERTURBATIONS, Perturbation
from sshr_deploy.bundle import file_entry
from sshr_deploy.geometry import CPU_FIELD_PX, field_geometry
from sshr_deploy.model import SSHR
from sshr_deploy.model.batch_norms import Moments, measure, set_statistics
from sshr_deploy.model.checkpoint import load_checkpoint, read_profile
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.split import read_split, read_truth
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.runtime.pipeline.images import parts_of, predict_images
from sshr_deploy.runtime.settings import LargeImages
from sshr_deploy.scores import confusion_matrix, scores_from
from sshr_deploy.train.adaptation.tuning import (
    Balance,
    Tuning,
    adapt_network,
    norms_learned,
    predicted_cells,
    shares_of,
)
from sshr_deploy.train.dataset import TrainingPatch, read_training_set
from sshr_deploy.train.model_session import ModelSession

Pixels = NDArray[np.uint8]
CONDITIONS = ("clean", "eosin-1.4", "haematoxylin-0.7", "gamma-0.7", "gamma-1.4", "tint", "blur")
FEW = ("clean", "gamma-1.4", "tint")
"""Conditions of most settings."""
SETTINGS = (
    *(Tuning(depth, Balance.SLIDES, strength=1) for depth in ("b3", "b2", "b4", "b7")),
    *(Tuning(depth, Balance.CLASSES, strength=1) for depth in ("b3", "b7")),
)
"""Beside the default."""
ALL_CONDITIONS = ALONE = (Tuning(), SETTINGS[0])
_FIELDS = field_geometry(CPU_FIELD_PX)
_MOST_OF_ONE_CLASS = 24


@dataclass(frozen=True)
class _Known:
    """What training leaves in a checkpoint: moments, and class shares of label maps."""

    moments: Mapping[str, Moments]
    class_shares: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    name: str
    rgb: Pixels  # [H, W, 3]
    truth: Pixels  # [H, W]

    def changed(self, change: Perturbation) -> _Image:
        return _Image(self.name, *change.apply_to_truth(self.rgb, self.truth, self.name))

    def patches(self) -> Pixels:  # [n, 224, 224, 3]
        height, width = self.truth.shape
        parts = parts_of(height, width, LargeImages.TILES)
        return np.stack([resize_to_patch(part.of(self.rgb)) for part in parts])


class Table:
    """Rows of a network on the images of a split."""

    def __init__(self, images: Sequence[_Image], profile: Profile, *, seamless: bool) -> None:
        self.images, self.profile, self.seamless = images, profile, seamless
        self.rows: list[dict[str, Any]] = []

    def fixed(self, variant: str, model: SSHR, change: Perturbation) -> None:
        """A row of one network for all images."""
        self._add({"variant": variant}, change, [model] * len(self.images))

    def left_out(self, model: SSHR, known: _Known, tuning: Tuning, change: Perturbation) -> None:
        """A row of networks that are each adapted to all images but the one that is scored."""
        patches = [image.changed(change).patches() for image in self.images]
        labels = [predicted_cells(model, self.profile, p).labels for p in patches]

        def adapted() -> Iterator[SSHR]:
            for index in range(len(self.images)):
                others = [i for i in range(len(self.images)) if i != index]
                yield adapt_network(
                    model,
                    self.profile,
                    np.concatenate([patches[i] for i in others]),
                    known.moments,
                    known.class_shares,
                    tuning,
                    labels=np.concatenate([labels[i] for i in others]),
                )

        self._add({"variant": "adapted", **asdict(tuning)}, change, adapted())

    def _add(
        self, head: dict[str, Any], change: Perturbation, models: Iterator[SSHR] | list[SSHR]
    ) -> None:
        count = self.profile.num_classes
        confusions = []
        for image, model in zip(self.images, models, strict=True):
            changed = image.changed(change)
            pixels = [(changed, changed.rgb)]
            [(_, found)] = predict_images(
                pixels,
                ModelSession(model),
                self.profile,
                fields=partial(ModelSession, model, _FIELDS) if self.seamless else None,
            )
            confusions.append(confusion_matrix(changed.truth, found.mask, count))
        scores = scores_from(np.sum(confusions, 0))
        row = {
            **head,
            "condition": change.name,
            "mean_iou": scores.mean_iou,
            "pixel_accuracy": scores.pixel_accuracy,
            "class_iou": scores.class_iou,
            "confusions": [c.tolist() for c in confusions],
        }
        self.rows.append(row)
        told = " ".join(str(v) for v in head.values())
        ious = " ".join(f"{v:.3f}" for v in scores.class_iou if v is not None)
        print(
            f"{told:32} {change.name:18} mIoU {scores.mean_iou:.3f} ({ious}) "
            f"accuracy {scores.pixel_accuracy:.3f}",
            flush=True,
        )


def measure_adaptation(
    checkpoint: Path,
    dataset: Path,
    *,
    conditions: Sequence[str],
    few: Sequence[str],
    quick: bool,
    seamless: bool,
) -> dict[str, Any]:
    """All rows of a checkpoint; fractions 0 to 1.

    Raises:
        SshrDeployError: the checkpoint or the dataset cannot be used.
    """
    environment = describe_environment()
    profile, trained = read_profile(checkpoint), load_checkpoint(checkpoint)
    learned = norms_learned(checkpoint)
    training = read_training_set(dataset, profile)
    clean = np.stack([resize_to_patch(read_image(patch.path)) for patch in training])
    model = copy.deepcopy(trained)
    set_precise = (lambda _, norm, now: set_statistics(norm, now)) if learned else (lambda *_: None)
    moments = measure(model, clean, on_norm=set_precise)
    shares = shares_of(predicted_cells(model, profile, clean).labels, profile.num_classes)
    known = _Known(moments, shares)
    images = [
        _Image(item.name, *read_truth(item, profile.num_classes))
        for item in read_split(dataset / "val", profile)
    ]
    table = Table(images, profile, seamless=seamless)
    changes = {p.name: p for p in PERTURBATIONS}
    for name in conditions:
        table.fixed("as trained", trained, changes[name])
        if learned:
            table.fixed("precise", model, changes[name])
    for tuning in (Tuning(), *(() if quick else SETTINGS)):
        for name in conditions if tuning in ALL_CONDITIONS else few:
            table.left_out(model, known, tuning, changes[name])
        for label, of_class in _one_class(training, clean) if tuning in ALONE else ():
            adapted = adapt_network(model, profile, of_class, moments, shares, tuning)
            text = f"{tuning.depth} {tuning.balance} to {profile.class_names[label]} alone"
            table.fixed(text, adapted, changes["clean"])
    return {
        "kind": "adaptation",
        "schema": 1,
        "checkpoint_sha256": file_entry(checkpoint).sha256,
        "width": model.config.width,
        "mode": "seamless" if seamless else "reference",
        "batch_norms_learned": learned,
        "training_class_shares": shares,
        "images": [image.name for image in table.images],
        "class_names": profile.class_names,
        "rows": table.rows,
        "environment": environment,
    }


def _one_class(training: Sequence[TrainingPatch], pixels: Pixels) -> Iterator[tuple[int, Pixels]]:
    """Patches whose labels name one class alone, by class."""
    for label in range(len(training[0].labels)):
        alone = [i for i, p in enumerate(training) if p.labels[label] and sum(p.labels) == 1]
        if alone:
            yield label, pixels[alone[:_MOST_OF_ONE_CLASS]]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print rows as they come, and write all figures; returns the exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path, help="trained by sshr-deploy train")
    parser.add_argument("dataset", type=Path, help="folder with training/ and val/{img,mask}")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--conditions", nargs="+", default=CONDITIONS, metavar="NAME")
    parser.add_argument("--few", nargs="+", default=FEW, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="the default setting alone")
    parser.add_argument("--seamless", action="store_true", help="large images as fields, not tiles")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    report = measure_adaptation(
        options.checkpoint,
        options.dataset,
        conditions=options.conditions,
        few=options.few,
        quick=options.quick,
        seamless=options.seamless,
    )
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
