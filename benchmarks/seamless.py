"""Windows on a field against published patches, on a split with label maps.

    python -m sshr_deploy.benchmarks.seamless CHECKPOINT SPLIT_DIR --json FILE

Needs the extra `train`. Each image is one field without a margin, continued past its edges by
reflection; for published patches it is cut into tiles of 224 px from its top-left corner, at its
own scale, and continued likewise. The rows decide the windows and the label rule that are shipped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.bundle import file_entry
from sshr_deploy.geometry import CELL_PX, PATCH_PX, Geometry
from sshr_deploy.model import SSHR, predict
from sshr_deploy.model.checkpoint import load_checkpoint, read_profile
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, FieldRule
from sshr_deploy.runtime.evaluation.seams import Seams
from sshr_deploy.runtime.evaluation.split import read_split, read_truth
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    cell_scores,
    field_rule,
    labels_of,
    stacked_cams,
)
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.scores import confusion_matrix, scores_from

Pixels = NDArray[np.uint8]
WINDOWS_CELLS = (28, 56)
STRIDE_CELLS = 14
PERCENTILES = (95.0, 99.0, 99.5)
GATES = (0.1, 0.2, 0.3)
WEIGHTS = ((0.6, 0.2, 0.2), (0.4, 0.2, 0.4), (0.2, 0.2, 0.6))
_SHIFTS_PX = range(PATCH_PX // 8, PATCH_PX, PATCH_PX // 8)


@dataclass
class _Sums:
    """Of a way over all images of a split."""

    confusion: NDArray[np.int64]
    seams: Seams = field(default_factory=Seams)
    elsewhere: list[Seams] = field(default_factory=lambda: [Seams() for _ in _SHIFTS_PX])
    """At the lines of grids that are shifted, where no tile ends: how far chance goes."""

    @classmethod
    def of_classes(cls, count: int) -> _Sums:
        return cls(np.zeros((count, count + 1), np.int64))

    def add(self, labels: Pixels, truth: Pixels) -> None:
        count = len(self.confusion)
        self.confusion += confusion_matrix(truth, labels, count)
        scored = np.where(truth == count, truth, labels)
        self.seams += _seams_at(PATCH_PX, scored, count)
        for index, shift in enumerate(_SHIFTS_PX):
            self.elsewhere[index] += _seams_at(shift, scored, count)

    def row(self) -> dict[str, Any]:
        scores = scores_from(self.confusion)
        return {
            "mean_iou": scores.mean_iou,
            "class_iou": scores.class_iou,
            "pixel_accuracy": scores.pixel_accuracy,
            "seam_ratio": self.seams.ratio,
            "seam_ratios_elsewhere": [seams.ratio for seams in self.elsewhere],
        }


def _seams_at(first: int, labels: Pixels, num_classes: int) -> Seams:
    rows, columns = (range(first, side, PATCH_PX) for side in labels.shape)
    return Seams.of_mask(labels, num_classes, rows=rows, columns=columns)


class _Field(NamedTuple):
    """Outputs of an image that is one field, cut to the image's cells."""

    cams: NDArray[np.float16]  # [3, N, h, w]
    prob: NDArray[np.float32]  # [N, h, w]


def measure(checkpoint: Path, split: Path) -> dict[str, Any]:
    """Scores and seams of published patches, and of fields by windows and label rule."""
    model, profile = load_checkpoint(checkpoint), read_profile(checkpoint)
    images = [read_truth(item, profile.num_classes) for item in read_split(split, profile)]
    base = field_rule(profile)
    rows = []
    for window in WINDOWS_CELLS:
        fields = [field_of(model, rgb, window) for rgb, _ in images]
        for rule, pooled in _rules(base):
            sums = _Sums.of_classes(profile.num_classes)
            for labels, (_, truth) in zip(labels_by(fields, rule, pooled), images, strict=True):
                sums.add(_cut(labels, truth), truth)
            settings = {
                "window_cells": window, "stride_cells": STRIDE_CELLS, "percentile": rule.percentile,
                "gate": rule.threshold, "weights": rule.weights,
                "scales": "of the split" if pooled else "of each image",
            }  # fmt: skip
            rows.append(settings | sums.row())
    return {
        "benchmark": "seamless",
        "environment": describe_environment(),
        "checkpoint": {"sha256": file_entry(checkpoint).sha256, "width": model.config.width},
        "profile": profile.name,
        "split": {"images": len(images), "sizes_px": [truth.shape for _, truth in images]},
        "reference": _reference(model, profile, images),
        "fields": rows,
    }


def field_of(model: SSHR, rgb: Pixels, window_cells: int) -> _Field:
    """Outputs of an image of any size as one field without a margin."""
    step = STRIDE_CELLS * CELL_PX
    smallest = window_cells * CELL_PX
    side = smallest + -(-max(0, max(rgb.shape[:2]) - smallest) // step) * step
    geometry = Geometry(side, 0, window_cells, STRIDE_CELLS)
    output = predict(model, continued(rgb, side, side)[None], geometry)
    height, width = (-(-n // CELL_PX) for n in rgb.shape[:2])
    cams = stacked_cams(CamBatch(*output), 0)[:, :, :height, :width]
    prob = output.prob[0] if output.prob.ndim == 4 else output.prob[0][:, None, None]
    whole = np.broadcast_to(prob, (len(prob), side // CELL_PX, side // CELL_PX))
    return _Field(cams, whole[:, :height, :width])


def continued(rgb: Pixels, height_px: int, width_px: int) -> Pixels:
    """The image with its reflection below and right of it, [height_px, width_px, 3]."""
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, height_px - height), (0, width_px - width), (0, 0)), "symmetric")


def labels_by(fields: Sequence[_Field], rule: FieldRule, pooled: bool) -> Iterator[Pixels]:
    """Label maps [8 h, 8 w] of fields, their levels scaled each by itself or all alike."""
    together = LevelScales()
    for one in fields:
        together.add(one.cams)
    for one in fields:
        scales = together
        if not pooled:
            scales = LevelScales()
            scales.add(one.cams)
        yield labels_of(cell_scores(one.cams, one.prob, scales.scales(rule.percentile), rule))


def _rules(base: FieldRule) -> Iterator[tuple[FieldRule, bool]]:
    """The base with one thing changed at a time, and the percentile with either kind of scales."""
    for percentile, pooled in product(PERCENTILES, (False, True)):
        yield replace(base, percentile=percentile), pooled
    for gate in GATES:
        if gate != base.threshold:
            yield replace(base, threshold=gate), False
    for weights in WEIGHTS:
        if weights != base.weights:
            yield replace(base, weights=weights), False


def _reference(
    model: SSHR, profile: Profile, images: Iterable[tuple[Pixels, Pixels]]
) -> dict[str, Any]:
    sums = _Sums.of_classes(profile.num_classes)
    for rgb, truth in images:
        height, width = (-(-n // PATCH_PX) * PATCH_PX for n in truth.shape)
        whole, labels = continued(rgb, height, width), np.empty((height, width), np.uint8)
        for top, left in product(range(0, height, PATCH_PX), range(0, width, PATCH_PX)):
            tile = (slice(top, top + PATCH_PX), slice(left, left + PATCH_PX))
            cams = CamBatch(*predict(model, whole[tile][None]))
            labels[tile] = reference_mask(cams, 0, profile, height_px=PATCH_PX, width_px=PATCH_PX)
        sums.add(_cut(labels, truth), truth)
    return sums.row()


def _cut(labels: Pixels, truth: Pixels) -> Pixels:
    height, width = truth.shape
    return labels[:height, :width]


def main() -> None:
    """Measure, print a line for each way, and write everything where `--json` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint with its profile inside")
    parser.add_argument("split", type=Path, help="folder with img/ and mask/")
    parser.add_argument("--json", type=Path, help="file for everything")
    args = parser.parse_args()
    report = measure(args.checkpoint, args.split)
    for row in [report["reference"], *report["fields"]]:
        print(json.dumps(row))
    if args.json is not None:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
