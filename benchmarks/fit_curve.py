"""The fit score of perturbed images against the mean IoU that they lose.

    python -m sshr_deploy.benchmarks.fit_curve SPLIT CHECKPOINT... --training DIR --json FILE

Needs the extra `train`. The thresholds of `runtime.slides.fit` were chosen from such curves. Each
perturbation is made once, and twice over.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.benchmarks.perturbations import PERTURBATIONS, Perturbation
from sshr_deploy.bundle import file_entry
from sshr_deploy.errors import UsageError
from sshr_deploy.known_tissue import KnownTissue, known_tissue_of
from sshr_deploy.model import SSHR, Inference
from sshr_deploy.model.checkpoint import load_checkpoint, read_header, read_profile
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.split import TruthImage, read_split, read_truth
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.pipeline.images import parts_of, predict_images
from sshr_deploy.runtime.pipeline.tissue_patches import tissue_patches
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession
from sshr_deploy.runtime.settings import CPU_BATCH, LargeImages
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.runtime.slides.fit import Fit, fit_of
from sshr_deploy.scores import confusion_matrix, scores_from

Pixels = NDArray[np.uint8]
TIMES = (1, 2)


@dataclass(frozen=True)
class Point:
    """One way to change all images of a split."""

    perturbation: str
    times: int
    fit: Fit
    """Of the tissue in all images together, as if they were of one slide."""
    mean_iou: float
    lost_mean_iou: float
    """Against the unchanged images."""


@dataclass(frozen=True)
class _Images:
    """A split in memory."""

    items: Sequence[TruthImage]
    pixels: Sequence[tuple[Pixels, Pixels]]

    def changed(self, perturbation: Perturbation, times: int) -> list[tuple[Pixels, Pixels]]:
        """Images and label maps after a perturbation."""
        return [
            _changed(perturbation, times, rgb, truth, item.name)
            for item, (rgb, truth) in zip(self.items, self.pixels, strict=True)
        ]


def measure(
    checkpoint: Path,
    split: Path,
    training: Path | None,
    on_point: Callable[[Point], None] = lambda _: None,
) -> dict[str, Any]:
    """Curve of one network.

    Args:
        checkpoint: with its profile inside.
        split: folder with img/ and mask/.
        training: patches that it was trained on, for a checkpoint that does not state its tissue.
        on_point: told each point as it is measured.

    Raises:
        UsageError: neither the checkpoint nor `training` gives the known tissue.
        CheckpointError, DatasetError: a file cannot be used.
    """
    model, profile = load_checkpoint(checkpoint).eval(), read_profile(checkpoint)
    assert profile is not None
    known = _known(checkpoint, model, profile, training)
    items = read_split(split, profile)
    images = _Images(items, [read_truth(item, profile.num_classes) for item in items])
    clean = _mean_iou(model, profile, images.pixels)
    points = []
    for perturbation, times in product(PERTURBATIONS, TIMES):
        changed = images.changed(perturbation, times)
        fit = _fit(known, model, profile, [rgb for rgb, _ in changed])
        mean_iou = _mean_iou(model, profile, changed)
        point = Point(perturbation.name, times, fit, mean_iou, clean - mean_iou)
        on_point(point)
        points.append(point)
    return {
        "checkpoint": {"name": checkpoint.name, **file_entry(checkpoint).model_dump()},
        "known_tissue": known.source,
        "images": len(items),
        "clean_mean_iou": clean,
        "clean_fit_of_single_images": [
            _fit(known, model, profile, [rgb]).model_dump() for rgb, _ in images.pixels
        ],
        "points": [{**asdict(point), "fit": point.fit.model_dump()} for point in points],
    }


def _changed(
    perturbation: Perturbation, times: int, rgb: Pixels, truth: Pixels, name: str
) -> tuple[Pixels, Pixels]:
    for _ in range(times):
        rgb, truth = perturbation.apply_to_truth(rgb, truth, name)
    return rgb, truth


def _known(checkpoint: Path, model: SSHR, profile: Profile, training: Path | None) -> KnownTissue:
    known = known_tissue_of(read_header(checkpoint), str(checkpoint))
    if known is not None:
        return known
    if training is None:
        raise UsageError(f"{checkpoint} does not state its tissue; give its patches by `training`")
    found = tissue_patches(training, profile, limit=128)
    return KnownTissue(
        source=found.source,
        patches=len(found.patches),
        class_shares=None,
        appearance=appearance_of(found.patches, _first_layer(model), profile.mpp_um),
    )


def _fit(known: KnownTissue, model: SSHR, profile: Profile, images: Sequence[Pixels]) -> Fit:
    patches = [
        resize_to_patch(part.of(rgb))
        for rgb in images
        for part in parts_of(rgb.shape[0], rgb.shape[1], LargeImages.TILES)
    ]
    return fit_of(known, appearance_of(np.stack(patches), _first_layer(model), profile.mpp_um))


def _first_layer(model: SSHR) -> NDArray[np.float32]:
    return model.conv1a.weight.detach().float().numpy()


def _mean_iou(model: SSHR, profile: Profile, images: Sequence[tuple[Pixels, Pixels]]) -> float:
    session = PyTorchSession(Inference(model))
    total = np.zeros((profile.num_classes, profile.num_classes + 1), np.int64)
    pairs = ((truth, rgb) for rgb, truth in images)
    for truth, found in predict_images(pairs, session, profile, LargeImages.TILES, CPU_BATCH):
        total += confusion_matrix(truth, found.mask, profile.num_classes)
    return scores_from(total).mean_iou


def main() -> None:
    """Measure, print a line for each point, and write everything where `--json` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("split", type=Path, help="folder with img/ and mask/")
    parser.add_argument("checkpoints", type=Path, nargs="+", help="with their profiles inside")
    parser.add_argument("--training", type=Path, help="folder of the patches they were trained on")
    parser.add_argument("--json", type=Path, help="file for everything")
    args = parser.parse_args()
    environment = describe_environment()
    networks = [
        measure(checkpoint, args.split, args.training, _say) for checkpoint in args.checkpoints
    ]
    if args.json is not None:
        write_json(
            args.json,
            {"environment": environment, "networks": networks},
        )


def _say(point: Point) -> None:
    print(
        f"{point.perturbation}, {point.times} x: fit {point.fit.score:.3f}, mean IoU "
        f"{point.mean_iou:.3f}, lost {point.lost_mean_iou:+.3f}; {point.fit.words}",
        flush=True,
    )


if __name__ == "__main__":
    main()
