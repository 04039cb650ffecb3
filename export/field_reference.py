"""Real images -> fields, and what the PyTorch FP32 network says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sshr_deploy.export.reference import PatchSet, evenly
from sshr_deploy.geometry import PATCH_PX, Geometry
from sshr_deploy.model import SSHR, predict
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch
from sshr_deploy.runtime.engines.reference import ReferenceSet

MOSAICS = 2
"""Fields that are composed of patches: each holds many of them."""
MOST_FIELDS = 8
MOST_PX = 128 * PATCH_PX**2
"""Of all fields together, as many as the most patches have. They travel in the bundle."""


class Fields(NamedTuple):
    """Fields, and the label maps of their cores."""

    images: NDArray[np.uint8]  # [F, side_px, side_px, 3]
    truth: tuple[NDArray[np.uint8], ...] | None  # each [core_px, core_px]


def field_reference(model: SSHR, patches: PatchSet, geometry: Geometry) -> ReferenceSet:
    """The outputs of the network for fields made of `patches`: in its plain form, FP32.

    Fields go through it one by one: one takes the memory of all its patches.
    """
    fields = fields_of(patches, geometry)
    batches = [CamBatch(*predict(model, image[None], geometry)) for image in fields.images]
    names = (*CAM_NAMES, "prob")
    return ReferenceSet(
        patches=fields.images,
        sizes_px=np.full((len(fields.images), 2), geometry.core_px, np.int64),
        cams=CamBatch(*(np.concatenate([getattr(b, name) for b in batches]) for name in names)),
        made_by=f"PyTorch {torch.__version__} FP32, plain HFRM",
        source=patches.source,
        truth=fields.truth,
        geometry=geometry,
    )


def fields_of(patches: PatchSet, geometry: Geometry) -> Fields:
    """Images at their own scale as fields, evenly chosen; or mosaics of images that are patches."""
    if patches.whole is None:
        mosaics = [_mosaic(patches.images, number, geometry.side_px) for number in range(MOSAICS)]
        return Fields(np.stack(mosaics), None)
    most = min(MOST_FIELDS, max(MOSAICS, MOST_PX // geometry.side_px**2))
    chosen = evenly(patches.whole, most)
    images = np.stack([mirrored(item.image, geometry.side_px) for item in chosen])
    core = slice(geometry.margin_px, geometry.side_px - geometry.margin_px)
    maps = [
        mirrored(item.truth, geometry.side_px)[core, core]
        for item in chosen
        if item.truth is not None
    ]
    return Fields(images, tuple(maps) if maps else None)


def mirrored(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """An image or label map [H, W, ...] in the middle of a square: cut, or mirrored to fill it.

    The outermost pixels are not repeated where it is mirrored, as often as it takes.
    """
    rows, columns = (_mirrored_places(size, side_px) for size in image.shape[:2])
    return np.ascontiguousarray(image[rows][:, columns])


def _mirrored_places(size: int, side_px: int) -> NDArray[np.int64]:
    """For each of `side_px` places, the one of `size` that is seen there."""
    period = max(2 * (size - 1), 1)
    places = (np.arange(side_px) - (side_px - size) // 2) % period
    return np.minimum(places, period - places)


def _mosaic(images: Sequence[NDArray[np.uint8]], number: int, side_px: int) -> NDArray[np.uint8]:
    """A field of patches side by side, turned about so that no two of the same image are equal."""
    count = -(-side_px // PATCH_PX)
    turns: list[Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = [
        lambda part: part,
        np.fliplr,
        np.flipud,
        lambda part: part[::-1, ::-1],
    ]
    rows = []
    for row in range(count):
        parts = []
        for column in range(count):
            place = (number * count + row) * count + column
            part = mirrored(images[place % len(images)], PATCH_PX)
            parts.append(turns[place // len(images) % len(turns)](part))
        rows.append(np.concatenate(parts, 1))
    return np.concatenate(rows)[:side_px, :side_px]
