"""Images of any size: cut into parts that are a patch each, and put together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import PATCH_PX, CamBatch, Session
from sshr_deploy.runtime.machine.clock import Stages, Stopwatch
from sshr_deploy.runtime.machine.read_ahead import batches
from sshr_deploy.runtime.masks import gate, reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.settings import CPU_BATCH, LargeImages

LARGE_PX = PATCH_PX * 3 // 2
"""Sides above this are cut, unless large images are taken whole."""

_K = TypeVar("_K")


class Part(NamedTuple):
    """A rectangle of an image, in pixels; the ends are not included."""

    top: int
    bottom: int
    left: int
    right: int


class Prediction(NamedTuple):
    """Label map and probabilities of one image."""

    mask: NDArray[np.uint8]  # [H, W], 0 to N-1
    prob: NDArray[np.float32]  # [N]; of a cut image the largest of its parts
    on: NDArray[np.bool_]  # [N]: the gate leaves the class on, in at least one part
    parts: int
    infer_s: float
    """Its share of the engine's time."""
    mask_s: float
    """Post-processing."""


def _raise(_: object, error: Exception) -> None:
    raise error


def predict_images(
    images: Iterable[tuple[_K, NDArray[np.uint8]]],  # key, RGB [H, W, 3]
    session: Session,
    profile: Profile,
    large: LargeImages = LargeImages.TILES,
    batch: int = CPU_BATCH,
    *,
    mpp_um: float | None = None,
    on_parts: Callable[[_K, int, int], None] = lambda *_: None,
    on_error: Callable[[_K, Exception], None] = _raise,
) -> Iterator[tuple[_K, Prediction]]:
    """Keys and predictions in the order of `images`, which are read as they are needed.

    Each part of an image (`parts_of`) is one patch: resized to 224 px, its CAMs upsampled to the
    part's own size, as published. `batch` patches go through the network at a time, of one image or
    of several: no more than `batch` images are held for each batch that the session has in flight.

    Args:
        images: any hashable or other key, and the pixels.
        session: the network.
        profile: its classes, gate and pixel size.
        large: whether large images are cut.
        batch: patches a call of the engine.
        mpp_um: pixel size of the images; None where it is not known, then their pixels are taken
            to be of the profile's size.
        on_parts: called with (key, parts done, all parts) of the first image that is not finished
            yet, after each batch that left one.
        on_error: called with (key, error) where an image cannot be resized or its mask not be
            made; it is then left out, and the rest goes on unless this raises, as the default does.

    Raises:
        SessionError: the engine fails.
    """
    work = _Work(profile, large, model_scale(profile, mpp_um), on_error)
    spent_s = 0.0
    results = session.stream(work.batches(images, batch))
    for parts, cams in work.stages.each("infer", results):
        before_s, spent_s = spent_s, work.stages.spent_s("infer")
        work.place(parts, cams, infer_s=spent_s - before_s)
        yield from work.finished()
        if work.unfinished:
            first = work.unfinished[0]
            on_parts(first.key, first.done, first.parts)


def model_scale(profile: Profile, mpp_um: float | None) -> float:
    """Pixels of the profile's size along one pixel of `mpp_um`; 1 where that is not known."""
    return 1.0 if mpp_um is None else mpp_um / profile.mpp_um


def is_large(height_px: int, width_px: int, scale: float = 1.0) -> bool:
    """Whether an image is cut, or shrunk where large images are taken whole (see `parts_of`)."""
    return max(height_px, width_px) * scale > LARGE_PX


def parts_of(height_px: int, width_px: int, large: LargeImages, scale: float = 1.0) -> list[Part]:
    """The parts that an image is predicted in, row by row; they cover it without overlap.

    A side above 336 px at the model's scale, which is `scale` times the image's own, is cut evenly
    into round(side / 224) parts, unless `large` is "whole".
    """
    rows, columns = (_cuts(side, large, scale) for side in (height_px, width_px))
    return [Part(*row, *column) for row in rows for column in columns]


class _Open(Generic[_K]):
    """An image that is not predicted to its end."""

    def __init__(self, key: _K, size_px: tuple[int, int], num_classes: int, parts: int) -> None:
        self.key = key
        self.mask = np.zeros(size_px, np.uint8)
        self.prob = np.zeros(num_classes, np.float32)
        self.on = np.zeros(num_classes, np.bool_)
        self.parts, self.done = parts, 0
        self.failed = False
        self.infer_s = self.mask_s = 0.0

    def prediction(self) -> Prediction:
        return Prediction(self.mask, self.prob, self.on, self.parts, self.infer_s, self.mask_s)


class _PendingPart(NamedTuple, Generic[_K]):
    image: _Open[_K]
    place: Part
    patch: NDArray[np.uint8]  # [224, 224, 3]


class _Work(Generic[_K]):
    """Images on their way through the network, in order."""

    def __init__(
        self,
        profile: Profile,
        large: LargeImages,
        scale: float,
        on_error: Callable[[_K, Exception], None],
    ) -> None:
        self.profile, self.large, self.scale, self.on_error = profile, large, scale, on_error
        self.unfinished: deque[_Open[_K]] = deque()
        self.stages = Stages()

    def batches(
        self, images: Iterable[tuple[_K, NDArray[np.uint8]]], size: int
    ) -> Iterator[tuple[list[_PendingPart[_K]], NDArray[np.uint8]]]:
        for batch in self.stages.each("read", batches(self._parts(images), size)):
            yield batch, np.stack([part.patch for part in batch])

    def _parts(self, images: Iterable[tuple[_K, NDArray[np.uint8]]]) -> Iterator[_PendingPart[_K]]:
        for key, rgb in images:
            height, width = rgb.shape[:2]
            places = parts_of(height, width, self.large, self.scale)
            image = _Open(key, (height, width), self.profile.num_classes, len(places))
            self.unfinished.append(image)
            for place in places:
                patch = None
                with self._guarded(image):
                    patch = resize_to_patch(rgb[place.top : place.bottom, place.left : place.right])
                if patch is None or image.failed:
                    break
                yield _PendingPart(image, place, patch)

    def place(self, batch: Sequence[_PendingPart[_K]], cams: CamBatch, *, infer_s: float) -> None:
        """Put the label maps of a batch into their images."""
        for index, (image, place, _) in enumerate(batch):
            if image.failed:
                continue
            with self._guarded(image):
                watch = Stopwatch()
                image.mask[place.top : place.bottom, place.left : place.right] = reference_mask(
                    cams,
                    index,
                    self.profile,
                    height_px=place.bottom - place.top,
                    width_px=place.right - place.left,
                )
                np.maximum(image.prob, cams.prob[index], out=image.prob)
                image.on |= gate(cams.prob[index], self.profile.gate_threshold)
                image.done += 1
                image.infer_s += infer_s / len(batch)
                image.mask_s += watch.seconds()

    def finished(self) -> Iterator[tuple[_K, Prediction]]:
        """The images that are complete, up to the first that is not."""
        while self.unfinished and self.unfinished[0].done == self.unfinished[0].parts:
            image = self.unfinished.popleft()
            yield image.key, image.prediction()

    @contextmanager
    def _guarded(self, image: _Open[_K]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            image.failed = True
            self.unfinished.remove(image)
            self.on_error(image.key, error)


def _cuts(side_px: int, large: LargeImages, scale: float) -> list[tuple[int, int]]:
    side = side_px * scale
    cut = large == LargeImages.TILES and side > LARGE_PX
    count = round(side / PATCH_PX) if cut else 1
    ends = [side_px * i // count for i in range(count + 1)]
    return list(pairwise(ends))
