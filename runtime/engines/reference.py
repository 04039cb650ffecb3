"""Patches or fields with what PyTorch FP32 says of them: what every artefact is compared with.

It travels in the bundle (`reference.npz`, `reference-fields.npz`), so that a workstation without
PyTorch can qualify what it runs. The file is a plain, uncompressed .npz of arrays; nothing in it is
executed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import BundleError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import OUTPUT_NAMES, CamBatch

REFERENCE_NAME = "reference.npz"
FIELD_REFERENCE_NAME = "reference-fields.npz"
_FIX = "export the bundle again"
_MAX_SIDE_PX = 1 << 15


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """P patches, each the resized copy of an image (or a part of one) of `sizes_px`; or P fields.

    Of a field `sizes_px` and `truth` are those of its core.
    """

    patches: NDArray[np.uint8]  # [P, side_px, side_px, 3]
    sizes_px: NDArray[np.int64]  # [P, 2], height and width before the resize
    cams: CamBatch  # of P inputs, PyTorch FP32
    made_by: str
    """"PyTorch 2.13.0 FP32 on the CPU, plain HFRM"."""
    source: str
    """Where the patches came from."""
    truth: tuple[NDArray[np.uint8], ...] | None = None  # each [height, width], N is background
    geometry: Geometry = PATCH

    def __len__(self) -> int:
        return len(self.patches)


def write_reference(path: Path, reference: ReferenceSet) -> None:
    """Write `reference` as .npz.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, Any] = {
        "patches": reference.patches,
        "sizes_px": reference.sizes_px,
        "made_by": np.array(reference.made_by),
        "source": np.array(reference.source),
        **{name: getattr(reference.cams, name) for name in OUTPUT_NAMES},
    }
    if reference.truth is not None:
        arrays["truth"] = np.concatenate([mask.ravel() for mask in reference.truth])
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read_reference(path: Path, num_classes: int, geometry: Geometry = PATCH) -> ReferenceSet:
    """Read what `write_reference` wrote, for a network of `num_classes` classes.

    Raises:
        BundleError: the file is not that, or its arrays do not belong together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                raise ValueError("its arrays are compressed")  # could fill the memory
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        reference = replace(_from_arrays(content), geometry=geometry)
        _check(reference, num_classes)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is no reference set: {first_line(error)}; {_FIX}") from error
    return reference


def _from_arrays(content: dict[str, NDArray[Any]]) -> ReferenceSet:
    sizes = content["sizes_px"]
    truth = None
    if "truth" in content:
        ends = np.cumsum(sizes.prod(1))
        if not len(ends) or ends[-1] != content["truth"].size:
            raise ValueError("its label maps do not fit its sizes")
        parts: Sequence[NDArray[np.uint8]] = np.split(content["truth"], ends[:-1])
        truth = tuple(part.reshape(size) for part, size in zip(parts, sizes.tolist(), strict=True))
    return ReferenceSet(
        content["patches"],
        sizes,
        CamBatch(*(content[name] for name in OUTPUT_NAMES)),
        str(content["made_by"]),
        str(content["source"]),
        truth,
    )


def _check(reference: ReferenceSet, num_classes: int) -> None:
    count, geometry = len(reference.patches), reference.geometry
    cam = geometry.cam_shape(num_classes)
    wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
        "patches": (np.uint8, (count, *geometry.input_shape())),
        "sizes_px": (np.int64, (count, 2)),
        **dict.fromkeys(OUTPUT_NAMES, (np.float32, (count, *cam))),
        "prob": (np.float32, (count, *geometry.prob_shape(num_classes))),
    }
    for name, (dtype, shape) in wanted.items():
        array = getattr(reference, name, None)
        array = getattr(reference.cams, name) if array is None else array
        if count == 0 or array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
    if not all(np.isfinite(getattr(reference.cams, name)).all() for name in OUTPUT_NAMES):
        raise ValueError("its CAMs are not finite")
    if reference.sizes_px.min() < 1 or reference.sizes_px.max() > _MAX_SIDE_PX:
        raise ValueError("it has an image without pixels, or with too many")
    for mask in reference.truth or ():
        if mask.dtype != np.uint8 or int(mask.max()) > num_classes:
            raise ValueError("its label maps have labels above N")
