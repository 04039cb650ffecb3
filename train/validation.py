"""Scores of the live network on the dataset's val split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from sshr_deploy.errors import DatasetError
from sshr_deploy.model import SSHR
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.split import TruthImage, read_split
from sshr_deploy.scores import Tally, mean_iou_error
from sshr_deploy.train.history import ValScores
from sshr_deploy.train.model_session import ModelSession
from sshr_deploy.train.processes import Processes

VAL_FOLDER = "val"


class Stopped(Exception):  # noqa: N818 - a request that is granted, not an error
    """Raised at a place where a run can stop and be resumed."""


def read_val_split(dataset: Path, profile: Profile) -> tuple[TruthImage, ...]:
    """Images and label maps of DATASET/val; none where there is no such folder.

    Raises:
        DatasetError: some of them cannot be used; all are listed.
    """
    folder = dataset / VAL_FOLDER
    if folder.is_symlink() and not folder.exists():
        raise DatasetError(f"{folder} is a link to nothing; mount its disk or remove it")
    return read_split(folder, profile) if folder.exists() else ()


def validate(
    model: SSHR,
    images: Sequence[TruthImage],
    profile: Profile,
    processes: Processes,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> ValScores:
    """Score `images` as `sshr-deploy evaluate` does, each process its share.

    Leaves `model` in evaluation mode. `on_image` is told (images done, images) of this process.

    Raises:
        SessionError: the network's outputs are not finite.
    """
    share = images[processes.rank :: processes.world]
    done = 0

    def count(_: TruthImage) -> None:
        nonlocal done
        done += 1
        on_image(done, len(share))

    found = evaluate_split(share, ModelSession(model), profile, samples=0, on_image=count)
    tallies = _gathered(found.tallies, len(images), profile.num_classes, processes)
    tally = sum(tallies, Tally.empty(profile.num_classes))
    scores = tally.scores()
    return ValScores(
        mean_iou=scores.mean_iou,
        mean_dice=scores.mean_dice,
        pixel_accuracy=scores.pixel_accuracy,
        label_accuracy=tally.label_accuracy,
        exact_match=tally.exact_match,
        class_iou=scores.class_iou,
        images=len(images),
        mean_iou_error=mean_iou_error([each.confusion for each in tallies]),
    )


def _gathered(
    own: Sequence[Tally], images: int, num_classes: int, processes: Processes
) -> list[Tally]:
    """Tallies of all images in their order, from each process's `own`."""
    vectors = np.zeros((images, len(Tally.empty(num_classes).to_vector())), np.int64)
    for vector, tally in zip(vectors[processes.rank :: processes.world], own, strict=True):
        vector[:] = tally.to_vector()
    summed = processes.total(torch.from_numpy(vectors)).numpy()
    return [Tally.from_vector(vector, num_classes) for vector in summed]
