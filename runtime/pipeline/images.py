"""Images of any size: cut into parts that are a patch each, and put together again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import PATCH_PX, Session
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
    """What the network says of one image."""

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
    of several: no more than `batch` images are held.

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
    scale = model_scale(profile, mpp_um)
    unfinished: deque[_Open[_K]] = deque()
    waiting: list[_PendingPart[_K]] = []

    @contextmanager
    def guarded(image: _Open[_K]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            image.failed = True
            unfinished.remove(image)
            on_error(image.key, error)

    for key, rgb in images:
        height, width = rgb.shape[:2]
        parts = parts_of(height, width, large, scale)
        image = _Open(key, (height, width), profile.num_classes, len(parts))
        unfinished.append(image)
        for part in parts:
            with guarded(image):
                patch = resize_to_patch(rgb[part.top : part.bottom, part.left : part.right])
                waiting.append(_PendingPart(image, part, patch))
            if len(waiting) == batch:
                _predict_parts(waiting, session, profile, guarded)
                waiting.clear()
                yield from _finished(unfinished)
                if unfinished:
                    on_parts(unfinished[0].key, unfinished[0].done, unfinished[0].parts)
            if image.failed:
                break
    if waiting:
        _predict_parts(waiting, session, profile, guarded)
        yield from _finished(unfinished)


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
    part: Part
    patch: NDArray[np.uint8]  # [224, 224, 3]


def _predict_parts(
    pending: Sequence[_PendingPart[_K]],
    session: Session,
    profile: Profile,
    guarded: Callable[[_Open[_K]], AbstractContextManager[None]],
) -> None:
    start = time.perf_counter()
    cams = session.infer(np.stack([p.patch for p in pending]))
    infer_s = (time.perf_counter() - start) / len(pending)
    for index, (image, part, _) in enumerate(pending):
        if image.failed:
            continue
        with guarded(image):
            start = time.perf_counter()
            image.mask[part.top : part.bottom, part.left : part.right] = reference_mask(
                cams,
                index,
                profile,
                height_px=part.bottom - part.top,
                width_px=part.right - part.left,
            )
            np.maximum(image.prob, cams.prob[index], out=image.prob)
            image.on |= gate(cams.prob[index], profile.gate_threshold)
            image.done += 1
            image.infer_s += infer_s
            image.mask_s += time.perf_counter() - start


def _finished(unfinished: deque[_Open[_K]]) -> Iterator[tuple[_K, Prediction]]:
    while unfinished and unfinished[0].done == unfinished[0].parts:
        image = unfinished.popleft()
        yield image.key, image.prediction()


def _cuts(side_px: int, large: LargeImages, scale: float) -> list[tuple[int, int]]:
    side = side_px * scale
    cut = large == LargeImages.TILES and side > LARGE_PX
    count = round(side / PATCH_PX) if cut else 1
    ends = [side_px * i // count for i in range(count + 1)]
    return list(pairwise(ends))
