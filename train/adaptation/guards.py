"""Whether a network had better not be adapted to some tissue, told without labels.

Statistics of too few slides, of one class or of two stains at once are no statistics of a scanner;
and an adaptation after which a class is all but gone took more than the stain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.known_tissue import Appearance, Checks
from sshr_deploy.runtime.pipeline.tissue_patches import TissuePatches
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.train.adaptation.tuning import Predicted, shares_of

MIN_INPUTS = 3
"""Slides and images: one may be of an unusual patient, and of two none can be told from the other.
"""
MAX_SHARE = 0.95
"""Of one class in all label maps."""
MIN_SHARE = 0.05
"""Of a class that may not all but vanish; a smaller one may be noise."""
MIN_KEPT = 0.2
"""Of such a class's share, after the adaptation."""
MAX_SHIFT, MIN_AGREEMENT = 0.25, 0.71
"""Distance of the class shares from those of training, half the sum of differences, and share of
labels that stay. Adapted half way to sets of one class alone (WSSS4LUAD, three networks) these were
0.27 to 0.88, and 0.03 to 0.70. Fields of all classes, changed in gamma, white balance or sharpness,
had 0.12 to 0.40, and 0.67 to 0.87, so that a strong change of stain may be refused too."""
MAX_APART = 2.0
"""See `_distance`: 1.3 at most among 11 fields of one hospital (WSSS4LUAD val)."""
_APPEARANCE_PATCHES = 128


class Slides(NamedTuple):
    """How the tissue of slides and images looks, together and against each other."""

    appearance: Appearance
    """Of all of them."""
    farthest: Path
    """That which differs most from all."""
    apart: float
    """By how much: see `_distance`."""


def look_at_slides(found: TissuePatches, first_layer: NDArray[np.float32], mpp_um: float) -> Slides:
    """Measure patches, all together and by slide.

    Args:
        found: the patches.
        first_layer: [C, 3, 3, 3], weights of the network's first convolution.
        mpp_um: size of a pixel of the patches in um.

    Raises:
        InputError: a slide's patches show no tissue at full size.
    """
    step = -(-len(found.patches) // _APPEARANCE_PATCHES)
    together = appearance_of(found.patches[::step], first_layer, mpp_um)
    distances = []
    for index, path in enumerate(found.inputs):
        own = found.patches[found.of_input == index][::step]
        try:
            distances.append(_distance(appearance_of(own, first_layer, mpp_um), together))
        except InputError as error:
            raise InputError(f"{path}: {error}; or leave it out") from error
    worst = int(np.argmax(distances))
    return Slides(together, found.inputs[worst], distances[worst])


def objections_to_slides(found: TissuePatches, slides: Slides) -> list[str]:
    """What speaks against a set of patches before any network has seen them, a line each."""
    said = []
    if (count := len(found.inputs)) < MIN_INPUTS:
        said.append(
            f"slides or images with tissue: {count}, too few to stand for a scanner; give at least "
            f"{MIN_INPUTS}, better of as many patients"
        )
    elif slides.apart > MAX_APART:
        said.append(
            f"{slides.farthest} is stained unlike the others together (by {slides.apart:.1f}, "
            f"at most {MAX_APART:g}); adapt to one scanner and stain at a time, and leave it out"
        )
    return said


def objections_to_labels(
    before: Predicted,
    names: Sequence[str],
    after: Predicted | None = None,
    training_shares: Sequence[float] | None = None,
) -> list[str]:
    """What speaks against it by the label maps before and, once there are any, after adaptation.

    `training_shares` are those of the classes in the training set, where they are known.
    """
    if after is None:
        return _one_class(before, names, "as trained")
    said = _one_class(after, names, "once adapted")
    if training_shares is not None:
        said += _other_mix(before, after, names, training_shares)
    pairs = zip(
        names,
        shares_of(before.labels, len(names)),
        shares_of(after.labels, len(names)),
        strict=True,
    )
    for name, share, left in pairs:
        if share >= MIN_SHARE and left < MIN_KEPT * share:
            said.append(
                f"{name} would fall from {share:.1%} of the tissue to {left:.1%}; give slides that "
                "show more of it, or adapt less (`depth` b2, or a smaller `strength`)"
            )
    return said


def checks_of(before: Predicted, after: Predicted, apart: float) -> Checks:
    """The figures behind the objections."""
    classes = before.prob.shape[1]
    return Checks(
        agreement=_agreement(before, after),
        shares_before=shares_of(before.labels, classes),
        shares_after=shares_of(after.labels, classes),
        entropy_before=_entropy(before.prob),
        entropy_after=_entropy(after.prob),
        slides_apart=apart,
    )


def _one_class(predicted: Predicted, names: Sequence[str], when: str) -> list[str]:
    shares = shares_of(predicted.labels, len(names))
    largest = int(np.argmax(shares))
    if shares[largest] <= MAX_SHARE or len(names) == 1:
        return []
    return [
        f"the network, {when}, sees {names[largest]} in {shares[largest]:.1%} of the tissue, so "
        "that its statistics would be those of one class; give slides that show others too"
    ]


def _other_mix(
    before: Predicted, after: Predicted, names: Sequence[str], training_shares: Sequence[float]
) -> list[str]:
    """Tissue of other classes than the training set's, of which much would change its label."""
    shown = shares_of(before.labels, len(names))
    shifts = np.subtract(shown, training_shares)
    shift, agreement = float(np.abs(shifts).sum()) / 2, _agreement(before, after)
    if shift <= MAX_SHIFT or agreement >= MIN_AGREEMENT:
        return []
    most = int(np.abs(shifts).argmax())
    return [
        f"{names[most]} is {training_shares[most]:.1%} of what the network was trained on and "
        f"{shown[most]:.1%} of this tissue, of which only {agreement:.1%} would keep its label; "
        "give slides that show the classes in a mix more like it"
    ]


def _agreement(before: Predicted, after: Predicted) -> float:
    return float((before.labels == after.labels).mean())


def _distance(own: Appearance, all_of_them: Appearance) -> float:
    """Largest difference of mean optical density of a colour, in spreads of all tissue pixels."""
    differences = np.subtract(own.density_mean, all_of_them.density_mean)
    return float(np.abs(differences / np.maximum(all_of_them.density_spread, 1e-6)).max())


def _entropy(prob: NDArray[np.float32]) -> float:
    """Of the probabilities [P, N] that patches show classes, mean over both, in nats."""
    p = prob.astype(np.float64).clip(1e-12, 1 - 1e-12)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())
