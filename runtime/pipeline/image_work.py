"""Images on their way through the network: cut into inputs, put together again, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, Session
from sshr_deploy.runtime.machine.clock import Stages, Stopwatch
from sshr_deploy.runtime.machine.read_ahead import batches

K = TypeVar("K")
OnError = Callable[[K, Exception], None]
OnParts = Callable[[K, int, int], None]


class Part(NamedTuple):
    """A rectangle of an image, in pixels or cells; the ends are not included."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Its pixels of an image [H, W, 3]; a view."""
        return rgb[self.top : self.bottom, self.left : self.right]


class Prediction(NamedTuple):
    """Label map and probabilities of one image."""

    mask: NDArray[np.uint8]  # [H, W], 0 to N-1
    prob: NDArray[np.float32]  # [N]; of several parts or windows the largest
    on: NDArray[np.bool_]  # [N]: the gate leaves the class on, in at least one place
    parts: int
    infer_s: float
    """Its share of the engine's time."""
    mask_s: float
    """Post-processing."""


class OpenImage(Generic[K]):
    """An image that is not predicted to its end."""

    def __init__(self, key: K, size_px: tuple[int, int], profile: Profile, parts: int) -> None:
        self.key, self.size_px, self.profile = key, size_px, profile
        self.prob = np.zeros(profile.num_classes, np.float32)
        self.on = np.zeros(profile.num_classes, np.bool_)
        self.parts, self.done = parts, 0
        self.failed = False
        self.infer_s = self.mask_s = 0.0

    def put(self, place: Part, cams: CamBatch, index: int) -> None:
        """Take what the network says of a part: input `index` of a batch."""
        raise NotImplementedError

    def mask(self) -> NDArray[np.uint8]:
        """Labels [H, W], once all parts are there."""
        raise NotImplementedError


class _Pending(NamedTuple, Generic[K]):
    image: OpenImage[K]
    place: Part
    pixels: NDArray[np.uint8]  # [height_px, width_px, 3]


class ImageWork(Generic[K]):
    """Images through one session."""

    def __init__(self, profile: Profile, scale: float, on_error: OnError[K]) -> None:
        self.profile, self.scale, self.on_error = profile, scale, on_error
        self._unfinished: deque[OpenImage[K]] = deque()
        self._stages = Stages()

    def open(
        self, key: K, rgb: NDArray[np.uint8]
    ) -> tuple[OpenImage[K], Iterator[tuple[Part, NDArray[np.uint8]]]]:
        """An image, and its parts as the network takes them."""
        raise NotImplementedError

    def predict(
        self,
        images: Iterable[tuple[K, NDArray[np.uint8]]],
        session: Session,
        batch: int,
        on_parts: OnParts[K],
    ) -> Iterator[tuple[K, Prediction]]:
        """See `predict_images`."""
        spent_s = self._stages.spent_s("infer")
        results = session.stream(self._batches(images, batch))
        for parts, cams in self._stages.each("infer", results):
            before_s, spent_s = spent_s, self._stages.spent_s("infer")
            self._place(parts, cams, infer_s=spent_s - before_s)
            yield from self._finished()
            if self._unfinished:
                first = self._unfinished[0]
                on_parts(first.key, first.done, first.parts)

    def _batches(
        self, images: Iterable[tuple[K, NDArray[np.uint8]]], size: int
    ) -> Iterator[tuple[list[_Pending[K]], NDArray[np.uint8]]]:
        for batch in self._stages.each("read", _batches(self._parts(images), size)):
            yield batch, np.stack([part.pixels for part in batch])

    def _parts(self, images: Iterable[tuple[K, NDArray[np.uint8]]]) -> Iterator[_Pending[K]]:
        for key, rgb in images:
            image, parts = self.open(key, rgb)
            self._unfinished.append(image)
            while True:
                part = None
                with self._guarded(image):
                    part = next(parts, None)
                if part is None or image.failed:
                    break
                yield _Pending(image, *part)

    def _place(self, batch: Sequence[_Pending[K]], cams: CamBatch, *, infer_s: float) -> None:
        for index, (image, place, _) in enumerate(batch):
            if image.failed:
                continue
            with self._guarded(image):
                watch = Stopwatch()
                image.put(place, cams, index)
                image.done += 1
                image.infer_s += infer_s / len(batch)
                image.mask_s += watch.seconds()

    def _finished(self) -> Iterator[tuple[K, Prediction]]:
        """The images that are complete, up to the first that is not."""
        while self._unfinished and self._unfinished[0].done == self._unfinished[0].parts:
            image, mask = self._unfinished[0], None
            with self._guarded(image):
                watch = Stopwatch()
                mask = image.mask()
                image.mask_s += watch.seconds()
            if mask is not None:
                self._unfinished.popleft()
                times = image.infer_s, image.mask_s
                yield image.key, Prediction(mask, image.prob, image.on, image.parts, *times)

    @contextmanager
    def _guarded(self, image: OpenImage[K]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            image.failed = True
            self._unfinished.remove(image)
            self.on_error(image.key, error)


def _batches(parts: Iterable[_Pending[K]], size: int) -> Iterator[list[_Pending[K]]]:
    """At most `size` parts each, all of the same height and width."""
    for _, equal in groupby(parts, lambda part: part.pixels.shape):
        yield from batches(equal, size)
