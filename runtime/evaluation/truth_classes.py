"""Whether a split's label maps are of as many classes as a profile has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sshr_deploy.errors import ProfileError, UsageError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.split import TruthImage, read_mask
from sshr_deploy.runtime.patches import PATCH_SUFFIXES

_WHITE = (255, 255, 255)
_TRAINING = "training"
_MOST_NAMES = 1000
"""File names of the training folder that are looked at; one with labels is enough."""


def refuse_other_classes(
    folder: Path, images: Sequence[TruthImage], profile: Profile, *, may_relabel: bool = True
) -> None:
    """Refuse label maps in which the background has another label than in `profile`.

    Labels 0 to N alone do not tell: with a class too many in the profile, the background of the
    truth would be scored as that class. Two things do: the labels in the file names of `training`
    beside the split, and a palette that draws another label than N in white, as background is.

    Args:
        folder: the split, with `img` and `mask`.
        images: as `read_split` found them.
        profile: of the model.
        may_relabel: whether the caller has `relabel` to offer.

    Raises:
        UsageError: the truth is of another number of classes.
        InputError: a mask cannot be read.
    """
    why = _names_differ(folder.resolve().parent / _TRAINING, profile)
    if why is None:
        why = next(filter(None, (_palette_differs(item, profile) for item in images)), None)
    if why is not None:
        relabel = (
            f", or add `relabel` to count labels 0 to {profile.num_classes - 1} as the model's "
            "classes"
        )
        raise UsageError(
            f"{folder} has label maps of other classes: {why}; take a model of these classes"
            + (relabel if may_relabel else ", or a split of the model's")
        )


def _names_differ(training: Path, profile: Profile) -> str | None:
    for name in _names(training):
        if re.search(profile.label_pattern, name):
            try:
                profile.labels_in_name(name)
            except ProfileError as error:
                return f"{training}{os.sep}{error}"
            return None
    return None


def _names(training: Path) -> Iterator[str]:
    """Of the first patches of a training folder; none where there is no such folder."""
    left = _MOST_NAMES
    for _, _, names in os.walk(training):
        for name in sorted(names)[:left]:
            if Path(name).suffix.lower() in PATCH_SUFFIXES:
                yield name
        left -= len(names)
        if left <= 0:
            return


def _palette_differs(item: TruthImage, profile: Profile) -> str | None:
    background = _white_label(item.mask)
    count = profile.num_classes
    if background is None or background == count:
        return None
    if background < count and profile.classes[background].rgb == _WHITE:
        return None
    misread = min(background, count)
    if not np.any(read_mask(item.mask, count) == misread):
        return None
    return (
        f"{item.mask} draws label {background} in white, as background is; profile {profile.name} "
        f"has {count} classes, so that its background is label {count}"
    )


def _white_label(mask: Path) -> int | None:
    """The first of labels 0 to 16 that a PNG's palette draws in white; None without a palette."""
    with Image.open(mask, formats=("PNG",)) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    colours = [] if palette is None else list(zip(*[iter(palette[: 3 * 17])] * 3, strict=False))
    return colours.index(_WHITE) if _WHITE in colours else None
