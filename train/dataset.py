"""The training patches of a dataset folder, all checked before the first step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sshr_deploy.errors import DatasetError, InputError, ProfileError, first_line
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.patches import PATCH_SUFFIXES, read_image

TRAINING_FOLDER = "training"

_LAYOUT = f"a dataset holds {TRAINING_FOLDER}/ with PNG or JPEG patches named like x[1 0 1].png"
_MAX_THREADS = 8


@dataclass(frozen=True)
class TrainingPatch:
    """An image file that can be decoded, and its patch-level labels."""

    path: Path
    labels: tuple[int, ...]
    """One 0 or 1 a class, in the profile's order; all may be 0."""


def read_training_set(
    dataset: Path, profile: Profile, on_checked: Callable[[int, int], None] = lambda *_: None
) -> tuple[TrainingPatch, ...]:
    """All patches below DATASET/training, in the order of their relative names.

    Every image is decoded once here, so that a file that cannot be used shows before the first
    step. Hidden files and folders, and files that are no PNG or JPEG by name, are passed over.
    `on_checked` is told (files done, files).

    Raises:
        DatasetError: the folder is missing, cannot be listed or holds no image; or some files
            cannot be decoded or have no fitting labels: `problems` lists all of them.
    """
    root = dataset / TRAINING_FOLDER
    paths = _image_files(root)
    patches: list[TrainingPatch] = []
    problems: list[str] = []
    bad_files = 0
    with ThreadPoolExecutor(min(_MAX_THREADS, usable_cores())) as pool:
        try:
            checks = pool.map(lambda path: _check(path, root, profile), paths)
            for done, (path, (labels, found)) in enumerate(
                zip(paths, checks, strict=True), start=1
            ):
                patches.append(TrainingPatch(path, labels))
                problems += found
                bad_files += bool(found)
                on_checked(done, len(paths))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the whole dataset
    if problems:
        raise DatasetError(
            f"{bad_files} of {len(paths)} training files of {dataset} cannot be used; mend them "
            f"or move them away; the first: {problems[0]}",
            problems,
        )
    return tuple(patches)


def fingerprint(patches: Sequence[TrainingPatch], root: Path) -> str:
    """SHA-256, in hexadecimal, over names relative to `root`, labels and file sizes.

    It does not depend on where the dataset lies. Pixels are not read: an image that was replaced
    by another of the same size in bytes goes unnoticed.

    Raises:
        InputError: a file has gone.
    """
    digest = hashlib.sha256()
    for patch in patches:
        name = patch.path.relative_to(root).as_posix()
        try:
            size = patch.path.stat().st_size
        except OSError as error:
            raise InputError(f"{patch.path} cannot be read: {first_line(error)}") from error
        line = f"{name}\0{patch.labels}\0{size}\0"
        digest.update(line.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _image_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; {_LAYOUT}")
    found = []
    for folder, subfolders, names in os.walk(root, onerror=_refuse_folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in PATCH_SUFFIXES
        ]
    if not found:
        raise DatasetError(f"{root} holds no PNG or JPEG image; {_LAYOUT}")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _refuse_folder(error: OSError) -> NoReturn:
    raise DatasetError(
        f"{error.filename} cannot be listed: {error.strerror}; check your rights to it"
    ) from error


def _check(path: Path, root: Path, profile: Profile) -> tuple[tuple[int, ...], list[str]]:
    """Labels of a file, and what is wrong with it: a line each."""
    labels: tuple[int, ...] = ()
    problems = []
    try:
        labels = profile.labels_in_name(path.name)
    except ProfileError as error:
        folder = path.parent.relative_to(root).as_posix()
        problems.append(str(error) if folder == "." else f"{folder}/{error}".replace("\n", "\\n"))
    try:
        read_image(path)
    except InputError as error:
        problems.append(str(error))
    return labels, problems
