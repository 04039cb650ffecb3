"""SSHR's published scores, from a confusion matrix that adds up over images and processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import DatasetError

LABEL_THRESHOLD = 0.5
"""A class counts as predicted for an image when its probability is above this."""


def confusion_matrix(
    truth: NDArray[np.integer],  # any shape
    prediction: NDArray[np.integer],  # the same
    num_classes: int,
) -> NDArray[np.int64]:
    """Pixel counts int64 [N, N + 1]: a row for each true class, a column for each predicted label.

    Labels are 0 to N-1 for the classes and N for background. Pixels whose truth is background are
    left out; those predicted as background where the truth is a class are the last column.

    Raises:
        ValueError: the shapes differ, or a label is outside 0 to N.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
    for labels in (truth, prediction):
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
            raise ValueError(f"labels {labels.min()} to {labels.max()} are not 0 to {num_classes}")
    scored = truth < num_classes
    pairs = truth[scored].astype(np.intp) * (num_classes + 1) + prediction[scored]
    counts = np.bincount(pairs, minlength=num_classes * (num_classes + 1))
    return counts.astype(np.int64).reshape(num_classes, num_classes + 1)


@dataclass(frozen=True)
class Scores:
    """Fractions 0 to 1; background of the truth is not scored.

    A class value is None where the class occurs in no scored pixel, neither in the truth nor in the
    prediction; such a class is in no mean. A class that is only predicted scores 0.
    """

    pixel_accuracy: float
    mean_accuracy: float
    """Mean over the classes of the truth of the share of their pixels that is found."""
    frequency_weighted_iou: float
    """IoU weighted by the classes' shares of the truth."""
    mean_iou: float
    class_iou: tuple[float | None, ...]
    class_dice: tuple[float | None, ...]
    mean_dice: float


def scores_from(confusion: NDArray[np.int64]) -> Scores:
    """Scores of a `confusion_matrix` [N, N + 1] by the definitions of SSHR's published evaluation.

    With TP, FP, FN by class: IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN).

    Raises:
        DatasetError: no pixel is scored.
    """
    total = int(confusion.sum())
    if total == 0:
        raise DatasetError(
            "the masks hold background only, there is nothing to score; "
            "give masks with pixels of the profile's classes"
        )
    hits = confusion.diagonal()
    truth = confusion.sum(1)
    predicted = confusion[:, : len(confusion)].sum(0)
    iou = _ratios(hits, truth + predicted - hits)
    dice = _ratios(2 * hits, truth + predicted)
    weighted = [float(t) * v for t, v in zip(truth, iou, strict=True) if v is not None]
    return Scores(
        pixel_accuracy=int(hits.sum()) / total,
        mean_accuracy=_mean(_ratios(hits, truth)),
        frequency_weighted_iou=sum(weighted) / total,
        mean_iou=_mean(iou),
        class_iou=iou,
        class_dice=dice,
        mean_dice=_mean(dice),
    )


def mean_iou_error(confusions: Sequence[NDArray[np.int64]]) -> float | None:
    """Standard error of the mean IoU of images, by the jackknife (leave one image out).

    With t_i the mean IoU of the n images but the i-th, SE^2 = (n - 1) / n sum (t_i - mean t)^2
    (Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981).

    Args:
        confusions: `confusion_matrix` [N, N + 1] of each image.

    Returns:
        None where fewer than two images have pixels that are scored.
    """
    scored = [confusion for confusion in confusions if confusion.any()]
    if len(scored) < 2:
        return None
    together = np.sum(scored, axis=0)
    left = [scores_from(together - confusion).mean_iou for confusion in scored]
    return float(np.std(left) * np.sqrt(len(left) - 1))


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts over images; tallies of different images add up."""

    confusion: NDArray[np.int64]  # [N, N + 1], see `confusion_matrix`
    label_hits: NDArray[np.int64]  # [N], images whose label of this class is right
    exact_matches: int
    """Images whose labels are all right."""
    images: int

    @classmethod
    def empty(cls, num_classes: int) -> Self:
        """The tally of no image."""
        size = num_classes * (num_classes + 1) + num_classes + 2
        return cls.from_vector(np.zeros(size, np.int64), num_classes)

    @classmethod
    def of_image(
        cls,
        confusion: NDArray[np.int64],  # [N, N + 1]
        labels: Sequence[int],
        prob: NDArray[np.float32],  # [N]
    ) -> Self:
        """One image: its confusion matrix, its true labels of 0 and 1, and the probabilities."""
        right = (prob > LABEL_THRESHOLD) == np.asarray(labels, bool)
        return cls(confusion, right.astype(np.int64), int(right.all()), 1)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.confusion + other.confusion,
            self.label_hits + other.label_hits,
            self.exact_matches + other.exact_matches,
            self.images + other.images,
        )

    @property
    def label_accuracy(self) -> float:
        """Share of image labels, over images and classes, that are right; 0 without images."""
        labels = self.images * len(self.label_hits)
        return int(self.label_hits.sum()) / labels if labels else 0.0

    @property
    def exact_match(self) -> float:
        """Share of images whose labels are all right; 0 without images."""
        return self.exact_matches / self.images if self.images else 0.0

    def scores(self) -> Scores:
        """See `scores_from`."""
        return scores_from(self.confusion)

    def to_vector(self) -> NDArray[np.int64]:
        """All counts, int64 [N (N + 1) + N + 2]; vectors add up as tallies do."""
        last = [self.exact_matches, self.images]
        return np.concatenate([self.confusion.ravel(), self.label_hits, last]).astype(np.int64)

    @classmethod
    def from_vector(cls, vector: NDArray[np.int64], num_classes: int) -> Self:
        """The tally that `to_vector` made this vector of.

        Raises:
            ValueError: the vector's length does not fit the classes.
        """
        size = num_classes * (num_classes + 1) + num_classes + 2
        if len(vector) != size:
            raise ValueError(f"{len(vector)} counts, {num_classes} classes have {size}")
        confusion, hits, last = np.split(
            vector, [num_classes * (num_classes + 1), num_classes * (num_classes + 2)]
        )
        exact_matches, images = last.tolist()
        shaped = confusion.reshape(num_classes, num_classes + 1)
        return cls(shaped.copy(), hits.copy(), exact_matches, images)


def _ratios(
    part: NDArray[np.int64],  # [N]
    whole: NDArray[np.int64],  # [N]
) -> tuple[float | None, ...]:
    pairs = zip(part.tolist(), whole.tolist(), strict=True)
    return tuple(p / w if w else None for p, w in pairs)


def _mean(values: Sequence[float | None]) -> float:
    there = [v for v in values if v is not None]
    return sum(there) / len(there)
