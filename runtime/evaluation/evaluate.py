"""Runs a session over a split with label maps and scores what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.kinds import default_batch
from sshr_deploy.runtime.evaluation.seams import Seams
from sshr_deploy.runtime.evaluation.sheet import Sample, make_sample
from sshr_deploy.runtime.evaluation.split import TruthImage, labels_of, read_truth
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.machine.read_ahead import read_ahead
from sshr_deploy.runtime.pipeline.images import parts_of, predict_images
from sshr_deploy.runtime.settings import LargeImages
from sshr_deploy.scores import Tally, confusion_matrix

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels, Pixels, str], tuple[Pixels, Pixels]]
"""RGB [H, W, 3], labels [H, W] and an image's name -> both as they are scored."""

_AHEAD = 4
"""Images that are read before they are asked for."""


def as_they_are(rgb: Pixels, truth: Pixels, _: str) -> tuple[Pixels, Pixels]:
    """The `Change` that changes nothing."""
    return rgb, truth


@dataclass(frozen=True)
class Evaluation:
    """Outcome of a split, or of one process's share of it."""

    tally: Tally
    tallies: tuple[Tally, ...]
    """Of each image, in their order; `tally` is their sum."""
    samples: tuple[Sample, ...]
    """A few images for `write_sheet`."""
    seams: Seams
    """At the borders of the parts that reference mode cuts images into (`parts_of`), where the
    truth is no background."""
    seconds: float
    """Reading, network and post-processing together."""


def evaluate_split(
    images: Sequence[TruthImage],
    session: Session,
    profile: Profile,
    *,
    fields: Callable[[], Session] | None = None,
    large: LargeImages = LargeImages.TILES,
    batch: int | None = None,
    samples: int = 6,
    change: Change = as_they_are,
    on_image: Callable[[TruthImage], None] = lambda _: None,
) -> Evaluation:
    """Compare what a network says of `images` with their label maps.

    With `fields`, large images go through the session that it gives (see `predict_images`).
    `batch` patches go through the network at a time, None for the engine's `default_batch`. Memory
    grows with it, not with the number of images. `samples` images, evenly spaced, are
    kept small for a picture. `change` is made to each image before anything is done with it, in a
    thread that reads. `on_image` is called after each image.

    Raises:
        InputError: a file cannot be used, which `read_split` would have told.
        SessionError: the engine fails.
    """

    def read(item: TruthImage) -> _Truth:
        return _Truth(item, *change(*read_truth(item, profile.num_classes), item.name))

    watch = Stopwatch()
    batch = batch or default_batch(session.info.engine)
    tallies: list[Tally] = []
    seams = Seams()
    shown = set(np.linspace(0, len(images) - 1, min(samples, len(images))).round().tolist())
    kept: list[Sample] = []
    with closing(read_ahead(images, read, ahead=_AHEAD)) as truths:
        predictions = predict_images(
            ((t, t.rgb) for t in truths), session, profile, large, batch, fields=fields
        )
        for index, ((item, rgb, truth), prediction) in enumerate(predictions):
            confusion = confusion_matrix(truth, prediction.mask, profile.num_classes)
            labels = labels_of(item, truth, profile)
            tallies.append(Tally.of_image(confusion, labels, prediction.prob))
            seams += _seams(truth, prediction.mask, profile.num_classes, large)
            if index in shown:
                kept.append(make_sample(item.name, rgb, truth, prediction.mask, confusion))
            on_image(item)
    tally = sum(tallies, Tally.empty(profile.num_classes))
    return Evaluation(tally, tuple(tallies), tuple(kept), seams, watch.seconds())


class _Truth(NamedTuple):
    item: TruthImage
    rgb: Pixels  # [H, W, 3]
    labels: Pixels  # [H, W]


def _seams(
    truth: Pixels,  # [H, W]
    mask: Pixels,  # [H, W]
    background: int,
    large: LargeImages,
) -> Seams:
    height, width = mask.shape
    parts = parts_of(height, width, large)
    scored = np.where(truth == background, truth, mask)
    rows, columns = {part.top for part in parts}, {part.left for part in parts}
    return Seams.of_mask(scored, background, rows=rows, columns=columns)
