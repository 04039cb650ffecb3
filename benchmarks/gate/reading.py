"""Survey of a slide, and the reading of its tiles and fields."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.benchmarks.gate.counting import Finding, cpu_ratio, tallied
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.geometry import PATCH_PX, field_geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.pipeline.unit_store import Unit
from sshr_deploy.runtime.pipeline.units import FieldUnits, TileUnits, Units
from sshr_deploy.runtime.slides import SlideReader, open_slide
from sshr_deploy.runtime.slides.plan import plan_fields, plan_tiles, survey_slide

SIDE_PX = 672
"""Of fields."""
TARGET_MPP_UM = 1.0
"""Coarser than the demo slide, so that a tile is shrunk, too."""
_TURNS = 10
_TILES, _FIELDS = 10, 2
_LIMIT = 1.05
"""Of what has to be read: a side may be off by a pixel."""


def check_reading(slide: Path, profile: Profile) -> Iterator[Finding]:
    """What is read for the survey, for each tile and for each field of a slide."""
    with open_slide(slide) as reader:
        with tallied(reader, "read_region", _pixels) as read:
            survey = survey_slide(reader, TARGET_MPP_UM)
        most = prod(reader.level_sizes_px[0])
        yield Finding("survey: pixels read", read.amount / most, _LIMIT, "of the slide's")
        shrink = TARGET_MPP_UM**2 / (survey.mpp.x_um * survey.mpp.y_um)
        tiles = TileUnits(plan_tiles(survey), profile).part(0, _TILES)
        fields = FieldUnits(plan_fields(survey, field_geometry(SIDE_PX)), profile).part(0, _FIELDS)
        for name, units in (("tiles", tiles), ("fields", fields)):
            with tallied(reader, "read_region", _pixels) as read:
                _read(units, reader)
            needed = shrink * sum(units.input_px(unit) for unit in units.places)
            yield Finding(f"{name}: pixels read", read.amount / needed, _LIMIT, "of those needed")
            yield Finding(f"{name}: calls of the reader", read.calls / len(units.places), 1, "each")
    yield Finding("tiles: processor time", _ratio(slide, tiles), 2.5, "of a plain loop's")


def _ratio(slide: Path, units: TileUnits) -> float:
    """Reading tiles of a slide that is opened anew, against OpenSlide and OpenCV alone."""
    places = [_Place.of(units, unit) for unit in units.places]

    def ours() -> list[NDArray[np.uint8]]:
        with open_slide(slide) as reader:
            return _read(units, reader)

    def plain() -> list[NDArray[np.uint8]]:
        with openslide.OpenSlide(slide) as opened:
            return [place.read(opened) for place in places]

    for tile, expected in zip(ours(), plain(), strict=True):
        if np.abs(tile.astype(int) - expected).mean() > 1:
            raise SshrDeployError("tiles differ from those of a plain loop")
    return cpu_ratio(ours, plain, _TURNS)


class _Place(NamedTuple):
    """A tile in pixels of level 0."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def of(cls, units: TileUnits, unit: Unit) -> _Place:
        x_scale, y_scale = units.plan.grid.l0_px_per_px
        edges = [
            round(place * PATCH_PX * scale)
            for place, scale in (
                (unit[1], x_scale),
                (unit[0], y_scale),
                (unit[1] + 1, x_scale),
                (unit[0] + 1, y_scale),
            )
        ]
        return cls(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])

    def read(self, slide: openslide.OpenSlide) -> NDArray[np.uint8]:
        image = slide.read_region((self.x, self.y), 0, (self.width, self.height))
        size = PATCH_PX, PATCH_PX
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(image, mask=image)
        return cv2.resize(np.asarray(on_white), size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _read(units: Units, reader: SlideReader) -> list[NDArray[np.uint8]]:
    return [units.read(reader, unit) for unit in units.places]


def _pixels(region: NDArray[np.uint8]) -> float:
    return float(region.shape[0] * region.shape[1])
