"""Compressed tiles of a TIFF wait in a file, because a level is written as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import tifffile
from numpy.typing import NDArray

_deflate = tifffile.TIFF.COMPRESSORS[tifffile.COMPRESSION.ADOBE_DEFLATE]

Place = tuple[int, int]
"""Of a compressed tile in the file: first byte and length."""


class TileStore:
    """Tiles of one size; blank ones are alike and kept once."""

    def __init__(self, file: BinaryIO, blank: NDArray[Any]) -> None:
        self._file = file
        self._blank: bytes = _deflate(blank)

    def add(self, tile: NDArray[Any] | None) -> Place:
        """Keep a tile, in one piece of memory; None is a blank one."""
        if tile is None:
            return 0, 0
        compressed = _deflate(tile)
        return self._file.tell(), self._file.write(compressed)

    def get(self, places: Iterable[Place]) -> Iterator[bytes]:
        """Compressed tiles, once all are kept."""
        for place, length in places:
            if length:
                self._file.seek(place)
                yield self._file.read(length)
            else:
                yield self._blank
