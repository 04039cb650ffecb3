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
from sshr_deploy.runtime.writers.bands import RowsToCome, bands_of, tissue_columns
from sshr_deploy.runtime.writers.label_levels import label_levels
from sshr_deploy.runtime.writers.tile_store import Place, TileStore

TILE_PX = 512
_ID_NAMESPACE = uuid.UUID("0f0c3f1a-8a44-4a6e-9d0b-5b1f5a1c0b2d")
# Classic TIFF ends at 4 GiB. Deflate hardly ever grows a tile, and the levels add a third.
_CLASSIC_TIFF_PX = 2 << 30


class OmeTiffSink:
    """Compresses the tiles of a mask's pyramid as its rows come; see `ome_tiff_sink`."""

    def __init__(
        self, path: Path, store: BinaryIO, size_px: tuple[int, int], background: int
    ) -> None:
        self._path = path
        self._background = background
        self.rows = RowsToCome(size_px[1])
        self._store = TileStore(store, np.full((TILE_PX, TILE_PX), background, np.uint8))
        self.levels = label_levels(size_px, TILE_PX, background)
        self._places: list[list[Place]] = [[] for _ in self.levels]

    def put(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows of the mask, uint8 [rows, width_px].

        Raises:
            OutputError: the tiles cannot be kept.
        """
        self.rows.take(labels)
        tissue = tissue_columns(labels, self._background)
        with output_errors(self._path):
            for level, places in zip(self.levels, self._places, strict=True):
                places += [self._store.add(tile.pixels) for tile in level.put(labels, tissue)]

    def tiles(self, level: int) -> Iterator[bytes]:
        """All compressed tiles of a level, row by row."""
        return self._store.get(self._places[level])

    def content_id(self, metadata: dict[str, Any]) -> str:
        """A UUID of the labels, once all rows have come, and of what is said of them."""
        digest = hashlib.sha256(json.dumps([metadata, self.levels[0].shape]).encode())
        for tile in self.tiles(0):
            digest.update(tile)
        return str(uuid.uuid5(_ID_NAMESPACE, digest.hexdigest()))


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
        sink.rows.check()
        metadata = _ome_metadata(profile, mask_mpp_um, name)
        metadata["UUID"] = sink.content_id(metadata)
        bigtiff = size_px[0] * size_px[1] > _CLASSIC_TIFF_PX
        with (
            partial.open("w+b") as file,
            tifffile.TiffWriter(file, ome=True, bigtiff=bigtiff) as tiff,
        ):
            for index, level in enumerate(sink.levels):
                tiff.write(
                    sink.tiles(index),
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
