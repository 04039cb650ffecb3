"""Probabilities of the classes as a pyramidal TIFF of float16."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path, output_errors
from sshr_deploy.geometry import CELL_PX
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.writers.tile_rows import TileRows
from sshr_deploy.runtime.writers.tile_store import Place, TileStore

TILE_CELLS = 128
_BLANK = np.float16(0)
_CLASSIC_TIFF_BYTES = 2 << 30
"""Of the finest level; see `ome_tiff`."""


class ProbabilitySink:
    """Compresses the tiles of the pyramid as bands come; see `probability_sink`."""

    def __init__(
        self, path: Path, store: BinaryIO, classes: int, size_cells: tuple[int, int]
    ) -> None:
        self._path = path
        self.store = TileStore(store, np.full((TILE_CELLS, TILE_CELLS), _BLANK))
        width, height = size_cells
        self.levels = [_Level((classes, height, width), self.store)]
        while max(self.levels[-1].shape[1:]) > TILE_CELLS:
            height, width = (-(-side // 2) for side in (height, width))
            self.levels.append(_Level((classes, height, width), self.store))

    def put(self, labels: NDArray[np.uint8], prob: NDArray[np.float16] | None) -> None:
        """Take the next rows; all but the last ones are whole cells.

        Raises:
            OutputError: the tiles cannot be kept.
        """
        classes, _, width = self.levels[0].shape
        rows = prob
        if rows is None:
            rows = np.broadcast_to(_BLANK, (classes, -(-len(labels) // CELL_PX), width))
        with output_errors(self._path):
            for level in self.levels:
                rows = level.put(rows)

    def check_complete(self) -> None:
        """Raise ValueError if rows are missing."""
        if missing := self.levels[0].rows_to_come:
            raise ValueError(f"{missing} rows of cells did not come")


@contextmanager
def probability_sink(
    path: Path, size_px: tuple[int, int], *, profile: Profile, mask_mpp_um: float, name: str
) -> Iterator[ProbabilitySink]:
    """Write the probabilities of N classes as tiled, deflate-compressed, pyramidal TIFF.

    One page whose N planes, float16, are the classes in their order; a pixel covers a cell of
    8 x 8 px of the mask from its top left, and is 0 in all planes where the network saw nothing.
    Each smaller level, in SubIFDs, is half as large, rounded up: a pixel is the mean of those of
    its four that the network saw. The last has at most 128 pixels a side. Class names, their
    colours and the pixel size in um are in the description, as JSON in ASCII; the pixel size is in
    the TIFF resolution (pixels per cm) too. The same probabilities give the same file.

    Args:
        path: file to write; replaced when it exists, once all rows have come.
        size_px: of the mask, (width, height).
        profile: class names and colours.
        mask_mpp_um: um per mask pixel.
        name: of the slide.

    Raises:
        OutputError: the file cannot be written.
        ValueError: the block was left before all rows had come.
    """
    width, height = (-(-side // CELL_PX) for side in size_px)
    with atomic_path(path) as partial, tempfile.TemporaryFile(dir=path.parent) as store:
        sink = ProbabilitySink(path, store, profile.num_classes, (width, height))
        yield sink
        sink.check_complete()
        bigtiff = profile.num_classes * width * height * _BLANK.itemsize > _CLASSIC_TIFF_BYTES
        with partial.open("w+b") as file, tifffile.TiffWriter(file, bigtiff=bigtiff) as tiff:
            for index, level in enumerate(sink.levels):
                px_per_cm = 1e4 / (mask_mpp_um * CELL_PX * 2**index)
                tiff.write(
                    sink.store.get(level.places),
                    dtype=np.float16,
                    photometric="minisblack",
                    tile=(TILE_CELLS, TILE_CELLS),
                    compression="zlib",
                    resolution=(px_per_cm, px_per_cm),
                    resolutionunit="CENTIMETER",
                    software="sshr-deploy",
                    subifds=len(sink.levels) - 1 if index == 0 else None,
                    subfiletype=1 if index else 0,
                    description=None if index else _description(profile, mask_mpp_um, name),
                    metadata=None,
                    **_planes(level.shape),
                )


class _Level:
    """One level of the pyramid, [N, height, width] cells."""

    def __init__(self, shape: tuple[int, int, int], store: TileStore) -> None:
        self.shape = shape
        self.rows_to_come = shape[1]
        self._places: list[list[Place]] = []
        """By tile, then by class."""
        self._store = store
        self._tiles = TileRows(shape, TILE_CELLS, _BLANK)
        self._odd: NDArray[np.float16] = np.zeros((shape[0], 0, shape[2]), np.float16)
        """The row that waits for the next one, if any."""

    @property
    def places(self) -> Iterator[Place]:
        """Of all compressed tiles: class by class, row by row."""
        return (places[label] for label in range(self.shape[0]) for places in self._places)

    def put(self, rows: NDArray[np.float16]) -> NDArray[np.float16]:
        """Take the next rows [N, rows, width]; returns those of the next level."""
        self.rows_to_come -= rows.shape[1]
        columns = np.flatnonzero(rows.any(axis=(0, 1)))
        filled = slice(int(columns[0]), int(columns[-1]) + 1) if columns.size else slice(0, 0)
        for tile in self._tiles.put(rows, filled):
            planes = [None] * self.shape[0] if tile.pixels is None else tile.pixels
            self._places.append([self._store.add(plane) for plane in planes])
        rows = np.concatenate([self._odd, rows], axis=1) if self._odd.size else rows
        paired = rows.shape[1] - (rows.shape[1] % 2 if self.rows_to_come else 0)
        self._odd = rows[:, paired:].copy()
        return _halved(rows[:, :paired])


def _halved(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    """Means of 2 x 2 cells [N, rows, width] that are seen, 0 where none is."""
    classes, height, width = (rows.shape[0], *(-(-side // 2) for side in rows.shape[1:]))
    if not rows.any():
        return np.broadcast_to(_BLANK, (classes, height, width))
    padding = ((0, 0), (0, rows.shape[1] % 2), (0, rows.shape[2] % 2))
    blocks = np.pad(rows, padding).reshape(classes, height, 2, width, 2)
    seen = np.count_nonzero(blocks.any(axis=0), axis=(1, 3))
    sums: NDArray[np.float32] = blocks.sum(axis=(2, 4), dtype=np.float32)
    means: NDArray[np.float16] = (sums / np.maximum(seen, 1)).astype(np.float16)
    return means


def _planes(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Arguments of `TiffWriter.write`: it knows no planes where there is one."""
    if shape[0] == 1:
        return {"shape": shape[1:]}
    return {"shape": shape, "planarconfig": "separate"}


def _description(profile: Profile, mask_mpp_um: float, name: str) -> str:
    document = {
        "name": name,
        "profile": profile.name,
        "classes": [{"name": c.name, "color": c.color} for c in profile.classes],
        "pixel_um": mask_mpp_um * CELL_PX,
        "mask_px_per_pixel": CELL_PX,
    }
    return json.dumps(document)
