"""Units of a slide, which are read and computed alone: tiles as published, or fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.geometry import BLOCK_PX, PATCH_PX
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, MaskBatch
from sshr_deploy.runtime.field_labels import field_rule, stacked_cams, to_halves
from sshr_deploy.runtime.pipeline.label_bands import Band, FieldBands, tile_bands
from sshr_deploy.runtime.pipeline.unit_store import Unit, UnitStore
from sshr_deploy.runtime.slides import SlideReader
from sshr_deploy.runtime.slides.fields import Field
from sshr_deploy.runtime.slides.plan import FieldPlan, SlidePlan, SlideSurvey, read_field, read_tile

Output = CamBatch | MaskBatch


class Units(Protocol):
    """Units of one slide, and how their results are kept and become labels."""

    @property
    def plan(self) -> SlideSurvey:
        """Of the slide."""
        ...

    @property
    def places(self) -> Sequence[Unit]:
        """The units to compute, by rows."""
        ...

    @property
    def total(self) -> int:
        """Units of the whole slide, with glass."""
        ...

    @property
    def kept_px(self) -> int:
        """Along a side of what is kept of a unit, in pixels of the mask."""
        ...

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Of a record in the store."""
        ...

    @property
    def record_type(self) -> DTypeLike:
        """Likewise."""
        ...

    def read(self, reader: SlideReader, unit: Unit) -> NDArray[np.uint8]:
        """Pixels of a unit, RGB [side_px, side_px, 3].

        Raises:
            InputError: the file is damaged there.
        """
        ...

    def record(self, output: Output, index: int) -> NDArray[np.generic]:
        """What is kept of unit `index` of a batch."""
        ...

    def bands(self, store: UnitStore) -> Iterator[Band]:
        """Labels of the slide from the records of all units.

        Raises:
            OutputError: the store cannot be read.
        """
        ...


class TileUnits:
    """Tiles of 224 px, labelled each alone as published; see `Units`."""

    kept_px = PATCH_PX
    record_shape = (PATCH_PX, PATCH_PX)
    record_type = np.uint8

    def __init__(self, plan: SlidePlan, profile: Profile) -> None:
        self.plan = plan
        self.total = plan.grid.rows * plan.grid.columns
        self._tiles = {(tile.t_row, tile.t_column): tile for tile in plan.tissue}
        self.places = list(self._tiles)
        self._background = profile.num_classes

    def read(self, reader: SlideReader, unit: Unit) -> NDArray[np.uint8]:
        """See `Units.read`."""
        return read_tile(reader, self.plan.mpp, self.plan.grid, self._tiles[unit])

    def record(self, output: Output, index: int) -> NDArray[np.generic]:
        """See `Units.record`."""
        assert isinstance(output, MaskBatch)
        labels: NDArray[np.uint8] = output.labels[index]
        return labels

    def bands(self, store: UnitStore) -> Iterator[Band]:
        """See `Units.bands`."""
        return tile_bands(self.plan, store, self._background)


class FieldUnits:
    """Fields, whose CAMs are kept and labelled together at the end; see `Units`."""

    record_type = np.float16

    def __init__(self, plan: FieldPlan, profile: Profile) -> None:
        self.plan, self.places = plan, plan.fields
        core_px, cells = plan.geometry.core_px, plan.geometry.core_cells
        rows, columns = (-(-side // (core_px // BLOCK_PX)) for side in plan.blocks.shape)
        self.total = rows * columns
        self.kept_px = core_px
        self._rule, self._classes = field_rule(profile), profile.num_classes
        self.record_shape = (cells, 4 * self._classes, cells)

    def read(self, reader: SlideReader, unit: Unit) -> NDArray[np.uint8]:
        """See `Units.read`."""
        return read_field(reader, self.plan, Field(*unit))

    def record(self, output: Output, index: int) -> NDArray[np.generic]:
        """See `Units.record`."""
        assert isinstance(output, CamBatch)
        cells = self.plan.geometry.core_cells
        cams = stacked_cams(output, index).reshape(-1, cells, cells)
        return np.concatenate([cams, to_halves(output.prob[index])]).transpose(1, 0, 2)

    def bands(self, store: UnitStore) -> Iterator[Band]:
        """See `Units.bands`."""
        bands = FieldBands(self.plan, store, self._classes)
        yield from bands.bands(self._rule, bands.scales(self._rule.percentile))
