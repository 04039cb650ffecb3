"""A label mask as a DICOM Segmentation: binary, tiled and sparse."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from sshr_deploy.atomic import atomic_path, output_errors
from sshr_deploy.errors import InputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.slides.dicom_source import SlideIdentity
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.writers.bands import RowsToCome, tissue_columns
from sshr_deploy.runtime.writers.dicom_header import FRAME_PX, new_uid, seg_header
from sshr_deploy.runtime.writers.dicom_place import MaskPlace, mask_place
from sshr_deploy.runtime.writers.tile_rows import TileRows

_FRAME_BYTES = FRAME_PX * FRAME_PX // 8
_MOST_FRAMES = (2**32 - 2) // _FRAME_BYTES
"""The length of pixel data is a number of 32 bits."""

_Frame = tuple[int, int, int]
"""Row and column of its tile from 0, segment from 1: the order of frames."""


class DicomSegSink:
    """Keeps the frames of a mask as its rows come; see `dicom_seg_sink`."""

    def __init__(self, path: Path, store: BinaryIO, grid: TileGrid, classes: int) -> None:
        self._path, self._store = path, store
        self._background = classes
        shape = grid.height_px, grid.width_px
        self._tiles = TileRows(shape, FRAME_PX, np.uint8(classes))
        self._rows = RowsToCome(grid.height_px)
        self.frames: list[_Frame] = []
        self._digest = hashlib.sha256()

    def put(self, labels: NDArray[np.uint8], prob: object = None) -> None:  # noqa: ARG002
        """Take the next rows of the mask, uint8 [rows, width_px].

        Raises:
            OutputError: the frames cannot be kept.
            InputError: there are too many of them.
        """
        self._rows.take(labels)
        for tile in self._tiles.put(labels, tissue_columns(labels, self._background)):
            if tile.pixels is not None:
                found = np.unique(tile.pixels)
                for label in found[found < self._background].tolist():
                    self._add((tile.row, tile.column, label + 1), tile.pixels == label)

    def _add(self, frame: _Frame, pixels: NDArray[np.bool_]) -> None:
        if len(self.frames) == _MOST_FRAMES:
            raise InputError(
                f"the mask is too large for {self._path.name}, which holds {_MOST_FRAMES} tiles of "
                "a class; leave `dicom_seg` out for it"
            )
        self.frames.append(frame)
        packed = np.packbits(pixels, axis=None, bitorder="little")
        self._digest.update(repr(frame).encode() + packed.data)
        with output_errors(self._path):
            self._store.write(packed.data)

    def finish(self) -> None:
        """Once all rows have come: one frame at least, as DICOM wants it.

        Raises:
            ValueError: rows are missing.
        """
        self._rows.check()
        if not self.frames:
            self._add((0, 0, 1), np.zeros((FRAME_PX, FRAME_PX), np.bool_))

    def content_id(self, header: Dataset) -> str:
        """Of the frames and what is said of them."""
        said = io.BytesIO()
        pydicom.dcmwrite(said, header, implicit_vr=False, little_endian=True)
        self._digest.update(said.getbuffer())
        return self._digest.hexdigest()


@contextmanager
def dicom_seg_sink(
    path: Path, slide: SlideIdentity, grid: TileGrid, profile: Profile
) -> Iterator[DicomSegSink]:
    """Write a label mask as DICOM Segmentation.

    Segment n is class n - 1, with the profile's code and colour. A frame holds one segment in one
    tile of 512 x 512 px (a bit per pixel, not compressed); there is none
    where a tile has nothing of a class. The object refers to the files of a DICOM slide's finest
    level and lies in its frame of reference; for other slides it has a new one and says so, see
    `dicom_header`. Its UIDs are made of its content: the same mask gives the same file.

    The frames wait in an unnamed file beside `path`; memory holds a row of tiles.

    Args:
        path: file to write; replaced when it exists, once all rows have come.
        slide: whose mask it is.
        grid: of the mask.
        profile: class names, codes and colours.

    Raises:
        OutputError: the file cannot be written.
        InputError: the mask is too large.
        ValueError: the block was left before all rows had come.
    """
    place = mask_place(grid, slide.source)
    size_px = grid.width_px, grid.height_px
    with atomic_path(path) as partial, tempfile.TemporaryFile(dir=path.parent) as store:
        header = seg_header(slide, place, size_px, profile)
        sink = DicomSegSink(path, store, grid, profile.num_classes)
        yield sink
        sink.finish()
        content = sink.content_id(header)
        header.SOPInstanceUID = new_uid(f"instance {content}")
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.SeriesInstanceUID = new_uid(f"series {content}")
        header.NumberOfFrames = len(sink.frames)
        with partial.open("wb") as file:
            pydicom.dcmwrite(file, header, enforce_file_format=True)
            file.write(_per_frame_groups(sink.frames, place))
            file.write(_long_head(0x7FE0, 0x0010, b"OB", store.tell()))
            store.seek(0)
            shutil.copyfileobj(store, file)


def _per_frame_groups(frames: list[_Frame], place: MaskPlace) -> bytes:
    """The sequence with the place and the segment of each frame.

    Written by hand, because pydicom takes far longer and 7 KB of memory a frame.
    """
    rows, columns = (
        {tile: index for index, tile in enumerate(sorted(set(tiles)), 1)}
        for tiles in list(zip(*frames, strict=True))[:2]
    )
    items = []
    for row, column, segment in frames:
        x, y = column * FRAME_PX, row * FRAME_PX
        index = struct.pack("<3L", rows[row], columns[column], segment)
        position = _offset_elements(place, x, y) + b"".join(
            _element(0x0048, element, b"SL", struct.pack("<l", 1 + pixel))
            for element, pixel in ((0x021E, x), (0x021F, y))
        )
        number = _element(0x0062, 0x000B, b"US", struct.pack("<H", segment))
        items.append(
            _item(
                _sequence(0x0020, 0x9111, _item(_element(0x0020, 0x9157, b"UL", index)))
                + _sequence(0x0048, 0x021A, _item(position))
                + _sequence(0x0062, 0x000A, _item(number))
            )
        )
    return _sequence(0x5200, 0x9230, b"".join(items))


def _offset_elements(place: MaskPlace, x: int, y: int) -> bytes:
    return b"".join(
        _element(0x0040, element, b"DS", format_number_as_ds(mm).encode())
        for element, mm in zip((0x072A, 0x073A, 0x074A), place.at(x, y), strict=True)
    )


def _sequence(group: int, element: int, items: bytes) -> bytes:
    return _long_head(group, element, b"SQ", len(items)) + items


def _item(elements: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(elements)) + elements


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _long_head(group: int, element: int, vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHL", group, element, vr, 0, length)
