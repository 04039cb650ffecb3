"""Large images as fields that share their context, mirrored at the image's edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.geometry import BLOCK_CELLS, CELL_PX, Geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch, FieldRule
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    cell_scores,
    field_rule,
    labels_of,
    stacked_cams,
    to_halves,
)
from sshr_deploy.runtime.masks import gate
from sshr_deploy.runtime.pipeline.image_work import ImageWork, K, OnError, OpenImage, Part
from sshr_deploy.runtime.slides.area import resample

_STRIPE_CELLS = 64
"""Rows of cells that are labelled at once."""


class FieldImages(ImageWork[K]):
    """Images as fields of `geometry`, at the model's scale; of `sides` in blocks, ascending."""

    def __init__(
        self,
        profile: Profile,
        scale: float,
        on_error: OnError[K],
        geometry: Geometry,
        sides: Sequence[int],
    ) -> None:
        super().__init__(profile, scale, on_error)
        self.geometry, self._sides = geometry, [side * BLOCK_CELLS for side in sides]

    def open(
        self, key: K, rgb: NDArray[np.uint8]
    ) -> tuple[FieldImage[K], Iterator[tuple[Part, NDArray[np.uint8]]]]:
        """See `ImageWork.open`; parts are cores, in cells."""
        height, width = rgb.shape[:2]
        scaled = max(1, round(height * self.scale)), max(1, round(width * self.scale))
        cells = -(-scaled[0] // CELL_PX), -(-scaled[1] // CELL_PX)
        cores = list(_cores(cells, self._sides))
        image = FieldImage(key, (height, width), self.profile, scaled, len(cores))
        return image, self._fields(rgb, scaled, cores)

    def _fields(
        self, rgb: NDArray[np.uint8], scaled: tuple[int, int], cores: list[Part]
    ) -> Iterator[tuple[Part, NDArray[np.uint8]]]:
        margin = self.geometry.margin_px
        below, right = (
            end * CELL_PX + margin - side
            for end, side in zip((cores[-1].bottom, cores[-1].right), scaled, strict=True)
        )
        rgb = resample(rgb, scaled[1], scaled[0])
        padded = cv2.copyMakeBorder(rgb, margin, below, margin, right, cv2.BORDER_REFLECT_101)
        for core in cores:
            rows, columns = (
                slice(first * CELL_PX, last * CELL_PX + 2 * margin)
                for first, last in (core[:2], core[2:])
            )
            yield core, np.ascontiguousarray(padded[rows, columns], np.uint8)


class FieldImage(OpenImage[K]):
    """What the network says of an image's cells, field by field."""

    maps: NDArray[np.float16]  # [4, N, h, w]: three CAMs and the probabilities

    def __init__(
        self,
        key: K,
        size_px: tuple[int, int],
        profile: Profile,
        scaled_px: tuple[int, int],
        parts: int,
    ) -> None:
        super().__init__(key, size_px, profile, parts)
        self._scaled_px = scaled_px
        cells = (-(-side // CELL_PX) for side in scaled_px)
        # The three CAMs and the probabilities, which take a fifth of the image's own memory.
        self.maps = np.zeros((len(CAM_NAMES) + 1, profile.num_classes, *cells), np.float16)

    def put(self, place: Part, cams: CamBatch, index: int) -> None:
        """See `OpenImage.put`."""
        target = self.maps[:, :, place.top : place.bottom, place.left : place.right]
        height, width = target.shape[2:]
        target[:-1] = stacked_cams(cams, index)[:, :, :height, :width]
        prob = cams.prob[index][:, :height, :width]
        target[-1] = to_halves(prob)
        np.maximum(self.prob, prob.max((1, 2)), out=self.prob)
        self.on |= gate(prob, field_rule(self.profile).threshold, axis=0).any((1, 2))

    def mask(self) -> NDArray[np.uint8]:
        """See `OpenImage.mask`."""
        return self.labels(field_rule(self.profile))

    def labels(self, rule: FieldRule) -> NDArray[np.uint8]:
        """Labels [H, W] by a rule; each level is scaled over the whole image."""
        scales = LevelScales()
        scales.add(self.maps[:-1])
        scores = cell_scores(self.maps[:-1], self.maps[-1], scales.scales(rule.percentile), rule)
        height, width = self._scaled_px
        labels = np.empty((height, width), np.uint8)
        for top in range(0, scores.shape[1], _STRIPE_CELLS):
            halo = min(top, 1)
            stripe = labels_of(scores[:, top - halo : top + _STRIPE_CELLS + 1])
            part = labels[top * CELL_PX : (top + _STRIPE_CELLS) * CELL_PX]
            part[:] = stripe[halo * CELL_PX :][: len(part), :width]
        if self.size_px == self._scaled_px:
            return labels
        sized = cv2.resize(labels, self.size_px[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return sized.astype(np.uint8, copy=False)


def _cores(cells: tuple[int, int], sides: Sequence[int]) -> Iterator[Part]:
    """Cores of `sides`, in cells, that cover so many rows and columns of cells."""
    rows, columns = (list(_spans(count, sides)) for count in cells)
    for top, bottom in rows:
        for left, right in columns:
            yield Part(top, bottom, left, right)


def _spans(cells: int, sides: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and one past the last cell of each core along one axis.

    All are of the largest side but the last, which is as small as it may be and ends with the
    image; of an image smaller than a core, it reaches past the end.
    """
    for start in range(0, cells, sides[-1]):
        side = next((side for side in sides if side >= cells - start), sides[-1])
        first = start if start + side <= cells else max(0, cells - side)
        yield first, first + side
