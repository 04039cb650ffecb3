"""A label mask as pyramidal OME-TIFF."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path, output_errors
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.writers.bands import bands_of, tissue_columns

TILE_PX = 512
_SMALLEST_LEVEL_PX = 512
_ID_NAMESPACE = uuid.UUID("0f0c3f1a-8a44-4a6e-9d0b-5b1f5a1c0b2d")
# Classic TIFF ends at 4 GiB. Deflate hardly ever grows a tile, and the levels add a third.
_CLASSIC_TIFF_PX = 2 << 30

_deflate = tifffile.TIFF.COMPRESSORS[tifffile.COMPRESSION.ADOBE_DEFLATE]


class OmeTiffSink:
    """Compresses the tiles of a mask's pyramid as its rows come; see `ome_tiff_sink`."""

    def __init__(
        self, path: Path, store: BinaryIO, size_px: tuple[int, int], background: int
    ) -> None:
        self._path = path
        self._background = background
        self._rows_to_come = size_px[1]
        tiles = _TileStore(store, background)
        self.levels = [_Level(size_px, factor, tiles) for factor in _factors(size_px)]

    def put(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows of the mask, uint8 [rows, width_px].

        Raises:
            OutputError: the tiles cannot be kept.
        """
        self._rows_to_come -= len(labels)
        tissue = tissue_columns(labels, self._background)
        with output_errors(self._path):
            for level in self.levels:
                level.put(labels, tissue)

    def content_id(self, metadata: dict[str, Any]) -> str:
        """A UUID of the labels, once all rows have come, and of what is said of them."""
        digest = hashlib.sha256(json.dumps([metadata, self.levels[0].shape]).encode())
        for tile in self.levels[0].tiles():
            digest.update(tile)
        return str(uuid.uuid5(_ID_NAMESPACE, digest.hexdigest()))

    def check_complete(self) -> None:
        """Raise ValueError if rows are missing."""
        if self._rows_to_come:
            raise ValueError(f"{self._rows_to_come} rows of the mask did not come")


@contextmanager
def ome_tiff_sink(
    path: Path,
    size_px: tuple[int, int],
    *,
    profile: Profile,
    mask_mpp_um: float,
    name: str,
) -> Iterator[OmeTiffSink]:
    """Write a label mask as tiled, deflate-compressed, pyramidal OME-TIFF with a colour palette.

    One uint8 plane whose values are the labels: 0 to N-1 the classes, N the background. Levels
    halve (nearest pixel, so every level holds labels) until the longest side is at most 512 px.
    They lie in SubIFDs, as the OME-TIFF specification asks (Bio-Formats, tifffile); OpenSlide does
    not look there and sees level 0 only. The palette has the profile's colours: OpenSlide and most
    viewers apply it, Bio-Formats hands it on beside the labels. The pixel size is in the OME-XML
    (um) and in the TIFF resolution (pixels per cm), the class names in a MapAnnotation. The file's
    UUID is made of its content: the same mask gives the same file, byte for byte.

    Compressed tiles wait in an unnamed file beside `path`, because a level is written as a whole;
    memory holds those tiles of the smaller levels that have tissue and are not full yet.

    Args:
        path: file to write; replaced when it exists, once all rows have come.
        size_px: of the mask, (width, height).
        profile: class names and colours.
        mask_mpp_um: um per mask pixel.
        name: the image's name in the OME-XML.

    Raises:
        OutputError: the file cannot be written.
        ValueError: the block was left before all rows had come.
    """
    with atomic_path(path) as partial, tempfile.TemporaryFile(dir=path.parent) as store:
        sink = OmeTiffSink(path, store, size_px, profile.num_classes)
        yield sink
        sink.check_complete()
        metadata = _ome_metadata(profile, mask_mpp_um, name)
        metadata["UUID"] = sink.content_id(metadata)
        bigtiff = size_px[0] * size_px[1] > _CLASSIC_TIFF_PX
        with (
            partial.open("w+b") as file,
            tifffile.TiffWriter(file, ome=True, bigtiff=bigtiff) as tiff,
        ):
            for index, level in enumerate(sink.levels):
                tiff.write(
                    level.tiles(),
                    shape=level.shape,
                    dtype=np.uint8,
                    photometric="palette",
                    colormap=_colormap(profile),
                    tile=(TILE_PX, TILE_PX),
                    compression="zlib",
                    resolution=_px_per_cm(size_px, level.shape, mask_mpp_um),
                    resolutionunit="CENTIMETER",
                    software="sshr-deploy",
                    subifds=len(sink.levels) - 1 if index == 0 else None,
                    subfiletype=1 if index else 0,
                    metadata=None if index else metadata,
                )


def write_ome_tiff(
    path: Path,
    mask: NDArray[np.uint8],  # [H, W]
    *,
    profile: Profile,
    mask_mpp_um: float,
    name: str,
) -> None:
    """Write a whole mask, uint8 [H, W]; see `ome_tiff_sink`."""
    size_px = mask.shape[1], mask.shape[0]
    with ome_tiff_sink(path, size_px, profile=profile, mask_mpp_um=mask_mpp_um, name=name) as sink:
        for band in bands_of(mask):
            sink.put(band.labels)


class _TileStore:
    """Compressed tiles in a file; those without tissue are alike and kept once."""

    def __init__(self, file: BinaryIO, background: int) -> None:
        self._file = file
        self.background = background
        self._blank: bytes = _deflate(np.full((TILE_PX, TILE_PX), background, np.uint8))

    def add(self, tile: NDArray[np.uint8] | None) -> tuple[int, int]:
        """Place and length of a tile, [512, 512], in the file; None is all background."""
        if tile is None:
            return 0, 0
        compressed = _deflate(tile)
        return self._file.tell(), self._file.write(compressed)

    def get(self, place: int, length: int) -> bytes:
        """What `add` kept there."""
        if not length:
            return self._blank
        self._file.seek(place)
        return self._file.read(length)


class _Level:
    """One level of the pyramid: each pixel the one nearest to its block's middle."""

    def __init__(self, size_px: tuple[int, int], factor: int, store: _TileStore) -> None:
        width, height = size_px
        self.shape = max(1, height // factor), max(1, width // factor)
        self._factor = factor
        self._left = min(factor // 2, width - 1)
        self._skip = min(factor // 2, height - 1)
        """Rows of the mask before the next one that this level takes."""
        self._rows = 0
        self._store = store
        self._open: dict[int, NDArray[np.uint8]] = {}
        """Tiles with tissue in the row of tiles under way, by column."""
        self._places: list[tuple[int, int]] = []

    def put(self, labels: NDArray[np.uint8], tissue: slice) -> None:
        """Take the next rows of the mask, of which the columns `tissue` are not background."""
        height, width = self.shape
        rows = labels[self._skip :: self._factor, self._left :: self._factor][:, :width]
        rows = rows[: height - self._rows]
        self._skip += len(rows) * self._factor - len(labels)
        while len(rows):
            room = TILE_PX - self._rows % TILE_PX
            self._put_tiles(rows[:room], tissue)
            rows = rows[room:]

    def _put_tiles(self, rows: NDArray[np.uint8], tissue: slice) -> None:
        """Take rows that lie in one row of tiles."""
        top = self._rows % TILE_PX
        self._rows += len(rows)
        is_full = self._rows % TILE_PX == 0 or self._rows == self.shape[0]
        for column in range(-(-self.shape[1] // TILE_PX)):
            block = rows[:, column * TILE_PX : (column + 1) * TILE_PX]
            tile = self._open.get(column)
            if tile is None and self._has_tissue(block, column, tissue):
                tile = np.full((TILE_PX, TILE_PX), self._store.background, np.uint8)
                self._open[column] = tile
            if tile is not None:
                tile[top : top + len(block), : block.shape[1]] = block
            if is_full:
                self._places.append(self._store.add(self._open.pop(column, None)))

    def _has_tissue(self, block: NDArray[np.uint8], column: int, tissue: slice) -> bool:
        side = TILE_PX * self._factor
        near = tissue.start < (column + 1) * side and tissue.stop > column * side
        return near and bool((block != self._store.background).any())

    def tiles(self) -> Iterator[bytes]:
        """All compressed tiles, row by row."""
        for place, length in self._places:
            yield self._store.get(place, length)


def _factors(size_px: tuple[int, int]) -> list[int]:
    """Of the levels: 1, 2, 4, ..."""
    factors = [1]
    while max(1, max(size_px) // factors[-1]) > _SMALLEST_LEVEL_PX:
        factors.append(2 * factors[-1])
    return factors


def _colormap(profile: Profile) -> NDArray[np.uint16]:  # [3, 256]
    colormap = np.zeros((3, 256), np.uint16)
    palette = np.asarray(profile.palette, np.uint16)
    colormap[:, : len(palette)] = palette.T * 257  # 8 to 16 bits: 255 -> 65535
    return colormap


def _px_per_cm(
    size_px: tuple[int, int], shape: tuple[int, int], mask_mpp_um: float
) -> tuple[float, float]:
    columns, rows = shape[1] / size_px[0], shape[0] / size_px[1]
    return columns * 1e4 / mask_mpp_um, rows * 1e4 / mask_mpp_um


def _ome_metadata(profile: Profile, mask_mpp_um: float, name: str) -> dict[str, Any]:
    names = [*(c.name for c in profile.classes), "background"]
    labels = {f"label {label}": _xml_text(class_name) for label, class_name in enumerate(names)}
    return {
        "axes": "YX",
        "Creator": "sshr-deploy",
        "Name": _xml_text(name),
        "SignificantBits": max(1, profile.num_classes.bit_length()),
        "PhysicalSizeX": mask_mpp_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mask_mpp_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": "label"},
        "MapAnnotation": {
            "Namespace": "sshr-deploy/labels",
            "Value": {"profile": profile.name, **labels},
        },
    }


def _xml_text(text: str) -> str:
    """Replace what XML 1.0 cannot hold: control characters and lone surrogates of file names."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "?", text)
