"""Units of a slide, which are read and computed alone: tiles as published, or fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.geometry import BLOCK_CELLS, BLOCK_PX, PATCH_PX
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch, MaskBatch
from sshr_deploy.runtime.field_labels import field_rule, stacked_cams, to_halves
from sshr_deploy.runtime.pipeline.label_bands import FieldBands, tile_bands, tile_record
from sshr_deploy.runtime.pipeline.unit_store import Unit, UnitStore
from sshr_deploy.runtime.slides import SlideReader
from sshr_deploy.runtime.slides.fields import Field
from sshr_deploy.runtime.slides.grid import Tile
from sshr_deploy.runtime.slides.plan import FieldPlan, SlidePlan, SlideSurvey, read_field, read_tile
from sshr_deploy.runtime.writers.bands import Band

Output = CamBatch | MaskBatch
CheckStop = Callable[[], None]
"""Called often; what it raises ends the work."""


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
    def kept_px(self) -> float:
        """Pixels of the mask that a unit covers, on average."""
        ...

    @property
    def record_type(self) -> DTypeLike:
        """Of the records in the store."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Of the records of all units in the store."""
        ...

    def input_px(self, unit: Unit) -> int:
        """Pixels that the network takes of a unit."""
        ...

    def part(self, first: int, count: int) -> Units:
        """So many of the units from the first on, as if there were no tissue beside them."""
        ...

    def read(self, reader: SlideReader, unit: Unit) -> NDArray[np.uint8]:
        """Pixels of a unit, RGB [height_px, width_px, 3].

        Raises:
            InputError: the file is damaged there.
        """
        ...

    def record(self, output: Output, index: int) -> NDArray[np.generic]:
        """What is kept of unit `index` of a batch."""
        ...

    def bands(self, store: UnitStore, check_stop: CheckStop = lambda: None) -> Iterator[Band]:
        """Labels and probabilities of the slide from the records of all units.

        `check_stop` is called where a band takes long to come; what it raises ends it.

        Raises:
            OutputError: the store cannot be read.
        """
        ...


class TileUnits:
    """Tiles of 224 px, labelled each alone as published; see `Units`."""

    kept_px = float(PATCH_PX**2)
    record_type = np.uint8

    def __init__(self, plan: SlidePlan, profile: Profile) -> None:
        self.plan = plan
        self.total = plan.grid.rows * plan.grid.columns
        self._tiles: dict[Unit, Tile] = {(t.t_row, t.t_column): t for t in plan.tissue}
        self.places = list(self._tiles)
        self._profile = profile
        self.kept_bytes = (PATCH_PX + 1) * PATCH_PX * len(self.places)

    def input_px(self, unit: Unit) -> int:  # noqa: ARG002
        """See `Units.input_px`."""
        return PATCH_PX**2

    def part(self, first: int, count: int) -> TileUnits:
        """See `Units.part`."""
        chosen = [self._tiles[unit] for unit in self.places[first : first + count]]
        tissue = {tile: self.plan.tissue[tile] for tile in chosen}
        return TileUnits(replace(self.plan, tissue=tissue), self._profile)

    def read(self, reader: SlideReader, unit: Unit) -> NDArray[np.uint8]:
        """See `Units.read`."""
        return read_tile(reader, self.plan.mpp, self.plan.grid, self._tiles[unit])

    def record(self, output: Output, index: int) -> NDArray[np.generic]:
        """See `Units.record`."""
        assert isinstance(output, MaskBatch)
        return tile_record(output.labels[index], output.prob[index])

    def bands(self, store: UnitStore, check_stop: CheckStop = lambda: None) -> Iterator[Band]:  # noqa: ARG002
        """See `Units.bands`."""
        return tile_bands(self.plan, store, self._profile.num_classes)


class FieldUnits:
    """Fields, whose CAMs are kept and labelled together at the end; see `Units`."""

    record_type = np.float16

    def __init__(self, plan: FieldPlan, profile: Profile) -> None:
        self.plan, self.places = plan, plan.fields
        side = plan.geometry.core_px // BLOCK_PX
        rows, columns = (-(-blocks // side) for blocks in plan.blocks.shape)
        self.total = rows * columns
        kept = [field.rows * field.columns for field in plan.fields]
        self.kept_px = BLOCK_PX**2 * sum(kept) / max(len(kept), 1)
        self._rule, self._classes = field_rule(profile), profile.num_classes
        self._profile = profile
        values = (len(CAM_NAMES) + 1) * self._classes
        self.kept_bytes = 2 * values * BLOCK_CELLS**2 * sum(kept)

    def input_px(self, unit: Unit) -> int:
        """See `Units.input_px`."""
        field, margins = Field(*unit), 2 * self.plan.geometry.margin_px
        return (field.rows * BLOCK_PX + margins) * (field.columns * BLOCK_PX + margins)

    def part(self, first: int, count: int) -> FieldUnits:
        """See `Units.part`."""
        fields, blocks = self.places[first : first + count], np.zeros_like(self.plan.blocks)
        for field in fields:
            core = (
                slice(field.row, field.row + field.rows),
                slice(field.column, field.column + field.columns),
            )
            blocks[core] = self.plan.blocks[core]
        return FieldUnits(replace(self.plan, fields=fields, blocks=blocks), self._profile)

    def read(self, reader: SlideReader, unit: Unit) -> NDArray[np.uint8]:
        """See `Units.read`."""
        return read_field(reader, self.plan, Field(*unit))

    def record(self, output: Output, index: int) -> NDArray[np.generic]:
        """See `Units.record`."""
        assert isinstance(output, CamBatch)
        prob = to_halves(output.prob[index])
        cams = stacked_cams(output, index).reshape(-1, *prob.shape[1:])
        return np.concatenate([cams, prob]).transpose(1, 0, 2)

    def bands(self, store: UnitStore, check_stop: CheckStop = lambda: None) -> Iterator[Band]:
        """See `Units.bands`."""
        bands = FieldBands(self.plan, store, self._classes)
        yield from bands.bands(self._rule, bands.scales(self._rule.percentile, check_stop))
