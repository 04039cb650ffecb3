"""Images of any size: cut into parts that are a patch each, or into fields; and put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import PATCH_PX, CamBatch, Session
from sshr_deploy.runtime.engines.kind import inputs_for
from sshr_deploy.runtime.masks import gate, reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.pipeline.image_fields import FieldImages
from sshr_deploy.runtime.pipeline.image_work import (
    ImageWork,
    K,
    OnError,
    OnParts,
    OpenImage,
    Part,
    Prediction,
)
from sshr_deploy.runtime.settings import CPU_BATCH, LargeImages
from sshr_deploy.runtime.slides.fields import core_sides

LARGE_PX = PATCH_PX * 3 // 2
"""Sides above this are cut, unless large images are taken whole."""


def _raise(_: object, error: Exception) -> None:
    raise error


def predict_images(
    images: Iterable[tuple[K, NDArray[np.uint8]]],  # key, RGB [H, W, 3]
    session: Session,
    profile: Profile,
    large: LargeImages = LargeImages.TILES,
    batch: int = CPU_BATCH,
    *,
    fields: Callable[[], Session] | None = None,
    mpp_um: float | None = None,
    on_parts: OnParts[K] = lambda *_: None,
    on_error: OnError[K] = _raise,
) -> Iterator[tuple[K, Prediction]]:
    """Keys and predictions in the order of `images`, which are read as they are needed.

    Each part of an image (`parts_of`) is one patch: resized to 224 px, its CAMs upsampled to the
    part's own size, as published. `batch` patches go through the network at a time, of one image or
    of several: no more than `batch` images are held for each batch that the session has in flight.

    With `fields`, images that would be cut go through that one instead: at the model's
    scale, mirrored at their edges, each level of the CAMs scaled over the whole image (see
    `runtime.field_labels`).

    Args:
        images: any hashable or other key, and the pixels.
        session: the network of patches.
        profile: its classes, gate and pixel size.
        large: whether large images are cut.
        batch: patches a call of the engine; a field counts as so many as it holds.
        fields: gives the network of fields, for large images in seamless mode; called where there
            is one.
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
    patches = _PatchImages[K](profile, scale, on_error, large)
    if fields is None:
        return patches.predict(images, session, batch, on_parts)
    return _in_turns(images, patches, session, fields, batch, on_parts)


def _in_turns(
    images: Iterable[tuple[K, NDArray[np.uint8]]],
    patches: _PatchImages[K],
    session: Session,
    fields: Callable[[], Session],
    batch: int,
    on_parts: OnParts[K],
) -> Iterator[tuple[K, Prediction]]:
    """Images one after the other, those that would be cut as fields."""

    def is_cut(image: tuple[K, NDArray[np.uint8]]) -> bool:
        height, width = image[1].shape[:2]
        return len(parts_of(height, width, patches.large, patches.scale)) > 1

    for cut, group in groupby(images, is_cut):
        if not cut:
            yield from patches.predict(group, session, batch, on_parts)
            continue
        network = fields()
        work = FieldImages[K](
            patches.profile,
            patches.scale,
            patches.on_error,
            network.geometry,
            core_sides(network.geometry, any_side=network.any_side),
        )
        size = inputs_for(batch, network.geometry)
        yield from work.predict(group, network, size, on_parts)


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


class _PatchImages(ImageWork[K]):
    """Images in parts that are a patch each."""

    def __init__(
        self, profile: Profile, scale: float, on_error: OnError[K], large: LargeImages
    ) -> None:
        super().__init__(profile, scale, on_error)
        self.large = large

    def open(
        self, key: K, rgb: NDArray[np.uint8]
    ) -> tuple[OpenImage[K], Iterator[tuple[Part, NDArray[np.uint8]]]]:
        """See `ImageWork.open`."""
        height, width = rgb.shape[:2]
        places = parts_of(height, width, self.large, self.scale)
        parts = ((place, resize_to_patch(place.of(rgb))) for place in places)
        return _PatchImage(key, (height, width), self.profile, len(places)), parts


class _PatchImage(OpenImage[K]):
    def __init__(self, key: K, size_px: tuple[int, int], profile: Profile, parts: int) -> None:
        super().__init__(key, size_px, profile, parts)
        self._mask = np.zeros(size_px, np.uint8)

    def put(self, place: Part, cams: CamBatch, index: int) -> None:
        """See `OpenImage.put`."""
        self._mask[place.top : place.bottom, place.left : place.right] = reference_mask(
            cams,
            index,
            self.profile,
            height_px=place.bottom - place.top,
            width_px=place.right - place.left,
        )
        np.maximum(self.prob, cams.prob[index], out=self.prob)
        self.on |= gate(cams.prob[index], self.profile.gate_threshold)

    def mask(self) -> NDArray[np.uint8]:
        """See `OpenImage.mask`."""
        return self._mask


def _cuts(side_px: int, large: LargeImages, scale: float) -> list[tuple[int, int]]:
    side = side_px * scale
    cut = large == LargeImages.TILES and side > LARGE_PX
    count = round(side / PATCH_PX) if cut else 1
    ends = [side_px * i // count for i in range(count + 1)]
    return list(pairwise(ends))
