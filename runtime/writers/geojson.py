"""Connected regions of a label mask as GeoJSON for QuPath."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path, output_errors
from sshr_deploy.errors import InputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.writers.bands import RowsToCome
from sshr_deploy.runtime.writers.chains import simplified
from sshr_deploy.runtime.writers.rings import MAX_SIDE_PX, Outlines, Regions, joined, rings_of
from sshr_deploy.runtime.writers.sleeves import MAX_SHIFT_PX
from sshr_deploy.runtime.writers.tracing import PROB_UNIT, RegionTracer

MEAN_PROBABILITY = "Mean probability"
"""Name of the measurement in QuPath."""
_ID_NAMESPACE = uuid.UUID("6f1d3c52-5a0e-4c53-9f0b-0d4f6a7c1e88")

_CHUNK_POINTS = 1 << 16
"""Points made text at a time; a region may have millions."""

_BATCH_CORNERS = 1 << 16
"""Complete regions are written when they have so many corners: NumPy likes many at once.

A region has four at least, so with those of one more strip they are never too many to number.
"""


@dataclass(frozen=True)
class MaskScale:
    """Where a mask lies on its slide."""

    size_px: tuple[int, int]
    """Of the mask, (width, height)."""
    mpp_um: float
    """Side of a mask pixel, um."""
    l0_px_per_px: tuple[float, float]
    """Level-0 pixels per mask pixel, (x, y)."""


class RegionsSink:
    """Writes the regions of a mask as soon as each is complete; see `regions_sink`."""

    def __init__(
        self, path: Path, file: BinaryIO, scale: MaskScale, profile: Profile, outputs: Outputs
    ) -> None:
        if max(scale.size_px) > MAX_SIDE_PX:
            width, height = scale.size_px
            raise InputError(
                f"a mask of {width} x {height} px is too large for regions: at most "
                f"{MAX_SIDE_PX} px a side; check the pixel size"
            )
        self.count = 0
        """Regions written so far."""
        self._path, self._file, self._scale = path, file, scale
        self._profile_name = profile.name
        self._properties = [_properties(profile, label) for label in range(profile.num_classes)]
        wanted = outputs.classes or profile.class_names
        self._wanted = np.array([name in wanted for name in profile.class_names])
        self._min_px2 = outputs.min_region_um2 / scale.mpp_um**2
        self._simplifies = outputs.simplify_um >= MAX_SHIFT_PX * scale.mpp_um
        self._rows = RowsToCome(scale.size_px[1])
        self._tracer = RegionTracer(
            scale.size_px[0], profile.num_classes, junctions=self._simplifies
        )
        self._waiting: list[Outlines] = []
        self._waiting_corners = 0
        self._has_prob = False
        file.write(b'{"type":"FeatureCollection","features":[')

    def put(self, labels: NDArray[np.uint8], prob: NDArray[np.float16] | None = None) -> None:
        """Take the next rows of the mask, uint8 [rows, width_px], and the probabilities behind.

        Raises:
            OutputError: the file cannot be written.
        """
        self._rows.take(labels)
        self._has_prob |= prob is not None
        with output_errors(self._path):
            for outlines in self._tracer.put(labels, prob):
                self._take(outlines)

    def finish(self) -> None:
        """Write the regions that end with the mask."""
        self._rows.check()
        for outlines in self._tracer.finish():
            self._take(outlines)
        self._write()
        self._file.write(b"\n]}\n")

    def _take(self, outlines: Outlines) -> None:
        if not outlines.corners.size:
            return
        self._waiting.append(outlines)
        self._waiting_corners += len(outlines.corners)
        if self._waiting_corners >= _BATCH_CORNERS:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting, self._waiting_corners = self._waiting, [], 0
        if not waiting:
            return
        regions = rings_of(joined(waiting))
        kept = self._wanted[regions.labels] & (regions.areas_px2() >= self._min_px2)
        regions = regions.only(kept)
        if not len(regions.labels):
            return
        areas = regions.areas_px2()
        if self._simplifies:
            regions = regions._replace(rings=simplified(regions.rings))
        measured = self._measured(regions, areas)
        sides = zip(regions.rings[:2], self._scale.l0_px_per_px, strict=True)
        x, y = (np.round(side * l0_px, _decimals(l0_px)) for side, l0_px in sides)
        rings, ring = _Texts(x, y, regions.rings.ends.tolist()), 0
        ends = regions.ring_ends.tolist()
        for label, measures, end in zip(regions.labels.tolist(), measured, ends, strict=True):
            self._file.write(b",\n" if self.count else b"\n")
            self._write_feature(label, measures, rings.texts(ring, end))
            self.count += 1
            ring = end

    def _measured(self, regions: Regions, areas_px2: NDArray[np.float64]) -> Iterator[str]:
        """Measurements of each region, named as QuPath does, as members of JSON."""
        mpp_um = self._scale.mpp_um
        areas = np.round(areas_px2 * mpp_um**2, 3).tolist()
        perimeters = np.round(regions.perimeters_px() * mpp_um, 3).tolist()
        means = np.round(regions.prob_sums * PROB_UNIT / areas_px2, 4).tolist()
        for area, perimeter, mean in zip(areas, perimeters, means, strict=True):
            probability = f',"{MEAN_PROBABILITY}":{mean}' if self._has_prob else ""
            yield f'"Area \u00b5m^2":{area},"Perimeter \u00b5m":{perimeter}{probability}'

    def _write_feature(self, label: int, measures: str, coordinates: list[bytes]) -> None:
        # As uuid.uuid5, which wants all of the text at once.
        name = hashlib.sha1(_ID_NAMESPACE.bytes, usedforsecurity=False)
        name.update(f"{self._profile_name} {label} ".encode())
        for text in coordinates:
            name.update(text)
        region_id = uuid.UUID(bytes=name.digest()[:16], version=5)
        self._file.write(f'{{"type":"Feature","id":"{region_id}",'.encode())
        self._file.write(b'"geometry":{"type":"Polygon","coordinates":')
        self._file.writelines(coordinates)
        properties = f'{self._properties[label]},"measurements":{{{measures}}}}}'
        self._file.write(f'}},"properties":{properties}}}'.encode())


class _Texts:
    """Rings as JSON."""

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.float64], ends: list[int]) -> None:
        self._points, self._ends = np.stack([x, y], axis=1), ends

    def texts(self, first: int, end: int) -> list[bytes]:
        """Array of the rings from `first` to `end`, in pieces."""
        return list(self._pieces(first, end))

    def _pieces(self, first: int, end: int) -> Iterator[bytes]:
        start = self._ends[first - 1] if first else 0
        opening = "[["
        for ring_end in self._ends[first:end]:
            for piece in range(start, ring_end, _CHUNK_POINTS):
                points = self._points[piece : min(piece + _CHUNK_POINTS, ring_end)]
                yield f"{opening}{_text(points)[1:-1]}".encode()
                opening = ","
            yield f",{_text(self._points[start : start + 1])[1:]}".encode()
            start, opening = ring_end, ",["
        yield b"]"


def _text(points: NDArray[np.float64]) -> str:
    """JSON of [points, 2], whole numbers without a point."""
    text = json.dumps(points.tolist(), separators=(",", ":"))
    return text.replace(".0,", ",").replace(".0]", "]")


@contextmanager
def regions_sink(
    path: Path, scale: MaskScale, *, profile: Profile, outputs: Outputs
) -> Iterator[RegionsSink]:
    """Write every 4-connected region of one class as a polygon with holes, the background apart.

    Outlines follow the pixels' edges, or where `outputs.simplify_um` lets them lie 0.7 mask pixels
    away, run straight through most of their staircases (see `chains`): polygons stay valid,
    neighbours share their borders, and the area of a region of 10 px or more changes by less than
    1 %. They never lie further away, whatever is allowed.
    Regions that `outputs` leaves out leave their places empty.

    Coordinates are level-0 pixels from the slide's top left corner, with two decimals. Each feature
    has the members that QuPath 0.4 and later import: a UUID as `id` (the same for the same region
    in every run), `objectType` "annotation", a `classification` of name and colour, `isLocked` and
    `measurements`: the area of the region's pixels, the length of its outlines, holes included, and
    the mean probability of its class over its pixels. They come by their lowest row, then by their
    first corner.

    Regions are joined over all bands. Memory holds the corners of those that are not complete yet
    (8 bytes each), and the rings of those that are written: at least one region, however large.

    Args:
        path: file to write; replaced when it exists, once all rows have come.
        scale: of the mask.
        profile: class names and colours.
        outputs: which regions are written, and how closely they follow the pixels.

    Raises:
        InputError: the mask is more than half a million pixels wide or high.
        OutputError: the file cannot be written.
        ValueError: the block was left before all rows had come.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        sink = RegionsSink(path, file, scale, profile, outputs)
        yield sink
        sink.finish()


def _decimals(l0_px_per_px: float) -> int:
    """Of coordinates: a rounding moves them by at most 0.003 mask pixels."""
    return max(2, math.ceil(math.log10(170 / l0_px_per_px)))


def _properties(profile: Profile, label: int) -> str:
    """Properties of a region as JSON, without their end."""
    tissue_class = profile.classes[label]
    properties = {
        "objectType": "annotation",
        "classification": {"name": tissue_class.name, "color": list(tissue_class.rgb)},
        "isLocked": True,
    }
    return json.dumps(properties, ensure_ascii=False, separators=(",", ":"))[:-1]
