"""Slides of any size for measurements: tissue of the demo slide, repeated, on empty glass.

    python -m sshr_deploy.benchmarks.constructed_slide OUT.svs --side-px 20000 --tissue-share 0.4

The file is a pyramid as Aperio scanners write them, in levels of 1, 1/4 and 1/16. Tiles of level 0
are the demo slide's own, byte for byte, so that decoding costs what it costs on a real slide. A
tile that occurs many times is stored once: 100,000 px squared take a few MB.
"""

from __future__ import annotations

import argparse
import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import UsageError

TILE_PX = 240
"""As in the demo slide."""
CELL_TILES = 4
CELL_PX = TILE_PX * CELL_TILES
"""Tissue is laid in squares of this side; one of them is a tile of the second level."""
_PATTERN_CELLS = (2, 1)
_PATTERN_TILE = (4, 3)
"""Rows and columns of the cells that are repeated, and their first tile in the demo slide: 90 % of
them is tissue, the rest clefts and folds."""
_GLASS = 243
_MPP_UM = 0.499
_ASCII, _SHORT, _LONG, _UNDEFINED, _LONG8 = 2, 3, 4, 7, 16
_PACKED = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


class Built(NamedTuple):
    """What was written."""

    side_px: int
    tissue_cells: int
    """Squares of `CELL_PX` with the demo slide's pixels, some of which are glass, too."""


def build_slide(source: Path, out: Path, *, side_px: int, tissue_share: float) -> Built:
    """Write a square slide of `side_px` with a disc of tissue that takes `tissue_share` of it.

    `source` is the demo slide; pixels are 0.499 um as there.

    Raises:
        UsageError: a side under 960 px, or a share outside 0 to 0.75 (a disc fills no more).
        OutputError: it cannot be written.
    """
    if side_px < CELL_PX:
        raise UsageError(f"a side of {side_px} px is too small; give {CELL_PX} px or more")
    if not 0 <= tissue_share <= 0.75:
        raise UsageError(f"a tissue share of {tissue_share} does not fit; give 0 to 0.75")
    tissue = disc(-(-side_px // CELL_PX), tissue_share)
    pattern = _Pattern.of_slide(source)
    with atomic_path(out) as partial, partial.open("wb") as file:
        writer = _BigTiff(file)
        for factor in (1, CELL_TILES, CELL_TILES**2):
            side = side_px // factor
            count = -(-side // TILE_PX)
            tiles = (pattern.tile(factor, r, c, tissue) for r, c in np.ndindex(count, count))
            tables = pattern.tables if factor == 1 else None
            writer.add_level(side, tiles, tables, _description(side_px, side))
    return Built(side_px, int(tissue.sum()))


def disc(cells: int, share: float) -> NDArray[np.bool_]:
    """The `share` of `cells` x `cells` squares that lie nearest the middle."""
    y, x = np.mgrid[:cells, :cells] - (cells - 1) / 2
    nearest = np.argsort((y**2 + x**2).ravel(), kind="stable")[: round(share * cells**2)]
    inside = np.zeros(cells**2, np.bool_)
    inside[nearest] = True
    return inside.reshape(cells, cells)


@dataclass
class _Pattern:
    """Encoded tiles of all levels."""

    tables: bytes
    scanned: list[list[bytes]]
    """Level 0: rows of the demo slide's tiles."""
    pixels: NDArray[np.uint8]
    """The same decoded, RGB."""
    made: dict[tuple[Any, ...], bytes]
    """Tiles that were encoded here, by what is on them."""

    @classmethod
    def of_slide(cls, source: Path) -> _Pattern:
        rows, columns = (n * CELL_TILES for n in _PATTERN_CELLS)
        with tifffile.TiffFile(source) as tiff:
            page: Any = tiff.pages[0]
            across = -(-page.imagewidth // TILE_PX)
            top, left = _PATTERN_TILE
            first = top * across + left
            places = [[first + r * across + c for c in range(columns)] for r in range(rows)]
            scanned = [[_stored(tiff, page, index) for index in row] for row in places]
            pixels = page.asarray()[top * TILE_PX :, left * TILE_PX :]
            pixels = pixels[: rows * TILE_PX, : columns * TILE_PX]
            return cls(page.jpegtables, scanned, pixels, {})

    def tile(self, factor: int, row: int, column: int, tissue: NDArray[np.bool_]) -> bytes:
        """The tile at a place of the level that is `factor` times smaller than level 0."""
        if factor == 1:
            if tissue[row // CELL_TILES, column // CELL_TILES]:
                return self.scanned[row % len(self.scanned)][column % len(self.scanned[0])]
            return self._encoded(factor, 0, 0, np.zeros((1, 1), np.bool_))
        cells = factor // CELL_TILES  # along a side of the tile
        first_row, first_column = row * cells, column * cells
        here = tissue[first_row : first_row + cells, first_column : first_column + cells]
        phase = (
            n % count for n, count in zip((first_row, first_column), _PATTERN_CELLS, strict=True)
        )
        return self._encoded(factor, *phase, here)

    def _encoded(self, factor: int, row: int, column: int, tissue: NDArray[np.bool_]) -> bytes:
        """A tile of cells, the first of which is the pattern's at `row`, `column`."""
        key = (factor, row, column, tissue.shape, tissue.tobytes()) if tissue.any() else (0,)
        if key not in self.made:
            cell_px = CELL_PX // factor
            height, width = (n * cell_px for n in _PATTERN_CELLS)
            small = cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_AREA)
            picture = np.full((TILE_PX, TILE_PX, 3), _GLASS, np.uint8)
            for y, x in np.argwhere(tissue).tolist():
                top, left = (row + y) * cell_px % height, (column + x) * cell_px % width
                cell = small[top : top + cell_px, left : left + cell_px]
                picture[y * cell_px :, x * cell_px :][:cell_px, :cell_px] = cell
            self.made[key] = _jpeg(picture)
        return self.made[key]


def _stored(tiff: tifffile.TiffFile, page: Any, index: int) -> bytes:
    tiff.filehandle.seek(page.dataoffsets[index])
    stored: bytes = tiff.filehandle.read(page.databytecounts[index])
    return stored


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Encoded without a change of colour space, as in the demo slide."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=75, subsampling=0, keep_rgb=True)
    return file.getvalue()


def _description(side_px: int, level_px: int) -> str:
    size = f"{side_px}x{side_px} -> {level_px}x{level_px}"
    return (
        f"Aperio Image Library, constructed of CMU-1-Small-Region.svs\r\n{size} "
        f"({TILE_PX}x{TILE_PX}) JPEG/RGB|AppMag = 20|MPP = {_MPP_UM}"
    )


class _BigTiff:
    """Writes the levels of a pyramid one by one; a tile given twice is stored once."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.stored: dict[bytes, int] = {}
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self.link = 8  # where the place of the next level's directory is to be written

    def add_level(
        self, side_px: int, tiles: Iterable[bytes], tables: bytes | None, description: str
    ) -> None:
        """A square level, its tiles row by row."""
        places: list[int] = []
        counts: list[int] = []
        for tile in tiles:
            if tile not in self.stored:
                self.stored[tile] = self.file.seek(0, io.SEEK_END)
                self.file.write(tile)
            places.append(self.stored[tile])
            counts.append(len(tile))
        text = description.encode("ascii") + b"\0"
        tags: list[tuple[int, int, Sequence[int] | bytes]] = [
            (256, _LONG, [side_px]),  # width
            (257, _LONG, [side_px]),  # height
            (258, _SHORT, [8, 8, 8]),  # bits a sample
            (259, _SHORT, [7]),  # JPEG
            (262, _SHORT, [2]),  # RGB
            (270, _ASCII, text),
            (277, _SHORT, [3]),  # samples a pixel
            (284, _SHORT, [1]),  # planar configuration: together
            (322, _LONG, [TILE_PX]),
            (323, _LONG, [TILE_PX]),
            (324, _LONG8, places),
            (325, _LONG, counts),
        ]
        if tables is not None:
            tags.append((347, _UNDEFINED, tables))
        self._add_directory(tags)

    def _add_directory(self, tags: Sequence[tuple[int, int, Sequence[int] | bytes]]) -> None:
        entries = []
        for tag, kind, values in tags:
            packed = values if isinstance(values, bytes) else _packed(kind, values)
            if len(packed) > 8:
                place = self.file.seek(0, io.SEEK_END)
                self.file.write(packed)
                packed = struct.pack("<Q", place)
            count = len(values)
            entries.append(struct.pack("<HHQ", tag, kind, count) + packed.ljust(8, b"\0"))
        place = self.file.seek(0, io.SEEK_END)
        self.file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + bytes(8))
        self.file.seek(self.link)
        self.file.write(struct.pack("<Q", place))
        self.link = place + 8 + 20 * len(entries)


def _packed(kind: int, values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}{_PACKED[kind]}", *values)


def main() -> None:
    """Build the slide that the command line describes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="file to write; name it .svs")
    parser.add_argument(
        "--source",
        type=Path,
        default=Path("demo/data/CMU-1-Small-Region.svs"),
        help="the demo slide (default: %(default)s)",
    )
    parser.add_argument("--side-px", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--tissue-share", type=float, default=0.4, help="default: %(default)s")
    args = parser.parse_args()
    built = build_slide(args.source, args.out, side_px=args.side_px, tissue_share=args.tissue_share)
    print(f"{args.out}: {built.side_px} px squared, {built.tissue_cells} squares with tissue")


if __name__ == "__main__":
    main()
