"""Connected regions of a label mask as GeoJSON for QuPath."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path, output_errors
from sshr_deploy.errors import InputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.writers.bands import bands_of
from sshr_deploy.runtime.writers.rings import MAX_SIDE_PX, Outlines, Ring, rings_of
from sshr_deploy.runtime.writers.tracing import RegionTracer

_ID_NAMESPACE = uuid.UUID("6f1d3c52-5a0e-4c53-9f0b-0d4f6a7c1e88")

_CHUNK = 1 << 16
"""Corners made text at a time; a region may have millions."""


class RegionsSink:
    """Writes the regions of a mask as soon as each is complete; see `regions_sink`."""

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        size_px: tuple[int, int],
        profile: Profile,
        l0_px_per_mask_px: tuple[float, float],
    ) -> None:
        if max(size_px) > MAX_SIDE_PX:
            raise InputError(
                f"a mask of {size_px[0]} x {size_px[1]} px is too large for regions: at most "
                f"{MAX_SIDE_PX} px a side; check the pixel size"
            )
        self.count = 0
        """Regions written so far."""
        self._path = path
        self._file = file
        self._profile_name = profile.name
        self._properties = [_properties(profile, label) for label in range(profile.num_classes)]
        self._rows_to_come = size_px[1]
        self._tracer = RegionTracer(size_px[0], profile.num_classes)
        self._x = [f"[{x}," for x in _l0_coordinates(size_px[0], l0_px_per_mask_px[0])]
        self._y = [f"{y}]" for y in _l0_coordinates(size_px[1], l0_px_per_mask_px[1])]
        file.write(b'{"type":"FeatureCollection","features":[')

    def put(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows of the mask, uint8 [rows, width_px].

        Raises:
            OutputError: the file cannot be written.
        """
        self._rows_to_come -= len(labels)
        with output_errors(self._path):
            self._write(self._tracer.put(labels))

    def finish(self) -> None:
        """Write the regions that end with the mask."""
        if self._rows_to_come:
            raise ValueError(f"{self._rows_to_come} rows of the mask did not come")
        self._write(self._tracer.finish())
        self._file.write(b"\n]}\n")

    def _write(self, complete: Iterable[Outlines]) -> None:
        for outlines in complete:
            for label, rings in rings_of(outlines):
                self._file.write(b",\n" if self.count else b"\n")
                self._write_feature(label, rings)
                self.count += 1

    def _write_feature(self, label: int, rings: list[Ring]) -> None:
        coordinates = [text.encode() for text in self._coordinates(rings)]
        # As uuid.uuid5, which wants all of the text at once.
        name = hashlib.sha1(_ID_NAMESPACE.bytes, usedforsecurity=False)
        name.update(f"{self._profile_name} {label} ".encode())
        for text in coordinates:
            name.update(text)
        region_id = uuid.UUID(bytes=name.digest()[:16], version=5)
        self._file.write(f'{{"type":"Feature","id":"{region_id}",'.encode())
        self._file.write(b'"geometry":{"type":"Polygon","coordinates":')
        self._file.writelines(coordinates)
        self._file.write(f'}},"properties":{self._properties[label]}}}'.encode())

    def _coordinates(self, rings: list[Ring]) -> Iterator[str]:
        opening = "[["
        for ring in rings:
            for start in range(0, len(ring.x), _CHUNK):
                x, y = (side[start : start + _CHUNK].tolist() for side in ring)
                places = [self._x[a] + self._y[b] for a, b in zip(x, y, strict=True)]
                yield f"{opening}{','.join(places)}"
                opening = ","
            yield f",{self._x[ring.x[0]]}{self._y[ring.y[0]]}]"
            opening = ",["
        yield "]"


@contextmanager
def regions_sink(
    path: Path,
    size_px: tuple[int, int],
    *,
    profile: Profile,
    l0_px_per_mask_px: tuple[float, float],
) -> Iterator[RegionsSink]:
    """Write every 4-connected region of one class as a polygon with holes, the background apart.

    The rings follow the pixels' edges exactly, so that areas in mask pixels are pixel counts.
    Coordinates are level-0 pixels from the slide's top left corner, with two decimals, which moves
    whole pixel rows and columns only and so keeps every polygon valid. Each feature has the members
    that QuPath 0.4 and later import: a UUID as `id` (the same for the same region in every run),
    `objectType` "annotation" and a `classification` of name and colour. They come by their lowest
    row, then by their first corner.

    Regions are joined over all bands. Memory holds the corners of those that are not complete yet
    (8 bytes each), and some 60 bytes a corner of the one that is written.

    Args:
        path: file to write; replaced when it exists, once all rows have come.
        size_px: of the mask, (width, height).
        profile: class names and colours.
        l0_px_per_mask_px: level-0 pixels per mask pixel, (x, y).

    Raises:
        InputError: the mask is more than a million pixels wide or high.
        OutputError: the file cannot be written.
        ValueError: the block was left before all rows had come.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        sink = RegionsSink(path, file, size_px, profile, l0_px_per_mask_px)
        yield sink
        sink.finish()


def write_geojson(
    path: Path,
    mask: NDArray[np.uint8],  # [H, W]
    *,
    profile: Profile,
    l0_px_per_mask_px: tuple[float, float],
) -> int:
    """Write the regions of a whole mask, uint8 [H, W]; returns their number. See `regions_sink`."""
    size_px = mask.shape[1], mask.shape[0]
    with regions_sink(path, size_px, profile=profile, l0_px_per_mask_px=l0_px_per_mask_px) as sink:
        for band in bands_of(mask):
            sink.put(band.labels)
    return sink.count


def _l0_coordinates(size_px: int, l0_px_per_mask_px: float) -> Iterator[str]:
    """Level-0 positions of all pixel edges: two decimals, more where steps are tiny."""
    decimals = max(2, math.ceil(-math.log10(l0_px_per_mask_px / 4)))
    for edge in range(size_px + 1):
        text = f"{edge * l0_px_per_mask_px:.{decimals}f}"
        yield text.rstrip("0").rstrip(".")


def _properties(profile: Profile, label: int) -> str:
    tissue_class = profile.classes[label]
    classification = {"name": tissue_class.name, "color": list(tissue_class.rgb)}
    return json.dumps(
        {"objectType": "annotation", "classification": classification},
        ensure_ascii=False,
        separators=(",", ":"),
    )
