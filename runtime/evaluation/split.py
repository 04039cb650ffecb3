"""A split with label maps: `SPLIT/img/x.png` and `SPLIT/mask/x.png`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import DatasetError, InputError, ProfileError, first_line
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.patches import MAX_IMAGE_PIXELS, PATCH_SUFFIXES, read_image

_SPLIT_NAMES = ("val", "test")
_MASK_MODES = frozenset({"1", "L", "P"})
_MAX_THREADS = 8


@dataclass(frozen=True)
class TruthImage:
    """An image and its label map."""

    name: str
    """File name of the image."""
    image: Path
    mask: Path


def check_split(folder: Path) -> None:
    """Refuse a folder that is no split, before an engine is opened for it.

    Raises:
        DatasetError: no folders with images and masks.
    """
    _listing(folder)


def read_split(folder: Path, profile: Profile) -> tuple[TruthImage, ...]:
    """The images of a split by name, every one of them and its mask decoded once as a check.

    `folder/img` holds PNG or JPEG images, `folder/mask` a palette or grey PNG of the same name and
    size for each, with labels 0 to N-1 and N for background.

    Raises:
        DatasetError: no such folders, or files that cannot be used; `problems` lists all of them:
            an image without a mask or a mask without an image, unreadable files, sizes that differ,
            labels above N, labels in a file name that do not fit the profile.
    """
    images, masks = _listing(folder)
    by_stem = {mask.stem: mask for mask in masks}
    pairs = [
        TruthImage(i.name, i, by_stem.get(i.stem, folder / "mask" / f"{i.stem}.png"))
        for i in images
    ]
    problems = _pairing_problems(pairs, masks)
    there = set(masks)
    with ThreadPoolExecutor(min(_MAX_THREADS, usable_cores())) as pool:
        check = partial(_problems_of, profile=profile)
        scored = 0
        for found, pixels in pool.map(check, [p for p in pairs if p.mask in there]):
            problems += found
            scored += pixels
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems, the first"
        raise DatasetError(f"{folder} cannot be used, {count}: {problems[0]}", problems)
    if scored == 0:
        raise DatasetError(
            f"{folder} cannot be used: its masks hold background ({profile.num_classes}) only; "
            f"classes are 0 to {profile.num_classes - 1}"
        )
    return tuple(pairs)


def read_truth(item: TruthImage, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """RGB uint8 [H, W, 3] and labels uint8 [H, W] of one image, 0 to N-1 and N for background.

    Raises:
        InputError: a file cannot be read, the sizes differ, or a label is above N.
    """
    rgb = read_image(item.image)
    mask = read_mask(item.mask, num_classes)
    if mask.shape != rgb.shape[:2]:
        raise InputError(_sizes_differ(item, rgb, mask))
    return rgb, mask


def read_mask(path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Labels uint8 [H, W] of a palette or grey PNG: 0 to N-1, N for background.

    Raises:
        InputError: it is no such PNG, is larger than 25 Mpx, or holds a label above N.
    """
    expected = f"0 to {num_classes - 1} for the classes and {num_classes} for background"
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file; give a PNG mask")
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise InputError(f"{path} is {image.width} x {image.height} px, above 25 Mpx")
            if image.mode not in _MASK_MODES:
                raise InputError(
                    f"{path} has mode {image.mode}; save the mask as an 8-bit palette or grey PNG "
                    f"whose pixel values are {expected}"
                )
            mask = np.asarray(image).astype(np.uint8)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for broken PNG chunks.
        raise InputError(f"{path} cannot be read as a PNG mask: {first_line(error)}") from error
    if mask.max() > num_classes:
        raise InputError(f"{path} holds label {mask.max()}; expected are {expected}")
    return mask


def labels_of(
    item: TruthImage,
    mask: NDArray[np.uint8],  # [H, W]
    profile: Profile,
) -> tuple[int, ...]:
    """Image-level labels of 0 and 1: those in the file's name, else the classes of its mask.

    Raises:
        ProfileError: the name has labels, but not one for each class.
    """
    if re.search(profile.label_pattern, item.name):
        return profile.labels_in_name(item.name)
    there = np.bincount(mask.ravel(), minlength=profile.num_classes + 1)[: profile.num_classes]
    return tuple(int(count > 0) for count in there)


def _listing(folder: Path) -> tuple[list[Path], list[Path]]:
    if not ((folder / "img").is_dir() and (folder / "mask").is_dir()):
        inside = [folder / name for name in _SPLIT_NAMES if (folder / name / "img").is_dir()]
        fix = (
            f"give {' or '.join(map(str, inside))}"
            if inside
            else "give a folder that holds img and mask, as val and test of a data set do"
        )
        raise DatasetError(f"{folder} has no folders img and mask; {fix}")
    images = _files(folder / "img", PATCH_SUFFIXES)
    if not images:
        raise DatasetError(f"{folder / 'img'} holds no PNG or JPEG image; put the images there")
    return images, _files(folder / "mask", {".png"})


def _files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in suffixes and not path.name.startswith(".")
        )
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be read: {error.strerror}; check your rights to it"
        ) from error


def _pairing_problems(pairs: Sequence[TruthImage], masks: Sequence[Path]) -> list[str]:
    there, by_mask = set(masks), {pair.mask: pair for pair in pairs}
    problems = [f"{p.image} has no mask {p.mask}" for p in pairs if p.mask not in there]
    problems += [f"{mask} has no image of its name" for mask in masks if mask not in by_mask]
    for pair in pairs:
        if by_mask[pair.mask] is not pair:
            problems.append(f"{pair.image} and {by_mask[pair.mask].name} have one mask; rename one")
    return problems


def _problems_of(item: TruthImage, profile: Profile) -> tuple[list[str], int]:
    """Faults of a pair, a line each, and how many pixels of its mask are scored."""
    problems: list[str] = []
    rgb = mask = None
    try:
        rgb = read_image(item.image)
    except InputError as error:
        problems.append(str(error))
    try:
        mask = read_mask(item.mask, profile.num_classes)
    except InputError as error:
        problems.append(str(error))
    if rgb is not None and mask is not None:
        if mask.shape != rgb.shape[:2]:
            problems.append(_sizes_differ(item, rgb, mask))
        try:
            labels_of(item, mask, profile)
        except ProfileError as error:
            problems.append(str(error))
    return problems, 0 if mask is None else int((mask < profile.num_classes).sum())


def _sizes_differ(item: TruthImage, rgb: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    of_mask, of_image = (f"{a.shape[1]} x {a.shape[0]} px" for a in (mask, rgb))
    return f"{item.mask} is {of_mask}, its image {of_image}; they must be of one size"
