"""Outlines of regions, by place: an index of `regions.geojson` in bounded memory.

The file may hold a million regions. The index knows where each lies on the slide and in the file,
40 bytes a region; corners are read when they are looked at, and the latest are kept.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.reader import mapped_read_errors

MAX_REGIONS = 2_000_000
_MAX_REGION_BYTES = 64 << 20
_MAX_KEPT_CORNERS = 4_000_000
"""Corners in memory: 32 MB."""
_MAX_SENT_CORNERS = 60_000

_COORDINATES = re.compile(rb'"coordinates"\s*:\s*')
_CLASSIFICATION = re.compile(rb'"classification"\s*:\s*(\{[^{}]*\})')
_BETWEEN_RINGS = re.compile(rb"\]\s*\]\s*,\s*\[\s*\[")

Corners = NDArray[np.float32]
"""[corners, 2]: x, y in level-0 pixels; the last corner of a ring is its first."""


class Box(NamedTuple):
    """Part of a slide, in level-0 pixels."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Line:
    """A stretch of an outline."""

    label: int
    corners: Corners


@dataclass(frozen=True)
class _Region:
    rings: list[Corners]
    measurements: Mapping[str, float]


class Outlines:
    """Regions of one slide; may be asked from any thread."""

    def __init__(self, path: Path, labels: Mapping[str, int]) -> None:
        """Read where the regions are; `labels` are those of the classes by name.

        Raises:
            InputError: the file is missing, not as `regions_sink` writes it, or has more than two
                million regions.
        """
        self._path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Region] = OrderedDict()
        self._kept_corners = 0
        self.left_out = 0
        """Regions of more than 64 MB in the file, which are not drawn."""
        boxes = array("f")  # x0, y0, x1, y1; arrays, as objects take ten times the memory
        places = array("q")  # offset, bytes, label
        fix, label_of = "run infer on the input again", _labels(labels)
        with mapped_read_errors(path, "cannot be read", fix), path.open("rb") as file:
            for offset, line in self._features(file):
                start, end = _coordinates(line)
                outer = _ring(line[start : line.index(b"]]", start, end)])
                boxes.extend([*outer.min(0).tolist(), *outer.max(0).tolist()])
                places.extend([offset, len(line), label_of(line[end:])])
                if len(boxes) > 4 * MAX_REGIONS:
                    raise InputError(f"{path} has more than {MAX_REGIONS:,} regions")
        self._boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self._places = np.asarray(places, np.int64).reshape(-1, 3)

    def _features(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Lines with a region, each with its offset; those that are too long are left out."""
        offset = 0
        while line := file.readline(_MAX_REGION_BYTES):
            start, is_feature = offset, line.startswith(b'{"type":"Feature"')
            offset += len(line)
            if len(line) == _MAX_REGION_BYTES and not line.endswith(b"\n"):
                self.left_out += is_feature
                while rest := file.readline(_MAX_REGION_BYTES):
                    offset += len(rest)
                    if rest.endswith(b"\n"):
                        break
            elif is_feature:
                yield start, line

    def lines(self, box: Box) -> tuple[list[Line], bool]:
        """The stretches of outlines in a box, and whether these are all but of `left_out`.

        Raises:
            InputError: the file is damaged there.
        """
        x0, y0, x1, y1 = self._boxes.T
        inside = (x0 <= box.x1) & (x1 >= box.x0) & (y0 <= box.y1) & (y1 >= box.y0)
        lines: list[Line] = []
        corners = 0
        for index in np.flatnonzero(inside).tolist():
            label = int(self._places[index, 2])
            for ring in self._region(index).rings:
                for part in _clipped(ring, box):
                    corners += len(part)
                    lines.append(Line(label, part))
            if corners > _MAX_SENT_CORNERS:
                return lines, False
        return lines, True

    def measurements(self, x: float, y: float, label: int) -> Mapping[str, float]:
        """Measurements of the region of a class at a place; none where there is no such region.

        Raises:
            InputError: the file is damaged there.
        """
        x0, y0, x1, y1 = self._boxes.T
        around = (x0 <= x) & (x1 >= x) & (y0 <= y) & (y1 >= y) & (self._places[:, 2] == label)
        for index in np.flatnonzero(around).tolist():
            region = self._region(index)
            if sum(_crossings(ring, x, y) for ring in region.rings) % 2:
                return region.measurements
        return {}

    def _region(self, index: int) -> _Region:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        offset, count, _ = self._places[index].tolist()
        with mapped_read_errors(self._path, "cannot be read", "run infer on the input again"):
            with self._path.open("rb") as file:
                file.seek(offset)
                rings, properties = _parsed(file.read(count))
            region = _Region(rings, _numbers(properties.get("measurements")))
        with self._lock:
            if index not in self._kept:
                self._kept[index] = region
                self._kept_corners += _corner_count(region)
            while self._kept_corners > _MAX_KEPT_CORNERS and len(self._kept) > 1:
                self._kept_corners -= _corner_count(self._kept.popitem(last=False)[1])
        return region


def _corner_count(region: _Region) -> int:
    return sum(map(len, region.rings))


def _coordinates(line: bytes) -> tuple[int, int]:
    """Where the coordinates of a feature begin and end in its line."""
    found = _COORDINATES.search(line)
    if found is None:
        raise ValueError("a region has no coordinates")
    return found.end(), line.index(b"}", found.end())


def _ring(text: bytes) -> Corners:
    """Corners of "[[[x,y],...": by NumPy, as lists of millions would take ten times the memory."""
    numbers = np.fromstring(text.translate(None, b"[] \t"), np.float64, sep=",")
    return numbers.astype(np.float32).reshape(-1, 2)


def _labels(by_name: Mapping[str, int]) -> Callable[[bytes], int]:
    """Reader of the label from what follows the coordinates; -1 for a class that is not known."""
    known: dict[bytes, int] = {}

    def label_of(tail: bytes) -> int:
        found = _CLASSIFICATION.search(tail)
        if found is None:
            raise ValueError("a region has no class")
        text = found[1]
        if text not in known:
            known[text] = by_name.get(json.loads(text)["name"], -1)
        return known[text]

    return label_of


def _parsed(line: bytes) -> tuple[list[Corners], dict[str, Any]]:
    """Rings and properties of a feature, which is a line of the file."""
    start, end = _coordinates(line)
    feature = json.loads(line[:start] + b"[]" + line[end:].rstrip(b",\r\n"))
    properties: dict[str, Any] = feature["properties"]
    return [_ring(ring) for ring in _BETWEEN_RINGS.split(line[start:end])], properties


def _numbers(measurements: object) -> dict[str, float]:
    """Measurements by name; QuPath has read a list of name and value, and a mapping."""
    if isinstance(measurements, list):
        measurements = {item["name"]: item["value"] for item in measurements}
    if not isinstance(measurements, dict):
        return {}
    return {k: float(v) for k, v in measurements.items() if isinstance(v, int | float)}


def _clipped(ring: Corners, box: Box) -> list[Corners]:
    """The stretches of a ring whose sides may touch a box."""
    x, y = ring.T
    outside = np.stack([x < box.x0, x > box.x1, y < box.y0, y > box.y1])
    sides = ~(outside[:, :-1] & outside[:, 1:]).any(0)
    if sides.all():
        return [ring]
    turns = np.flatnonzero(np.diff(np.concatenate([[False], sides, [False]]).view(np.int8)))
    return [ring[a : b + 1] for a, b in zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)]


def _crossings(ring: Corners, x: float, y: float) -> int:
    """Sides of a ring that a ray from (x, y) to the right crosses; odd inside."""
    (xa, ya), (xb, yb) = ring[:-1].T.astype(np.float64), ring[1:].T.astype(np.float64)
    spans = (ya > y) != (yb > y)
    xa, ya, xb, yb = xa[spans], ya[spans], xb[spans], yb[spans]
    return int(np.count_nonzero(x < xa + (y - ya) * (xb - xa) / (yb - ya)))
