"""Other statistics for batch norms, from unlabelled patches: take the stain, leave the classes.

Statistics of tissue with other shares of classes than the training set would move class evidence as
well as stain. Three things hold against that: only norms of the first stages are adapted, slides
count alike, and cells are weighted by their predicted class until its share is that of training.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sshr_deploy.choice import Choice
from sshr_deploy.errors import CheckpointError, UsageError
from sshr_deploy.geometry import CELL_PX, PATCH_CELLS, PATCH_PX
from sshr_deploy.model import SSHR, predict
from sshr_deploy.model.batch_norms import (
    DEPTHS,
    MOMENTS_PREFIX,
    Moments,
    batch_norms,
    measure,
    moments_from_tensors,
    retuned,
    running_statistics,
    set_statistics,
)
from sshr_deploy.model.checkpoint import read_aside, read_header
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch
from sshr_deploy.runtime.masks import label_map, mask_rule
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.train.recipe import BatchNormMode

MAX_WEIGHT = 5.0
"""Of a cell, for its class: one that is nearly missing is not made of a few cells."""

_BATCH = 8


class Balance(Choice):
    """Which share of the moments a patch or cell has."""

    NONE = "none"
    """Slides in proportion to their tissue."""
    SLIDES = "slides"
    """Slides alike."""
    CLASSES = "classes"
    """Slides alike, and predicted classes in their shares of the training set."""


@dataclass(frozen=True)
class Tuning:
    """How statistics are taken over.

    Raises:
        UsageError: no such stage, or a strength or spread outside 0 to 1.
    """

    depth: str = "b3"
    """Deepest stage whose norms are adapted."""
    balance: Balance = Balance.SLIDES
    strength: float = 0.5
    """0 leaves the statistics of training, 1 takes those of the new tissue."""
    min_spread: float = 0.1
    """See `retuned`."""

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise UsageError(f"`depth` {self.depth!r} is no stage; choose {', '.join(DEPTHS)}")
        for name in ("strength", "min_spread"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"`{name}` is {getattr(self, name)}; give a number from 0 to 1")


def adapt_network(
    model: SSHR,
    profile: Profile,
    patches: NDArray[np.uint8],  # [P, 224, 224, 3]
    training: Mapping[str, Moments],
    class_shares: Sequence[float] | None,
    tuning: Tuning,
    on_step: OnStep = tell_nobody,
    *,
    labels: NDArray[np.uint8] | None = None,  # [P, 28, 28]
) -> SSHR:
    """A copy of `model` whose first batch norms are tuned to `patches`; the network given stays.

    Args:
        model: with the statistics that `training` belongs to, in evaluation mode.
        profile: whose gate and CAM weights make label maps, for `Balance.CLASSES`.
        patches: RGB tissue at the profile's pixel size.
        training: moments of the training set by norm.
        class_shares: of the label maps of the training set; None will not do for
            `Balance.CLASSES`.
        tuning: how.
        on_step: told what is being done.
        labels: what `predicted_cells` says of them and of `model`, where it is known already.
    """
    if tuning.balance is not Balance.CLASSES or tuning.strength == 0:
        on_step(f"measuring {len(patches)} patches")
        return _tuned(model, patches, None, training, tuning)
    assert class_shares is not None
    adapted = model
    for number in ("first", "second"):
        if labels is None:
            on_step(f"{number} of two passes: labels of {len(patches)} patches")
            labels = predicted_cells(adapted, profile, patches).labels
        on_step(f"{number} of two passes: measuring {len(patches)} patches")
        weights = balancing_weights(labels, class_shares)
        adapted = _tuned(model, patches, weights, training, tuning)
        labels = None
    return adapted


class Predicted(NamedTuple):
    """What a network says of P patches, N classes."""

    labels: NDArray[np.uint8]  # [P, 28, 28], at the centre of each cell
    prob: NDArray[np.float32]  # [P, N]


def predicted_cells(model: SSHR, profile: Profile, patches: NDArray[np.uint8]) -> Predicted:
    """Labels of patches [P, 224, 224, 3] by the published rule, one for each cell of 8 x 8 px."""
    rule = mask_rule(profile)
    labels = np.empty((len(patches), PATCH_CELLS, PATCH_CELLS), np.uint8)
    prob = np.empty((len(patches), profile.num_classes), np.float32)
    for start in range(0, len(patches), _BATCH):
        batch = CamBatch(*predict(model, patches[start : start + _BATCH]))
        prob[start : start + _BATCH] = batch.prob
        for index in range(len(batch.prob)):
            whole = label_map(batch, index, rule, height_px=PATCH_PX, width_px=PATCH_PX)
            labels[start + index] = whole[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX]
    return Predicted(labels, prob)


def shares_of(labels: NDArray[np.uint8], num_classes: int) -> tuple[float, ...]:
    """Share of each class among labels of any shape; they add up to 1."""
    counts = np.bincount(labels.ravel(), minlength=num_classes)
    return tuple((counts / counts.sum()).tolist())


def balancing_weights(
    labels: NDArray[np.uint8],  # [P, 28, 28]
    class_shares: Sequence[float],
) -> NDArray[np.float32]:
    """Weights of cells that bring each class to its share, as far as `MAX_WEIGHT` allows."""
    found = np.array(shares_of(labels, len(class_shares)))
    wanted = np.array(class_shares)
    ratios = np.divide(wanted, found, out=np.ones_like(found), where=found > 0)
    weights: NDArray[np.float32] = ratios.clip(1 / MAX_WEIGHT, MAX_WEIGHT).astype(np.float32)
    return weights[labels]


def training_moments(path: Path, model: SSHR) -> dict[str, Moments]:
    """Moments of the training set of the checkpoint at `path`, which `model` was read from.

    Those that it stores; where it stores none, but its recipe let batch norms learn, the norms' own
    statistics, which training had averaged from them.

    Raises:
        CheckpointError: neither.
    """
    try:
        stored = moments_from_tensors(model, read_aside(path, MOMENTS_PREFIX))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged: {error}; give its training set with `training`"
        ) from error
    if stored is not None:
        return stored
    if not norms_learned(path):
        raise CheckpointError(
            f"{path} does not say what its batch norms met in training; give the folder of its "
            "training set with `training`"
        )
    return own_statistics(model)


def own_statistics(model: SSHR) -> dict[str, Moments]:
    """The norms' running statistics as moments."""
    pairs = {name: running_statistics(norm) for name, norm in batch_norms(model).items()}
    return {name: Moments(mean, variance.sqrt()) for name, (mean, variance) in pairs.items()}


def norms_learned(path: Path) -> bool:
    """Whether a checkpoint's recipe let batch norms learn; False where it names no recipe."""
    text = read_header(path).get("recipe")
    if text is None:
        return False
    try:
        return bool(json.loads(text)["batch_norm"] == BatchNormMode.LEARN.value)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _tuned(
    model: SSHR,
    patches: NDArray[np.uint8],
    weights: NDArray[np.float32] | None,
    training: Mapping[str, Moments],
    tuning: Tuning,
) -> SSHR:
    adapted = copy.deepcopy(model)
    if tuning.strength == 0:
        return adapted

    def tune(name: str, norm: nn.BatchNorm2d, now: Moments) -> None:
        statistics = retuned(
            norm,
            now,
            training[name],
            strength=tuning.strength,
            min_spread=tuning.min_spread,
        )
        set_statistics(norm, statistics)

    measure(adapted, patches, last=tuning.depth, cell_weights=weights, on_norm=tune)
    return adapted
