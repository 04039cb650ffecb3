"""Whether an adaptation helped, on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import CPU_FIELD_PX, field_geometry
from sshr_deploy.model import SSHR
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.split import TruthImage
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.scores import scores_from
from sshr_deploy.train.model_session import ModelSession

_ROUNDS = 2000
_SEED = 0


class Gain(NamedTuple):
    """Mean IoU over all pixels of a split, before and after."""

    before: float
    after: float
    interval: tuple[float, float]
    """95 % interval of after - before."""

    def as_checks(self) -> dict[str, object]:
        """As fields of `known_tissue.Checks`."""
        return {
            "mean_iou_before": self.before,
            "mean_iou_after": self.after,
            "mean_iou_gain_interval": self.interval,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"from {self.before:.4f} to {self.after:.4f} ({self.after - self.before:+.4f}, 95 % "
            f"interval {low:+.4f} to {high:+.4f})"
        )


def measure_gain(
    before: SSHR, after: SSHR, profile: Profile, images: Sequence[TruthImage], on_step: OnStep
) -> Gain:
    """Score two networks on the same images, large ones in seamless mode as `infer` takes them.

    Raises:
        DatasetError: the masks hold background only.
        SessionError: a network's outputs are not finite.
    """
    on_step(f"scoring the network as it is on {len(images)} labelled images")
    first = _confusions(before, profile, images)
    on_step(f"scoring the adapted network on {len(images)} labelled images")
    second = _confusions(after, profile, images)
    was, is_now = (scores_from(confusions.sum(0)).mean_iou for confusions in (first, second))
    return Gain(was, is_now, gain_interval(first, second))


def objections_to_gain(gain: Gain, split: Path) -> list[str]:
    """A line where the adapted network is the worse one."""
    if gain.after >= gain.before:
        return []
    return [
        f"mean IoU on {split} would fall {gain}; keep the network as it is, or adapt it to more "
        "slides"
    ]


def gain_interval(
    before: NDArray[np.int64],  # [I, N, N + 1]
    after: NDArray[np.int64],  # the same
) -> tuple[float, float]:
    """95 % interval of the gain in mean IoU: percentiles of a paired bootstrap over I images.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Both networks are
    scored on the same images of each round; rounds without a pixel to score are left out.
    """
    images = len(before)
    chosen = np.random.default_rng(_SEED).integers(images, size=(_ROUNDS, images))
    weights = np.stack([np.bincount(row, minlength=images) for row in chosen])
    first, second = (
        _mean_iou(np.tensordot(weights, confusions, 1)) for confusions in (before, after)
    )
    gains = (second - first)[np.isfinite(second - first)]
    low, high = np.percentile(gains, (2.5, 97.5)).tolist()
    return low, high


def _confusions(
    model: SSHR, profile: Profile, images: Sequence[TruthImage]
) -> NDArray[np.int64]:  # [I, N, N + 1]
    patches, fields = ModelSession(model), ModelSession(model, field_geometry(CPU_FIELD_PX))
    found = evaluate_split(images, patches, profile, fields=lambda: fields, samples=0)
    return np.stack([tally.confusion for tally in found.tallies])


def _mean_iou(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """By `scores_from` of each of [R, N, N + 1]; NaN where nothing is scored."""
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    union = confusions.sum(2) + confusions[..., :-1].sum(1) - hits
    there = union > 0
    iou = np.divide(hits, union, out=np.zeros(hits.shape), where=there)
    means = np.full(len(iou), np.nan)
    np.divide(iou.sum(1), there.sum(1), out=means, where=there.any(1))
    return means
