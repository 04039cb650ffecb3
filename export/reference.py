"""Checkpoint and real patches -> the reference that every artefact is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sshr_deploy.errors import UsageError
from sshr_deploy.model import SSHR, predict
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.evaluation.split import read_split, read_truth
from sshr_deploy.runtime.evaluation.truth_classes import refuse_other_classes
from sshr_deploy.runtime.patches import PATCH_SUFFIXES, read_image, resize_to_patch
from sshr_deploy.runtime.pipeline.images import parts_of
from sshr_deploy.runtime.settings import LargeImages

MAX_PATCHES = 64
"""Patches without label maps: more would only cost time, the figures are worst cases already."""
MAX_PARTS = 128
"""Patches with label maps: mean IoU needs many pixels of every class. All travel in the bundle, so
that every machine judges by what the export judged by."""
MAX_WHOLE = 8
"""Images that fields are made of."""
_BATCH = 8

T = TypeVar("T")


class Whole(NamedTuple):
    """An image as it is, and its label map."""

    image: NDArray[np.uint8]  # RGB [H, W, 3]
    truth: NDArray[np.uint8] | None  # labels [H, W]


@dataclass(frozen=True)
class PatchSet:
    """Real patches, and where they came from."""

    images: Sequence[NDArray[np.uint8]]  # each RGB [H, W, 3]
    source: str
    truth: Sequence[NDArray[np.uint8]] | None = None  # each labels [H, W], N is background
    whole: Sequence[Whole] | None = None
    """Some of the images that the patches are parts of, to make fields of; None where fields are
    to be composed of the patches."""


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]


def shipped_patches() -> PatchSet:
    """Six crops of a CC0 H&E slide that come with the package."""
    folder = resources.files("sshr_deploy.export").joinpath("qualification")
    with resources.as_file(folder) as path:
        return PatchSet(
            [read_image(p) for p in sorted(path.glob("*.png"))], "CMU-1-Small-Region crops (CC0)"
        )


def patches_from_folder(folder: Path, profile: Profile, *, relabel: bool = False) -> PatchSet:
    """Patches to qualify on: a split with label maps (`img/` and `mask/`), or a folder of images.

    Images of a split are cut as `sshr-deploy evaluate` does; 128 parts are kept, evenly spaced. Of
    images without label maps the first 64 by name are taken whole. `relabel` takes the label maps
    for those of the profile's classes, whatever they seem to be.

    Raises:
        UsageError: there is no image; or a truth of other classes, see `refuse_other_classes`.
        DatasetError: a split that cannot be used, see `read_split`.
        InputError: an image cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give a folder of patch images")
    if (folder / "img").is_dir() and (folder / "mask").is_dir():
        return _patches_from_split(folder, profile, relabel=relabel)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PATCH_SUFFIXES)[:MAX_PATCHES]
    if not paths:
        raise UsageError(f"{folder} holds no PNG or JPEG image; give a folder of patches")
    images = [read_image(p) for p in paths]
    return PatchSet(
        images, folder.name, whole=[Whole(image, None) for image in evenly(images, MAX_WHOLE)]
    )


def reference_from(model: SSHR, patches: PatchSet) -> ReferenceSet:
    """The outputs of the network for `patches`: in its plain form, FP32, where the weights are.

    Of the exported graph's code it shares the layers and the steps around them (`Inference`), but
    neither the form of HFRM nor the normalisation.
    """
    resized = np.stack([resize_to_patch(image) for image in patches.images])
    batches = [
        torch_cams(model, resized[start : start + _BATCH])
        for start in range(0, len(resized), _BATCH)
    ]
    names = (*CAM_NAMES, "prob")
    return ReferenceSet(
        patches=resized,
        sizes_px=np.array([image.shape[:2] for image in patches.images], np.int64),
        cams=CamBatch(*(np.concatenate([getattr(b, name) for b in batches]) for name in names)),
        made_by=f"PyTorch {torch.__version__} FP32, plain HFRM",
        source=patches.source,
        truth=None if patches.truth is None else tuple(patches.truth),
    )


def torch_cams(model: SSHR, patches: NDArray[np.uint8]) -> CamBatch:
    """uint8 RGB [B, 224, 224, 3] -> CAMs of the network in its plain form, FP32."""
    return CamBatch(*predict(model, patches))


def _patches_from_split(folder: Path, profile: Profile, *, relabel: bool) -> PatchSet:
    images: list[NDArray[np.uint8]] = []
    truth: list[NDArray[np.uint8]] = []
    whole: list[Whole] = []
    items = read_split(folder, profile)
    if not relabel:
        refuse_other_classes(folder, items, profile)
    of_fields = set(evenly(range(len(items)), MAX_WHOLE))
    for number, item in enumerate(items):
        rgb, mask = read_truth(item, profile.num_classes)
        if number in of_fields:
            whole.append(Whole(rgb, mask))
        for part in parts_of(mask.shape[0], mask.shape[1], LargeImages.TILES):
            area = slice(part.top, part.bottom), slice(part.left, part.right)
            images.append(rgb[area])
            truth.append(mask[area])
    return PatchSet(
        evenly(images, MAX_PARTS),
        f"{folder.name}, with label maps",
        evenly(truth, MAX_PARTS),
        whole,
    )
