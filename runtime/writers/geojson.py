"""Connected regions of a label mask as GeoJSON for QuPath."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path
from sshr_deploy.profiles import Profile

_ID_NAMESPACE = uuid.UUID("6f1d3c52-5a0e-4c53-9f0b-0d4f6a7c1e88")

_BLOCK_PX = 8192
"""8.2 mm at 1 um a pixel; tracing a block takes 25 MiB for smooth regions, 1 GiB at worst."""

Ring = Sequence[tuple[float, float]]


def write_geojson(
    path: Path,
    mask: NDArray[np.uint8],  # [H, W]
    *,
    profile: Profile,
    l0_px_per_mask_px: tuple[float, float],
) -> int:
    """Write every 4-connected region of one class as a polygon with holes, the background apart.

    The rings follow the pixels' edges exactly, so that areas in mask pixels are pixel counts.
    Coordinates are level-0 pixels from the slide's top left corner, with two decimals, which moves
    whole pixel rows and columns only and so keeps every polygon valid. Each feature has the members
    that QuPath 0.4 and later import: a UUID as `id` (the same for the same region in every run),
    `objectType` "annotation" and a `classification` of name and colour.

    The mask is traced in blocks of 8192 x 8192 pixels, so that memory does not grow with it: a
    region that crosses the border of two blocks is cut there in two.

    Args:
        path: file to write; replaced when it exists.
        mask: [H, W] uint8, labels 0 to N-1, N background; may be a memory map, it is only read.
        profile: class names and colours.
        l0_px_per_mask_px: level-0 pixels per mask pixel, (x, y).

    Returns:
        The number of regions.

    Raises:
        OutputError: the file cannot be written.
    """
    count = 0
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write('{"type":"FeatureCollection","features":[')
        for feature in _features(mask, profile, l0_px_per_mask_px):
            file.write(",\n" if count else "\n")
            file.write(feature)
            count += 1
        file.write("\n]}\n")
    return count


def _features(
    mask: NDArray[np.uint8], profile: Profile, l0_px_per_mask_px: tuple[float, float]
) -> Iterator[str]:
    height, width = mask.shape
    x_text = [f"[{x}," for x in _l0_coordinates(width, l0_px_per_mask_px[0])]
    y_text = [f"{y}]" for y in _l0_coordinates(height, l0_px_per_mask_px[1])]
    properties = [_properties(profile, label) for label in range(profile.num_classes)]
    for geometry, label in _shapes(mask):
        if label >= profile.num_classes:
            continue
        rings = (_ring_text(ring, x_text, y_text) for ring in geometry["coordinates"])
        coordinates = f"[{','.join(rings)}]"
        region_id = uuid.uuid5(_ID_NAMESPACE, f"{profile.name} {label} {coordinates}")
        yield (
            f'{{"type":"Feature","id":"{region_id}",'
            f'"geometry":{{"type":"Polygon","coordinates":{coordinates}}},'
            f'"properties":{properties[label]}}}'
        )


def _shapes(mask: NDArray[np.uint8]) -> Iterator[tuple[dict[str, Any], int]]:
    """Polygons in mask pixels, and their labels; the background is traced too, and dropped.

    GDAL's `mask` would take two more bytes a pixel to avoid that.
    """
    for y in range(0, mask.shape[0], _BLOCK_PX):
        for x in range(0, mask.shape[1], _BLOCK_PX):
            block = np.ascontiguousarray(mask[y : y + _BLOCK_PX, x : x + _BLOCK_PX])
            corner = rasterio.Affine.translation(x, y)
            for geometry, value in rasterio.features.shapes(
                block, connectivity=4, transform=corner
            ):
                yield geometry, int(value)


def _l0_coordinates(size_px: int, l0_px_per_mask_px: float) -> Iterator[str]:
    """Level-0 positions of all pixel edges: two decimals, more where steps are tiny."""
    decimals = max(2, math.ceil(-math.log10(l0_px_per_mask_px / 4)))
    for edge in range(size_px + 1):
        text = f"{edge * l0_px_per_mask_px:.{decimals}f}"
        yield text.rstrip("0").rstrip(".")


def _ring_text(ring: Ring, x_text: list[str], y_text: list[str]) -> str:
    return f"[{','.join([x_text[int(x)] + y_text[int(y)] for x, y in ring])}]"


def _properties(profile: Profile, label: int) -> str:
    tissue_class = profile.classes[label]
    classification = {"name": tissue_class.name, "color": list(tissue_class.rgb)}
    return json.dumps(
        {"objectType": "annotation", "classification": classification},
        ensure_ascii=False,
        separators=(",", ":"),
    )
