"""A label mask as pyramidal OME-TIFF."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path
from sshr_deploy.profiles import Profile

TILE_PX = 512
_SMALLEST_LEVEL_PX = 512
# Classic TIFF ends at 4 GiB. Deflate hardly ever grows a tile, and the levels add a third.
_CLASSIC_TIFF_PX = 2 << 30


def write_ome_tiff(
    path: Path,
    mask: NDArray[np.uint8],  # [H, W]
    *,
    profile: Profile,
    mask_mpp_um: float,
    name: str,
) -> None:
    """Write a label mask as tiled, deflate-compressed, pyramidal OME-TIFF with a colour palette.

    One uint8 plane whose values are the labels: 0 to N-1 the classes, N the background. Levels
    halve (nearest pixel, so every level holds labels) until the longest side is at most 512 px.
    They lie in SubIFDs, as the OME-TIFF specification asks (Bio-Formats, tifffile); OpenSlide does
    not look there and sees level 0 only. The palette has the profile's colours: OpenSlide and most
    viewers apply it, Bio-Formats hands it on beside the labels. The pixel size is in the OME-XML
    (um) and in the TIFF resolution (pixels per cm), the class names in a MapAnnotation. Memory
    stays at a few MB whatever the mask's size.

    Args:
        path: file to write; replaced when it exists.
        mask: [H, W] uint8, may be a memory map; it is only read.
        profile: class names and colours.
        mask_mpp_um: um per mask pixel.
        name: the image's name in the OME-XML.

    Raises:
        OutputError: the file cannot be written.
    """
    levels = list(_levels(mask))
    with (
        atomic_path(path) as partial,
        partial.open("w+b") as file,
        tifffile.TiffWriter(file, ome=True, bigtiff=mask.size > _CLASSIC_TIFF_PX) as tiff,
    ):
        for index, level in enumerate(levels):
            tiff.write(
                _tiles(level, background=profile.num_classes),
                shape=level.shape,
                dtype=np.uint8,
                photometric="palette",
                colormap=_colormap(profile),
                tile=(TILE_PX, TILE_PX),
                compression="zlib",
                resolution=_px_per_cm(mask, level, mask_mpp_um),
                resolutionunit="CENTIMETER",
                software="sshr-deploy",
                subifds=len(levels) - 1 if index == 0 else None,
                subfiletype=1 if index else 0,
                metadata=None if index else _ome_metadata(profile, mask_mpp_um, name),
                maxworkers=1,  # with more, tifffile reads tiles ahead without a firm bound
            )


def _levels(mask: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Views of the mask at 1, 1/2, 1/4, ...: each pixel the one nearest to its block's middle."""
    height, width = mask.shape
    factor = 1
    while True:
        offset_y, offset_x = min(factor // 2, height - 1), min(factor // 2, width - 1)
        shape = max(1, height // factor), max(1, width // factor)
        yield mask[offset_y::factor, offset_x::factor][: shape[0], : shape[1]]
        if max(shape) <= _SMALLEST_LEVEL_PX:
            return
        factor *= 2


def _tiles(level: NDArray[np.uint8], background: int) -> Iterator[NDArray[np.uint8]]:
    height, width = level.shape
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            block = level[y : y + TILE_PX, x : x + TILE_PX]
            tile = np.full((TILE_PX, TILE_PX), background, np.uint8)
            tile[: block.shape[0], : block.shape[1]] = block
            yield tile


def _colormap(profile: Profile) -> NDArray[np.uint16]:  # [3, 256]
    colormap = np.zeros((3, 256), np.uint16)
    palette = np.asarray(profile.palette, np.uint16)
    colormap[:, : len(palette)] = palette.T * 257  # 8 to 16 bits: 255 -> 65535
    return colormap


def _px_per_cm(
    mask: NDArray[np.uint8], level: NDArray[np.uint8], mask_mpp_um: float
) -> tuple[float, float]:
    rows, columns = (small / full for small, full in zip(level.shape, mask.shape, strict=True))
    return columns * 1e4 / mask_mpp_um, rows * 1e4 / mask_mpp_um


def _ome_metadata(profile: Profile, mask_mpp_um: float, name: str) -> dict[str, Any]:
    names = [*(c.name for c in profile.classes), "background"]
    labels = {f"label {label}": _xml_text(class_name) for label, class_name in enumerate(names)}
    return {
        "axes": "YX",
        "UUID": str(uuid.uuid4()),
        "Creator": "sshr-deploy",
        "Name": _xml_text(name),
        "SignificantBits": max(1, profile.num_classes.bit_length()),
        "PhysicalSizeX": mask_mpp_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mask_mpp_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": "label"},
        "MapAnnotation": {
            "Namespace": "sshr-deploy/labels",
            "Value": {"profile": profile.name, **labels},
        },
    }


def _xml_text(text: str) -> str:
    """Replace what XML 1.0 cannot hold: control characters and lone surrogates of file names."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "?", text)
