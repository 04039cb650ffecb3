"""Label maps of another number of classes are refused where that can be known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.errors import UsageError
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.evaluation.split import read_split
from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes

RED, GREEN, BLUE, YELLOW, WHITE = "#c00000", "#00c000", "#0000c0", "#c0c000", "#ffffff"
THREE, FOUR = load_profile("wsss4luad"), load_profile("luad")


def make_split(folder: Path, palette: tuple[str, ...], labels: tuple[int, ...]) -> Path:
    """One image whose mask has a stripe for each of `labels`; no palette, a grey mask."""
    for part in ("img", "mask"):
        (folder / part).mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "img" / "a.png")
    mask = Image.fromarray(np.resize(np.array(labels, np.uint8), (32, 32)))
    if palette:
        mask.putpalette(bytes.fromhex("".join(palette).replace("#", "")))
    mask.save(folder / "mask" / "a.png")
    return folder


def check(split: Path, profile: Profile) -> None:
    refuse_other_classes(split, read_split(split, profile), profile)


@pytest.mark.parametrize(
    ("palette", "labels", "profile", "drawn"),
    [
        ((RED, GREEN, BLUE, WHITE), (0, 1, 3), FOUR, 3),  # three classes read as four
        ((RED, GREEN, BLUE, YELLOW, WHITE), (0, 3), THREE, 4),  # a class read as background
        ((WHITE, RED, GREEN, BLUE), (0, 1), THREE, 0),  # background first
    ],
)
def test_a_palette_that_draws_another_label_in_white(
    tmp_path: Path, palette: tuple[str, ...], labels: tuple[int, ...], profile: Profile, drawn: int
) -> None:
    split = make_split(tmp_path / "val", palette, labels)
    with pytest.raises(UsageError, match=rf"a\.png draws label {drawn} in white.*`relabel`"):
        check(split, profile)


@pytest.mark.parametrize(
    ("palette", "labels", "profile"),
    [
        ((RED, GREEN, BLUE, WHITE), (0, 1, 2, 3), THREE),
        ((RED, GREEN, BLUE, WHITE), (0, 1, 2), FOUR),  # nothing of it is counted as a class
        ((RED, GREEN, BLUE, YELLOW, WHITE), (0, 3, 4), FOUR),
        ((RED, GREEN, BLUE, YELLOW), (0, 3, 4), FOUR),
        ((), (0, 1, 3), FOUR),  # cannot be known
    ],
)
def test_a_truth_that_fits_or_cannot_be_told(
    tmp_path: Path, palette: tuple[str, ...], labels: tuple[int, ...], profile: Profile
) -> None:
    check(make_split(tmp_path / "val", palette, labels), profile)


def test_a_class_that_is_white_in_the_profile_may_be_white_in_the_mask(tmp_path: Path) -> None:
    content = FOUR.model_dump()
    content["classes"][3]["color"] = "#FFFFFF"
    split = make_split(tmp_path / "val", (RED, GREEN, BLUE, WHITE), (0, 3))
    check(split, Profile.model_validate(content))


def test_labels_in_the_names_of_the_training_patches_beside_the_split(tmp_path: Path) -> None:
    split = make_split(tmp_path / "val", (), (0, 1, 3))
    deep = tmp_path / "training" / "site-1"
    deep.mkdir(parents=True)
    (tmp_path / "training" / "notes [1 2].txt").touch()
    (deep / "without.png").touch()
    check(split, FOUR)
    (deep / "x-[1, 0, 1].png").touch()
    check(split, THREE)
    words = r"training.x-\[1, 0, 1\]\.png has 3 labels, profile luad has 4 classes; .*`relabel`"
    with pytest.raises(UsageError, match=words):
        check(split, FOUR)
