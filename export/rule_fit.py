"""The rule of label maps of fields, chosen on labelled images: gate, level weights and biases.

The network runs over each image once; every rule of a coarse grid is then judged on what it said.
Whether the choice is any better is told by images that it was not made on: each is left out in
turn, the choice is made on the others, and the label maps of those left out are scored together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import UsageError, counted
from sshr_deploy.geometry import CELL_PX, Geometry
from sshr_deploy.manifest import RuleFit
from sshr_deploy.model import SSHR, Inference
from sshr_deploy.profiles import CamWeights, Profile
from sshr_deploy.runtime.contract import FieldRule
from sshr_deploy.runtime.evaluation.split import read_split, read_truth
from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes
from sshr_deploy.runtime.field_labels import LevelScales, cell_scores, field_rule
from sshr_deploy.runtime.pipeline.image_fields import FieldImage, FieldImages
from sshr_deploy.runtime.pipeline.images import is_large
from sshr_deploy.runtime.progress import OnStep, Sparse
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession
from sshr_deploy.runtime.slides.fields import core_sides
from sshr_deploy.scores import confusion_matrix, scores_from

GATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
WEIGHTS = ((0.6, 0.2, 0.2), (0.4, 0.2, 0.4), (0.2, 0.2, 0.6), (0.4, 0.4, 0.2))
BIASES = (-0.1, -0.05, 0.0, 0.05, 0.1)
LEAST_GAIN = 0.005
"""Mean IoU by which a rule has to be better than a simpler one: less is chance."""
_TURNS = 2
"""Over the classes: the bias of one depends on those of the others."""

Counts = NDArray[np.int64]
CountsOf = Callable[[FieldRule], Counts]
"""Confusion matrices of all images with a rule, [I, N, N + 1]."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """What the network says of an image, and its label map."""

    said: FieldImage[str]
    truth: NDArray[np.uint8]  # [H, W], N is background

    def counts(self, rule: FieldRule) -> Counts:
        """Confusion matrix [N, N + 1] of the label map, pixel by pixel."""
        return confusion_matrix(self.truth, self.said.labels(rule), self.said.profile.num_classes)


def fit_rule(
    model: SSHR,
    profile: Profile,
    split: Path,
    geometry: Geometry,
    *,
    relabel: bool = False,
    on_step: OnStep,
) -> tuple[Profile, RuleFit]:
    """Choose a rule on the large images of a split with label maps (`img/` and `mask/`).

    Images that inference takes as one patch have no part in it. Returned is the profile with that
    rule, or as it was where the rule is not better on images that were left out; and the record.

    Raises:
        UsageError: less than two images can be used; or labels of other classes.
        DatasetError: a split that cannot be used, see `read_split`.
        InputError: an image cannot be read.
    """
    images = list(_labelled(model, profile, split, geometry, relabel=relabel, on_step=on_step))
    if len(images) < 2:
        raise UsageError(
            f"{split} has {counted(len(images), 'image')} to fit a rule on, where one is left out "
            "in turn; `fit_rule` needs two at least, with a side above 336 px and labelled classes"
        )
    usual = field_rule(profile)
    fitted, score = choose_rule(images, usual)
    default = _mean_iou(np.stack([image.counts(usual) for image in images]))
    record = RuleFit(
        source=f"{split.name}, {counted(len(images), 'image')}",
        mean_iou=score,
        default_mean_iou=default,
        used=score > default,
        gate_threshold=fitted.threshold,
        cam_weights=fitted.weights,
        class_bias=fitted.bias,
    )
    return (with_rule(profile, fitted) if record.used else profile), record


def choose_rule(images: Sequence[LabelledImage], usual: FieldRule) -> tuple[FieldRule, float]:
    """The best rule over all images, and the mean IoU of images whose rule was chosen without them.

    Rules are compared cell by cell; those that were chosen are scored pixel by pixel.
    """
    cells = [CellCounts(image) for image in images]
    known: dict[FieldRule, Counts] = {}

    def counts_of(rule: FieldRule) -> Counts:
        if rule not in known:
            known[rule] = np.stack([image.counts(rule) for image in cells])
        return known[rule]

    left_out = []
    for number, image in enumerate(images):
        others = np.arange(len(images)) != number
        left_out.append(image.counts(_best(counts_of, usual, others)))
    return _best(counts_of, usual, np.ones(len(images), bool)), _mean_iou(np.stack(left_out))


def with_rule(profile: Profile, rule: FieldRule) -> Profile:
    """The profile, whose label maps of fields are then made by `rule`."""
    names = tuple(CamWeights.model_fields)
    weights = CamWeights(**dict(zip(names, rule.weights, strict=True)))
    seamless = profile.seamless.model_copy(
        update={
            "gate_threshold": rule.threshold,
            "cam_weights": weights,
            "class_bias": rule.bias,
        }
    )
    return profile.model_copy(update={"seamless": seamless})


def rule_text(fit: RuleFit, profile: Profile) -> str:
    """A line on what was fitted, and whether it is used."""
    names = profile.class_names
    biases = [f"{n} {b:+g}" for n, b in zip(names, fit.class_bias, strict=False) if b]
    levels = ", ".join(f"{weight:g}" for weight in fit.cam_weights)
    verdict = "it is used" if fit.used else "NOT better, so the profile's own rule is kept"
    return (
        f"rule fitted on {fit.source}: gate {fit.gate_threshold:g}, levels {levels}, bias "
        f"{', '.join(biases) or 'none'}; mean IoU {fit.mean_iou:.4f} on images left out in turn, "
        f"{fit.default_mean_iou:.4f} by the profile's own rule: {verdict}"
    )


class CellCounts:
    """Confusion matrices of cells, each with the labels of all its pixels: 64 times as fast."""

    def __init__(self, image: LabelledImage) -> None:
        self._maps = image.said.maps
        self._scales = LevelScales()
        self._scales.add(self._maps[:-1])
        classes, rows, columns = self._maps.shape[1:]
        padded = np.full((rows * CELL_PX, columns * CELL_PX), classes, np.uint8)
        height, width = image.truth.shape
        padded[:height, :width] = image.truth
        blocks = padded.reshape(rows, CELL_PX, columns, CELL_PX)
        self._truth = np.stack([(blocks == n).sum((1, 3)).ravel() for n in range(classes)])

    def counts(self, rule: FieldRule) -> Counts:
        """As `LabelledImage.counts`, nearly."""
        scales = self._scales.scales(rule.percentile)
        labels = cell_scores(self._maps[:-1], self._maps[-1], scales, rule).argmax(0).ravel()
        classes = len(self._truth)
        counts = np.zeros((classes, classes + 1), np.int64)
        for label in range(classes):
            counts[:, label] = self._truth[:, labels == label].sum(1)
        return counts


def _best(counts_of: CountsOf, usual: FieldRule, of: NDArray[np.bool_]) -> FieldRule:
    """Gate and weights together, then the bias of one class after the other; `usual` if none is
    better."""

    def score(rule: FieldRule) -> float:
        return _mean_iou(counts_of(rule)[of])

    def better(rule: FieldRule, others: Iterable[FieldRule]) -> FieldRule:
        best = max(others, key=score)
        return best if score(best) >= score(rule) + LEAST_GAIN else rule

    gates, weights = {usual.threshold, *GATES}, {usual.weights, *WEIGHTS}
    grid = product(sorted(gates), sorted(weights))
    best = better(usual, [replace(usual, threshold=gate, weights=w) for gate, w in grid])
    classes = counts_of(usual).shape[1]
    for label in list(range(classes)) * _TURNS:
        base = best.bias or (0.0,) * classes
        biases = [(*base[:label], bias, *base[label + 1 :]) for bias in BIASES]
        best = better(best, [replace(best, bias=bias) for bias in biases])
    return best


def _mean_iou(counts: Counts) -> float:
    return scores_from(counts.sum(0)).mean_iou


def _labelled(
    model: SSHR,
    profile: Profile,
    split: Path,
    geometry: Geometry,
    *,
    relabel: bool,
    on_step: OnStep,
) -> Iterator[LabelledImage]:
    items, tell = read_split(split, profile), Sparse(on_step)
    if not relabel:
        refuse_other_classes(split, items, profile)
    with PyTorchSession(Inference(model, geometry), geometry=geometry) as session:
        sides = core_sides(geometry, any_side=session.any_side)
        work = FieldImages[str](profile, 1.0, _raise, geometry, sides)
        for number, item in enumerate(items, 1):
            tell(f"fitting a rule on {split.name}: image {number} of {len(items)}")
            rgb, truth = read_truth(item, profile.num_classes)
            if not is_large(*truth.shape) or truth.min() == profile.num_classes:
                continue
            said, fields = work.open(item.name, rgb)
            for place, field in fields:
                said.put(place, session.infer(field[None]), 0)
            yield LabelledImage(said, truth)


def _raise(name: str, error: Exception) -> None:
    del name
    raise error
