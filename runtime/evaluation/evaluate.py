"""Runs a session over a split with label maps and scores what it says."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation import LargeImages
from sshr_deploy.runtime.evaluation.scores import Tally, confusion_matrix
from sshr_deploy.runtime.evaluation.sheet import Sample, make_sample
from sshr_deploy.runtime.evaluation.split import TruthImage, labels_of, read_truth
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.sessions.session import PATCH_PX, Session

LARGE_PX = PATCH_PX * 3 // 2
"""Sides above this are cut, unless large images are taken whole."""

_READERS = 2

_K = TypeVar("_K")


class Prediction(NamedTuple):
    """What the network says of one image."""

    mask: NDArray[np.uint8]  # [H, W], 0 to N-1
    prob: NDArray[np.float32]  # [N]; of a cut image the largest of its parts


class Part(NamedTuple):
    """A rectangle of an image, in pixels; the ends are not included."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Evaluation:
    """What came out of a split, or of one process's share of it."""

    tally: Tally
    samples: tuple[Sample, ...]
    """A few images for `write_sheet`."""
    seconds: float
    """Reading, network and post-processing together."""


def evaluate_split(
    images: Sequence[TruthImage],
    session: Session,
    profile: Profile,
    *,
    large: LargeImages = LargeImages.TILES,
    batch: int = 8,
    samples: int = 6,
    on_image: Callable[[TruthImage], None] = lambda _: None,
) -> Evaluation:
    """Compare what a network says of `images` with their label maps.

    Memory grows with `batch`, not with the number of images. `samples` images, evenly spaced, are
    kept small for a picture. `on_image` is called after each image.

    Raises:
        InputError: a file cannot be used, which `read_split` would have told.
        SessionError: the engine fails.
    """
    started = time.perf_counter()
    tally = Tally.empty(profile.num_classes)
    shown = set(np.linspace(0, len(images) - 1, min(samples, len(images))).round().tolist())
    kept: list[Sample] = []
    with ThreadPoolExecutor(_READERS) as pool:
        truths = _read_ahead(images, profile.num_classes, pool, 2 * _READERS)
        keyed = (((item, rgb, mask), rgb) for item, rgb, mask in truths)
        predictions = predict_images(keyed, session, profile, large, batch)
        for index, ((item, rgb, truth), prediction) in enumerate(predictions):
            confusion = confusion_matrix(truth, prediction.mask, profile.num_classes)
            tally += Tally.of_image(confusion, labels_of(item, truth, profile), prediction.prob)
            if index in shown:
                kept.append(make_sample(item.name, rgb, truth, prediction.mask, confusion))
            on_image(item)
    return Evaluation(tally, tuple(kept), time.perf_counter() - started)


def predict_images(
    images: Iterable[tuple[_K, NDArray[np.uint8]]],  # key, RGB [H, W, 3]
    session: Session,
    profile: Profile,
    large: LargeImages = LargeImages.TILES,
    batch: int = 8,
) -> Iterator[tuple[_K, Prediction]]:
    """Keys and predictions in the order of `images`, which are read as they are needed.

    Each part of an image (`parts_of`) is one patch: resized to 224 px, its CAMs upsampled to the
    part's own size, as published. `batch` patches go through the network at a time, of one image or
    of several.

    Raises:
        SessionError: the engine fails.
    """
    unfinished: deque[_Open[_K]] = deque()
    waiting: list[_PendingPart[_K]] = []
    for key, rgb in images:
        height, width = rgb.shape[:2]
        parts = parts_of(height, width, large)
        image = _Open(key, (height, width), profile.num_classes, len(parts))
        unfinished.append(image)
        for part in parts:
            patch = resize_to_patch(rgb[part.top : part.bottom, part.left : part.right])
            waiting.append(_PendingPart(image, part, patch))
            if len(waiting) == batch:
                _predict_parts(waiting, session, profile)
                waiting.clear()
                yield from _finished(unfinished)
    if waiting:
        _predict_parts(waiting, session, profile)
        yield from _finished(unfinished)


def parts_of(height_px: int, width_px: int, large: LargeImages) -> list[Part]:
    """The parts that an image is predicted in, row by row; they cover it without overlap.

    A side above 336 px is cut evenly into round(side / 224) parts, unless `large` is "whole".
    """
    rows, columns = (_cuts(side, large) for side in (height_px, width_px))
    return [Part(*row, *column) for row in rows for column in columns]


class _Open(Generic[_K]):
    """An image that is not predicted to its end."""

    def __init__(self, key: _K, size_px: tuple[int, int], num_classes: int, parts: int) -> None:
        self.key = key
        self.prediction = Prediction(np.zeros(size_px, np.uint8), np.zeros(num_classes, np.float32))
        self.parts_left = parts


class _PendingPart(NamedTuple, Generic[_K]):
    image: _Open[_K]
    part: Part
    patch: NDArray[np.uint8]  # [224, 224, 3]


def _predict_parts(pending: Sequence[_PendingPart[_K]], session: Session, profile: Profile) -> None:
    cams = session.infer(np.stack([p.patch for p in pending]))
    for index, (image, part, _) in enumerate(pending):
        mask, prob = image.prediction
        mask[part.top : part.bottom, part.left : part.right] = reference_mask(
            cams,
            index,
            profile,
            height_px=part.bottom - part.top,
            width_px=part.right - part.left,
        )
        np.maximum(prob, cams.prob[index], out=prob)
        image.parts_left -= 1


def _finished(unfinished: deque[_Open[_K]]) -> Iterator[tuple[_K, Prediction]]:
    while unfinished and unfinished[0].parts_left == 0:
        image = unfinished.popleft()
        yield image.key, image.prediction


def _cuts(side_px: int, large: LargeImages) -> list[tuple[int, int]]:
    cut = large == LargeImages.TILES and side_px > LARGE_PX
    count = round(side_px / PATCH_PX) if cut else 1
    ends = [side_px * i // count for i in range(count + 1)]
    return list(pairwise(ends))


def _read_ahead(
    images: Sequence[TruthImage], num_classes: int, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[TruthImage, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Image, RGB and labels in order; at most `ahead` are read before they are asked for."""
    reading: deque[tuple[TruthImage, Future[tuple[NDArray[np.uint8], NDArray[np.uint8]]]]] = deque()
    for item in images:
        reading.append((item, pool.submit(read_truth, item, num_classes)))
        if len(reading) > ahead:
            first, future = reading.popleft()
            yield (first, *future.result())
    for first, future in reading:
        yield (first, *future.result())
