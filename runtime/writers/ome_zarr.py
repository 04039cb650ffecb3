"""A label mask as OME-Zarr labels."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import output_errors, partial_folder, replace_folder, write_json
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.writers.bands import RowsToCome, tissue_columns
from sshr_deploy.runtime.writers.label_levels import LabelLevel, label_levels
from sshr_deploy.runtime.writers.tile_rows import Tile

CHUNK_PX = 1024
_GZIP_LEVEL = 6


class OmeZarrSink:
    """Writes the chunks of a mask's pyramid as its rows come; see `ome_zarr_sink`."""

    def __init__(self, path: Path, folder: Path, size_px: tuple[int, int], background: int) -> None:
        self._path, self._folder = path, folder
        self._background = background
        self.rows = RowsToCome(size_px[1])
        self.levels = label_levels(size_px, CHUNK_PX, background)
        self._values = np.append(np.arange(1, background + 1, dtype=np.uint8), np.uint8(0))
        """By label."""

    def put(self, labels: NDArray[np.uint8], prob: object = None) -> None:  # noqa: ARG002
        """Take the next rows of the mask, uint8 [rows, width_px].

        Raises:
            OutputError: the chunks cannot be written.
        """
        self.rows.take(labels)
        tissue = tissue_columns(labels, self._background)
        with output_errors(self._path):
            for index, level in enumerate(self.levels):
                for tile in level.put(labels, tissue):
                    self._write(index, tile)

    def _write(self, level: int, tile: Tile[np.uint8]) -> None:
        if tile.pixels is None:
            return
        chunk = self._folder / str(level) / "c" / str(tile.row) / str(tile.column)
        chunk.parent.mkdir(parents=True, exist_ok=True)
        values = self._values[tile.pixels]
        chunk.write_bytes(gzip.compress(values.tobytes(), _GZIP_LEVEL, mtime=0))


@contextmanager
def ome_zarr_sink(
    path: Path, size_px: tuple[int, int], *, profile: Profile, mask_mpp_um: float, name: str
) -> Iterator[OmeZarrSink]:
    """Write a label mask as an OME-Zarr image of labels (OME-NGFF 0.5, Zarr 3).

    Background is 0 and class n is n + 1, as viewers of labels expect it. The levels are those of
    mask.ome.tif. A chunk is a file of 1024 x 1024 px, gzip; there is none where all is background.
    Colours and class names are in `image-label`; the label image is the root of the folder, as
    there is no image for it to lie in.

    Args:
        path: folder to write; replaced when it exists, once all rows have come.
        size_px: of the mask, (width, height).
        profile: class names and colours.
        mask_mpp_um: um per mask pixel.
        name: of the slide.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: the block was left before all rows had come.
    """
    with output_errors(path), partial_folder(path) as folder:
        sink = OmeZarrSink(path, folder, size_px, profile.num_classes)
        yield sink
        sink.rows.check()
        for index, level in enumerate(sink.levels):
            write_json(folder / str(index) / "zarr.json", _array(level.shape))
        write_json(folder / "zarr.json", _group(sink.levels, profile, mask_mpp_um, name))
        replace_folder(folder, path)


def _array(shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK_PX, CHUNK_PX]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes"},
            {"name": "gzip", "configuration": {"level": _GZIP_LEVEL}},
        ],
        "dimension_names": ["y", "x"],
        "attributes": {},
    }


def _group(
    levels: list[LabelLevel], profile: Profile, mask_mpp_um: float, name: str
) -> dict[str, Any]:
    image = {
        "name": name.encode("utf-8", "replace").decode(),
        "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"],
        "datasets": [
            {"path": str(index), "coordinateTransformations": _transforms(level, mask_mpp_um)}
            for index, level in enumerate(levels)
        ],
        "type": "nearest",
    }
    labels = {
        "colors": [
            {"label-value": 0, "rgba": [255, 255, 255, 0]},
            *(
                {"label-value": value, "rgba": [*tissue.rgb, 255]}
                for value, tissue in enumerate(profile.classes, 1)
            ),
        ],
        "properties": [
            {"label-value": value, "name": class_name}
            for value, class_name in enumerate(("background", *profile.class_names))
        ],
    }
    ome = {"version": "0.5", "multiscales": [image], "image-label": labels}
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}


def _transforms(level: LabelLevel, mask_mpp_um: float) -> list[dict[str, Any]]:
    """um of a level's pixels, from the middle of the mask's first one."""
    scale = level.factor * mask_mpp_um
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [scale, scale]}]
    if level.factor > 1:
        shift = (level.factor - 1) / 2 * mask_mpp_um
        transforms.append({"type": "translation", "translation": [shift, shift]})
    return transforms
