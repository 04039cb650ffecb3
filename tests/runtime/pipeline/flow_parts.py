"""Slides and a session for tests of the flow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile

from sshr_deploy.geometry import Geometry
from sshr_deploy.runtime.contract import CamBatch
from tests.runtime.colour_images import ColourSession, Pixels
from tests.runtime.small_slides import small_slide

FIELDS = Geometry(224, 56, 14, 14)
SEVERAL = Geometry(448, 56, 28, 14)
"""Of sides 224, 336 and 448."""
WAIT_S = 20.0
"""Longer than anything here takes: a wait that ends so is a failure."""


class Session(ColourSession):
    """Calls `before` ahead of each batch with the number of units that it has computed."""

    def __init__(self, geometry: Geometry = FIELDS, ahead: int = 0) -> None:
        super().__init__(geometry, any_side=geometry is SEVERAL)
        self.ahead = ahead
        self.before: Callable[[int], None] = lambda _: None

    def _compute(self, patches: Pixels) -> CamBatch:
        self.before(sum(self.batches))
        return super()._compute(patches)


def slides(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        small_slide(folder / f"{index}.tif", seed=index)
    return folder


def mask_of(out: Path, name: str) -> Any:
    return tifffile.imread(out / name / "mask.ome.tif")
